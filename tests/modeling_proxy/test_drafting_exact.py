"""Whatever the draft: the output is that of one byte at a time."""

from itertools import pairwise

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from proxybyte import ByteStreamer, ProxyByteConfig, ProxyByteForCausalLM, Utf8LogitsProcessor, build_tokenizer
from proxybyte.symbols import Special

NEW = 30
BACKBONES = {
    "llama": {"model_type": "llama"},
    "eager": {"model_type": "llama", "attn_implementation": "eager"},
    "mistral, sliding": {"model_type": "mistral", "sliding_window": 8},
    "qwen3, sliding and full": {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "eva": {"model_type": "proxybyte_eva", "window_size": 16, "chunk_size": 4, "cache_rollback": 8},
}
EVERY_BACKBONE = pytest.mark.parametrize("backbone", sorted(BACKBONES))


@pytest.fixture(scope="module")
def make_model():
    made = {}

    def make(name: str = "llama") -> ProxyByteForCausalLM:
        if name not in made:
            shapes = {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4 if name == "eva" else 2,
                "head_dim": 8,
                "max_position_embeddings": 256,
            }
            torch.manual_seed(0)
            settings = dict(BACKBONES[name])
            implementation = settings.pop("attn_implementation", "sdpa")
            config = ProxyByteConfig(
                backbone_config={**shapes, **settings}, num_compressed_symbols=40, num_raw_pred_heads=5
            )
            model = ProxyByteForCausalLM._from_config(config, attn_implementation=implementation).double().eval()
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.ndim > 1:
                        weight.normal_(std=0.3)
            made[name] = model
        return made[name]

    return make


@pytest.fixture
def prompts_for(padded):
    """Padded prompts; none padded for eager attention, which makes the whole row NaN in Transformers itself."""
    return lambda backbone: padded((12,) * 5 if backbone == "eager" else (12, 9, 5, 11, 12))


@EVERY_BACKBONE
@pytest.mark.parametrize("error", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("most", [1, 6])
def test_greedy_output_is_that_of_one_byte_at_a_time(make_model, prompts_for, foretold, backbone, error, most):
    model, prompts = make_model(backbone), prompts_for(backbone)
    expected = model.generate(**prompts, max_new_tokens=NEW)
    decode = foretold(expected, error=error, most=most)
    assert torch.equal(model.generate(**prompts, max_new_tokens=NEW, custom_generate=decode), expected)


@EVERY_BACKBONE
def test_greedy_output_is_that_of_one_byte_at_a_time_with_the_models_own_heads(make_model, prompts_for, backbone):
    model, prompts = make_model(backbone), prompts_for(backbone)
    expected = model.generate(**prompts, max_new_tokens=NEW)
    assert torch.equal(model.generate(**prompts, max_new_tokens=NEW, draft="heads"), expected)


def test_rows_go_their_own_way(make_model, padded, foretold):
    """Forward passes as in the slowest row, and every row counted by itself."""
    model, prompts = make_model(), padded()
    expected = model.generate(**prompts, max_new_tokens=NEW, eos_token_id=None)
    output = model.generate(
        **prompts,
        max_new_tokens=NEW,
        eos_token_id=None,
        custom_generate=foretold(expected, error=0.3),
        return_dict_in_generate=True,
    )
    drafts = output.drafts
    assert torch.equal(output.sequences, expected)
    assert drafts.symbols == 5 * NEW
    assert NEW / 7 < drafts.forwards < drafts.row_forwards < 5 * drafts.forwards
    assert all(0.7**place * 0.5 < share < 0.8 for place, share in enumerate(drafts.acceptance[:3], 1))
    assert drafts.acceptance == sorted(drafts.acceptance, reverse=True)


def test_a_perfect_draft_takes_the_fewest_forward_passes(make_model, padded, foretold):
    model, prompts = make_model(), padded()
    settings = {"max_new_tokens": 29, "eos_token_id": None, "return_dict_in_generate": True}
    expected = model.generate(**prompts, **settings).sequences
    drafts = model.generate(**prompts, **settings, custom_generate=foretold(expected, error=0.0, most=6)).drafts
    assert drafts.forwards == 1 + 28 // 7
    assert drafts.acceptance == [1.0] * 6


@EVERY_BACKBONE
def test_the_cache_is_handed_back_as_one_byte_generation_leaves_it(make_model, prompts_for, foretold, backbone):
    model, prompts = make_model(backbone), prompts_for(backbone)
    settings = {"max_new_tokens": NEW, "eos_token_id": None, "return_dict_in_generate": True}
    expected = model.generate(**prompts, **settings)
    drafted = model.generate(**prompts, **settings, custom_generate=foretold(expected.sequences))
    assert type(drafted.past_key_values) is type(expected.past_key_values)
    rest = torch.cat([expected.sequences[:, -1:], torch.full((5, 3), 99)], dim=1)
    mask = torch.cat([prompts["attention_mask"], torch.ones(5, NEW + 3, dtype=torch.long)], dim=1)
    logits = [
        model(rest, attention_mask=mask, past_key_values=output.past_key_values).logits
        for output in (expected, drafted)
    ]
    # Transformers' eager attention computes its softmax in float32.
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-4 if backbone == "eager" else 1e-9)


@EVERY_BACKBONE
def test_a_callers_cache_goes_on_where_it_was(make_model, padded, foretold, backbone):
    """Two turns: the second begins with the cache that the first, drafted too, has left."""
    model, prompts = make_model(backbone), padded((9,))
    text, caches = prompts["input_ids"], [DynamicCache(config=model.config) for _ in range(2)]
    for _ in range(2):
        expected = model.generate(text, past_key_values=caches[0], max_new_tokens=9, eos_token_id=None)
        decode = foretold(expected)
        drafted = model.generate(
            text, past_key_values=caches[1], max_new_tokens=9, eos_token_id=None, custom_generate=decode
        )
        assert torch.equal(drafted, expected)
        assert caches[1].get_seq_length() == caches[0].get_seq_length() == expected.shape[1] - 1
        text = torch.cat([expected, torch.tensor([[70, 80, 90]])], dim=1)


class Wandering(LogitsProcessor):
    """A caller's own, which looks at everything: the length, the row of the batch and the whole text."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        rows = torch.arange(len(input_ids))
        scores[rows, 64 + (input_ids.sum(1) + 7 * rows + input_ids.shape[1]) % 256] += 3.0
        return scores


@pytest.mark.parametrize("backbone", ["llama", "eva"])
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 25},
        {"suppress_tokens": [100, 101]},
        {"bad_words_ids": [[70, 71], [90]]},
        {"forced_eos_token_id": 2},
        {"logits_processor": LogitsProcessorList([Utf8LogitsProcessor()])},
        {"logits_processor": LogitsProcessorList([Utf8LogitsProcessor(12 + NEW)])},
        {"logits_processor": LogitsProcessorList([Wandering()])},
        {"raw_symbols_only": False},
        {"eos_token_id": list(range(64, 74))},
        {"max_new_tokens": 1},
        {"max_new_tokens": 2},
        {"max_length": 20, "max_new_tokens": None},
        {"prefill_chunk_size": 4},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_processor_is_applied_at_every_position(make_model, padded, foretold, backbone, settings):
    model, prompts = make_model(backbone), padded()
    settings = {"max_new_tokens": NEW, **settings}
    expected = model.generate(**prompts, **settings)
    assert torch.equal(model.generate(**prompts, **settings, custom_generate=foretold(expected)), expected)


def test_a_repetition_penalty_without_padding_counts_each_rows_own_symbols(make_model, padded, foretold):
    model, prompts = make_model(), padded((12, 12, 12))
    settings = {"max_new_tokens": NEW, "repetition_penalty": 1.8}
    expected = model.generate(**prompts, **settings)
    assert torch.equal(model.generate(**prompts, **settings, custom_generate=foretold(expected)), expected)


@pytest.mark.parametrize("end", [int(Special.EOS), int(Special.RAW_CLOSE)])
@pytest.mark.parametrize("row", [0, 2])
def test_a_row_ends_exactly_at_the_end_of_its_text(make_model, padded, foretold, end, row):
    """At whichever place of the draft it lies, and although the other rows go on."""

    class Ending(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            scores[row, end] += 1e4 * (input_ids.shape[1] == when)
            return scores

    model, prompts = make_model(), padded()
    for when in range(12, 22):
        settings = {"max_new_tokens": 12, "logits_processor": LogitsProcessorList([Ending()])}
        expected = model.generate(**prompts, **settings)
        assert expected[row, when] == end and not expected[row, when + 1 :].any()
        decode = foretold(expected, error=0.1)
        assert torch.equal(model.generate(**prompts, **settings, custom_generate=decode), expected)


class AfterManyOdd(StoppingCriteria):
    """A caller's own, with another answer for each row."""

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        return (input_ids[:, 12:] % 2).sum(1) >= 9


def test_stopping_criteria_are_asked_at_every_length(make_model, padded, foretold):
    model, prompts = make_model(), padded()
    settings = {"max_new_tokens": NEW, "stopping_criteria": [AfterManyOdd()]}
    expected = model.generate(**prompts, **settings)
    assert len({int(row.ne(0).sum()) for row in expected[:, 12:]}) > 1
    for error in (0.0, 0.3):
        assert torch.equal(
            model.generate(**prompts, **settings, custom_generate=foretold(expected, error=error)), expected
        )


def test_stop_strings_end_a_text_where_they_would_one_byte_at_a_time(make_model, padded):
    model, prompts = make_model(), padded((12,))
    tokenizer = build_tokenizer()
    free = model.generate(**prompts, max_new_tokens=NEW)[0, 12:].tolist()
    pairs = [bytes([one - 64, two - 64]) for one, two in pairwise(free[5:]) if 64 < one < 160 and 64 < two < 160]
    settings = {"max_new_tokens": NEW, "stop_strings": [pairs[0].decode()], "tokenizer": tokenizer}
    expected = model.generate(**prompts, **settings)
    assert expected.shape[1] < 12 + NEW
    assert torch.equal(model.generate(**prompts, **settings, draft="heads"), expected)


def test_a_streamer_gets_the_same_pieces_in_the_same_order(make_model, padded, foretold):
    model, prompts = make_model(), padded((12,))
    pieces: list[list[str]] = [[], []]
    model.generate(**prompts, max_new_tokens=NEW, streamer=ByteStreamer(pieces[0].append))
    model.generate(**prompts, max_new_tokens=NEW, streamer=ByteStreamer(pieces[1].append), draft="heads")
    assert pieces[1] == pieces[0]
