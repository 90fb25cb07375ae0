import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from proxybyte.logits_processors import ViewLogitsProcessor
from proxybyte.symbols import Special

RAW, CLOSE = int(Special.RAW_OPEN), int(Special.RAW_CLOSE)
PROMPT = torch.tensor([[RAW, 70, 80, 90]])
TEXT = set(range(64, 320))
WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 5, "top_p": 0.9, "temperature": 1.7},
    "beam": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True},
}
EVERY_WAY = pytest.mark.parametrize("way", sorted(WAYS))
KINDS = pytest.mark.parametrize("kind", ["llama", "qwen3"])


class Pushing(LogitsProcessor):
    """A caller's own processor that asks for compressed symbols and stray sentinels."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores = scores.clone()
        scores[:, 320:] = 1e6
        scores[:, : int(Special.EOS)] = 1e6
        return scores


@pytest.fixture
def hostile(tiny_model):
    """A model whose head gives every symbol that may not follow raw text a far higher logit, in every context."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.normal_(std=0.01)
        model.lm_head.weight[:64] += 3.0
        model.lm_head.weight[320:] += 3.0
        model.lm_head.weight[[int(Special.EOS), CLOSE]] -= 6.0
    assert model(PROMPT).logits[0, -1].argmax().item() not in TEXT
    return model


@EVERY_WAY
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"min_new_tokens": 10},
        {"remove_invalid_values": True},
        {"eos_token_id": None},
        {"eos_token_id": 2, "min_new_tokens": 9},
        {"repetition_penalty": 1.5},
        {"logits_processor": LogitsProcessorList([Pushing()])},
        {"raw_symbols_only": False},
        {"use_cache": False},
    ],
    ids=lambda settings: next(iter(settings), "default"),
)
def test_raw_text_never_turns_into_other_symbols(hostile, way, settings):
    torch.manual_seed(0)
    new = hostile.generate(PROMPT, max_new_tokens=12, **WAYS[way], **settings)[0, 4:].tolist()
    assert set(new) <= TEXT | {int(Special.EOS), CLOSE, int(Special.PAD)}
    assert set(new) & TEXT


@pytest.mark.parametrize("ends", [[2, 13], [2, 13, 11]])
def test_the_end_of_a_turn_is_emitted_only_where_it_ends_generation(hostile, ends):
    with torch.no_grad():
        hostile.lm_head.weight[int(Special.END_OF_TURN)] += 50.0
    new = hostile.generate(PROMPT, max_new_tokens=5, eos_token_id=ends)[0, 4:].tolist()
    assert new == [11] if 11 in ends else (len(new) == 5 and set(new) <= TEXT)


@pytest.mark.parametrize("end", [int(Special.EOS), CLOSE])
def test_generation_ends_exactly_at_the_end_of_the_text(hostile, end):
    with torch.no_grad():
        hostile.lm_head.weight[end] += 50.0
    assert hostile.generate(PROMPT, max_new_tokens=9)[0, 4:].tolist() == [end]


def test_after_the_closing_sentinel_only_the_end_follows(hostile):
    """A folder without generation settings stops at ``<eos>`` alone; minimum lengths cannot drive past it."""
    with torch.no_grad():
        hostile.lm_head.weight[CLOSE] += 50.0
    assert hostile.generate(PROMPT, max_new_tokens=9, eos_token_id=2)[0, 4:].tolist() == [CLOSE, 2]
    torch.manual_seed(0)
    forced = hostile.generate(PROMPT, max_new_tokens=9, eos_token_id=2, min_new_tokens=6, do_sample=True)
    assert forced[0, 4:6].tolist() == [CLOSE, 2]


def test_a_compressed_text_goes_on_with_compressed_symbols(tiny_model):
    prompts = torch.tensor([[RAW, 70, 71], [int(Special.COMPRESSED_OPEN), 330, 331]])
    raw, compressed = tiny_model().generate(prompts, max_new_tokens=8)[:, 3:].tolist()
    assert set(raw) <= TEXT | {0, 2, CLOSE}
    assert set(compressed) <= set(range(320, 360)) | {0, 2, int(Special.COMPRESSED_CLOSE)}


@pytest.mark.parametrize(
    ("prompt", "allowed"),
    [
        ([70, 71], TEXT | {2, 13}),
        ([RAW], TEXT | {2, 13}),
        ([14, 330, 15, RAW, 70], TEXT | {2, 13}),
        ([RAW, 70, 13, 2, RAW], TEXT | {2, 13}),
        ([RAW, 70, 18], TEXT | {2, 13}),
        ([RAW, 70, 13, 14, 330], set(range(320, 330)) | {2, 15}),
        ([RAW, 70, 13], {2}),
        ([RAW, 70, 13, 2], {2}),
        ([14, 330, 15], {2}),
    ],
)
def test_what_may_follow_is_decided_by_the_last_sentinel(prompt, allowed):
    scores = ViewLogitsProcessor(330, end_of_turn=False)(torch.tensor([prompt]), torch.randn(1, 330))
    assert set(torch.isfinite(scores)[0].nonzero().squeeze(1).tolist()) == allowed


@KINDS
@EVERY_WAY
def test_cached_decoding_equals_uncached(tiny_model, kind, way):
    model = tiny_model(kind)
    outputs = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        outputs.append(model.generate(PROMPT, max_new_tokens=20, use_cache=use_cache, **WAYS[way]))
    assert torch.equal(*outputs)


@KINDS
def test_logits_with_a_cache_are_those_without(tiny_model, kind):
    model = tiny_model(kind)
    symbols = torch.randint(64, 320, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        every = model(symbols).logits
        past, steps = None, []
        for piece in symbols.split([5, 1, 1, 3, 2], dim=1):
            output = model(piece, past_key_values=past, use_cache=True)
            past = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), every, rtol=0, atol=1e-6)


def test_a_static_cache_writes_the_same_text(tiny_model):
    model = tiny_model()
    assert torch.equal(
        model.generate(PROMPT, max_new_tokens=12, cache_implementation="static", disable_compile=True),
        model.generate(PROMPT, max_new_tokens=12),
    )


@KINDS
@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_a_left_padded_batch_writes_what_each_prompt_writes_alone(tiny_model, kind, way):
    model = tiny_model(kind)
    prompts = [[RAW, 70], [RAW, 80, 81, 82, 83, 84], [RAW, 90, 91]]
    longest = max(map(len, prompts))
    batch = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    together = model.generate(batch, attention_mask=batch.ne(0).long(), max_new_tokens=15, **WAYS[way])[:, longest:]
    for row, prompt in zip(together.tolist(), prompts, strict=True):
        alone = model.generate(torch.tensor([prompt]), max_new_tokens=15, **WAYS[way])[0, len(prompt) :].tolist()
        assert row[: len(alone)] == alone and not any(row[len(alone) :])


@pytest.mark.parametrize("way", ["greedy", "sampling"])
def test_the_short_head_changes_no_text(tiny_model, way):
    model = tiny_model()
    outputs = []
    for short in (True, False):
        torch.manual_seed(0)
        outputs.append(model.generate(PROMPT, max_new_tokens=20, raw_symbols_only=short, **WAYS[way]))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_text_is_that_of_a_plain_model_without_the_compressed_rows(tiny_model, way):
    """Beams too: the scores are normalised over raw symbols alone, as such a model's are."""
    model = tiny_model()
    settings = {**model.config.backbone_config.to_dict(), "vocab_size": 320}
    plain = LlamaForCausalLM(LlamaConfig(**settings)).double().eval()
    weights = {name: weight[:320] if len(weight) == 360 else weight for name, weight in model.state_dict().items()}
    plain.load_state_dict(weights)
    strays = [symbol for symbol in range(64) if symbol not in (2, CLOSE)]
    theirs = plain.generate(PROMPT, max_new_tokens=15, eos_token_id=[2, CLOSE], suppress_tokens=strays, **WAYS[way])
    assert torch.equal(model.generate(PROMPT, max_new_tokens=15, **WAYS[way]), theirs)


def test_prompt_lookup_and_an_assistant_write_the_greedy_text(tiny_model):
    model = tiny_model()
    greedy = model.generate(PROMPT, max_new_tokens=20)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=20, prompt_lookup_num_tokens=3), greedy)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=20, assistant_model=tiny_model("qwen3")), greedy)


def test_generation_from_nothing_opens_a_text(tiny_model):
    assert tiny_model().generate(max_new_tokens=3)[0, 0] == RAW


def test_generation_from_embeddings_is_that_from_symbols(tiny_model):
    model = tiny_model()
    new = model.generate(inputs_embeds=model.get_input_embeddings()(PROMPT), max_new_tokens=8)
    assert torch.equal(new, model.generate(PROMPT, max_new_tokens=8)[:, 4:])
