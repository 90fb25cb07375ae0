"""``draft_rows``: rows that wait take the places of those that end, and each text is that of one byte at a time."""

import pytest
import torch
from transformers import DynamicCache

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.drafting import Draft
from proxybyte.errors import ProxyByteError
from proxybyte.row_cache import RowCache

NEW, LENGTHS = 12, (9, 7, 5, 9, 4)
BACKBONES = {
    "llama": {"model_type": "llama"},
    "mistral, sliding": {"model_type": "mistral", "sliding_window": 8},
    "qwen3, sliding and full": {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
WAYS = [{"draft": "heads"}, {"draft_repeats": True}, {"draft": "heads", "draft_repeats": True, "draft_bytes": 3}]


def make(name: str, **changes) -> ProxyByteForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if name == "proxybyte_eva" else 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    backbone = {**shape, **BACKBONES.get(name, {"model_type": name}), **changes}
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=40, num_raw_pred_heads=5)
    model = ProxyByteForCausalLM(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    return model


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def model(request):
    return make(request.param)


def ends_apart(model, prompts) -> list[int]:
    """Symbols that end the rows of greedy text at several places."""
    texts = model.generate(**prompts, max_new_tokens=NEW, eos_token_id=None)[:, max(LENGTHS) :]
    return [int(texts[row, place]) for row, place in ((0, 3), (2, 0), (4, 8))]


@pytest.fixture(scope="module")
def one_at_a_time(model, padded):
    """Arguments of ``generate``, and what they give one byte at a time."""
    prompts = padded(LENGTHS)
    settings = {**prompts, "max_new_tokens": NEW, "eos_token_id": ends_apart(model, prompts), "pad_token_id": 0}
    return settings, model.generate(**settings)


@pytest.mark.parametrize(("way", "rows"), [(WAYS[0], 2), (WAYS[0], 1), (WAYS[1], 3), (WAYS[2], 2), (WAYS[2], 5)])
def test_greedy_texts_are_those_of_one_byte_at_a_time(model, one_at_a_time, way, rows):
    settings, expected = one_at_a_time
    assert torch.equal(model.generate(**settings, **way, draft_rows=rows), expected)


def test_passes_stay_full_while_rows_wait(padded):
    """Every row is counted by itself, no pass has more than the rows asked for, and few have less."""
    model, prompts = make("llama"), padded(LENGTHS)
    settings = {"max_new_tokens": NEW, "eos_token_id": None, "draft": "heads", "return_dict_in_generate": True}
    drafts = model.generate(**prompts, **settings, draft_rows=2).drafts
    assert drafts.symbols == len(LENGTHS) * NEW
    # The first pass is over all prompts.
    passes, rows = drafts.forwards - 1, drafts.row_forwards - len(LENGTHS)
    assert drafts.row_forwards == len(drafts.steps)
    assert rows <= 2 * passes
    # Only while the last row is alone is a place free, and it takes one pass a symbol at most.
    assert 2 * passes - rows <= NEW


def test_drawn_texts_are_drawn_alike(padded):
    """The first two symbols of many draws of one prompt, most of which wait, against the model's own distribution."""
    model, draws = make("llama"), 2000
    prompt = padded((5,))["input_ids"]
    settings = {"do_sample": True, "max_new_tokens": 2, "eos_token_id": None, "temperature": 0.5, "top_k": 4}
    torch.manual_seed(1)
    texts = model.generate(prompt, **settings, num_return_sequences=draws, draft="heads", draft_rows=64)[:, 5:]
    with torch.no_grad():
        first = _drawn(model(prompt).logits[0, -1])
        seen = torch.bincount(texts[:, 0], minlength=len(first)) / draws
        assert (seen - first).abs().max() < 4 * (0.25 / draws) ** 0.5
        for symbol in first.nonzero().flatten().tolist():
            then = _drawn(model(torch.cat([prompt, torch.tensor([[symbol]])], dim=1)).logits[0, -1])
            own = texts[texts[:, 0] == symbol, 1]
            seen = torch.bincount(own, minlength=len(then)) / max(1, len(own))
            assert (seen - then).abs().max() < 4 * (0.25 / max(1, len(own))) ** 0.5


def _drawn(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities at temperature 0.5 of the four likeliest raw symbols that may follow."""
    logits = logits.clone()
    logits[320:] = -torch.inf
    logits[:64] = -torch.inf
    kept = torch.full_like(logits, -torch.inf)
    best = logits.topk(4)
    return kept.scatter(0, best.indices, best.values / 0.5).softmax(0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_that_were_split_off_come_back_as_they_were(count):
    torch.manual_seed(0)
    config = make("llama").model.config
    cache = DynamicCache(config=config)
    for layer in range(2):
        cache.update(torch.randn(4, 2, 6, 8), torch.randn(4, 2, 6, 8), layer)
    mask = torch.tensor([[1] * 6, [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]])
    rows, whole = RowCache(cache, mask, config), RowCache(cache, mask, config)
    apart = rows.split_off(count)
    assert rows.lengths == [6, 5, 2, 4][:count]
    rows.take_in(apart[1:])
    order = [*range(count), *range(count + 1, 4)]
    assert rows.lengths == [[6, 5, 2, 4][row] for row in order]
    for mine, theirs in zip(rows.layers, whole.layers, strict=True):
        for place, row in enumerate(order):
            length = rows.lengths[place]
            assert torch.equal(mine.keys[place, :, :length], theirs.keys[row, :, :length])
            assert torch.equal(mine.values[place, :, :length], theirs.values[row, :, :length])


class Nobody:
    most, forwards = 2, 0

    def open(self, model, most):
        return self

    def see(self, output, at): ...

    def keep(self, places): ...

    def propose(self, texts, most):
        return [Draft([], []) for _ in texts.active]


def test_what_cannot_wait_is_refused(padded):
    model, prompts = make("llama"), padded((5, 4, 3))
    settings = {"max_new_tokens": 4, "draft": "heads", "draft_rows": 2}
    with pytest.raises(ProxyByteError, match="hands no cache back"):
        model.generate(**prompts, **settings, past_key_values=DynamicCache(config=model.config))
    with pytest.raises(ProxyByteError, match="heads and repeats"):
        model.generate(**prompts, **{**settings, "draft": Nobody()})
    eva = make("proxybyte_eva", window_size=16, chunk_size=4, cache_rollback=8)
    with pytest.raises(ProxyByteError, match="EVA"):
        eva.generate(**prompts, **settings)
    assert model.generate(**prompts, **settings, return_dict_in_generate=True).past_key_values is None
