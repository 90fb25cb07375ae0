"""Decoding with a cache is the full forward, whatever comes in at once, is padded, dropped again or put in order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from proxybyte import ProxyByteError
from proxybyte.configuration_proxybyte import EvaConfig
from proxybyte.modeling_eva import EvaModel

EXACT = {"rtol": 0, "atol": 1e-9}
WINDOW, CHUNK, ROLLBACK = 8, 2, 5
LENGTH = 4 * WINDOW + 5


@pytest.fixture(scope="module")
def model() -> EvaModel:
    """In float64, with weights large enough that every key matters."""
    torch.manual_seed(0)
    config = EvaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=WINDOW,
        chunk_size=CHUNK,
        cache_rollback=ROLLBACK,
    )
    model = EvaModel(config).double().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.4)
    return model


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(64, 320, (3, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def full(model, ids) -> torch.Tensor:
    """Hidden states without a cache."""
    return model(ids, use_cache=False).last_hidden_state


def feed(model, cache, ids, steps, mask=None) -> torch.Tensor:
    """Hidden states of ``ids`` from where the cache stands, in steps of the given widths."""
    start, outputs = cache.get_seq_length(), []
    for width in steps:
        end = start + width
        part = None if mask is None else mask[:, :end]
        outputs.append(model(ids[:, start:end], attention_mask=part, past_key_values=cache).last_hidden_state)
        start = end
    return torch.cat(outputs, dim=1)


def widths(total: int):
    """Ways to cut ``total`` columns into steps, mostly of one column."""

    def cut(steps: list[int]) -> list[int]:
        taken, left = [], total
        for step in steps:
            if left:
                taken.append(min(step, left))
                left -= taken[-1]
        return [*taken, *[1] * left]

    return st.lists(st.sampled_from([1, 1, 2, 3, ROLLBACK, WINDOW, 13, 20]), max_size=9).map(cut)


@settings(max_examples=25, deadline=None)
@given(steps=widths(LENGTH))
def test_every_position_decodes_to_the_full_forward(model, ids, full, steps):
    cache = DynamicCache(config=model.config)
    torch.testing.assert_close(feed(model, cache, ids, steps), full, **EXACT)
    assert cache.get_seq_length() == LENGTH


@settings(max_examples=25, deadline=None)
@given(steps=widths(LENGTH), lengths=st.tuples(*[st.integers(1, LENGTH)] * 3))
def test_left_padded_rows_equal_each_row_alone(model, ids, full, steps, lengths):
    mask, padded = torch.zeros(3, LENGTH, dtype=torch.long), torch.zeros(3, LENGTH, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, LENGTH - length :] = 1
        padded[row, LENGTH - length :] = ids[row, :length]
    cached = feed(model, DynamicCache(config=model.config), padded, steps, mask)
    whole = model(padded, attention_mask=mask, use_cache=False).last_hidden_state
    for row, length in enumerate(lengths):
        torch.testing.assert_close(cached[row, LENGTH - length :], full[row, :length], **EXACT)
        torch.testing.assert_close(whole[row, LENGTH - length :], full[row, :length], **EXACT)


@pytest.mark.parametrize("drafted", [1, 3, ROLLBACK])
@pytest.mark.parametrize("length", [1, 5, *range(WINDOW - 2, WINDOW + 7), *range(3 * WINDOW - 3, 3 * WINDOW + 7)])
def test_dropped_symbols_leave_no_trace_across_borders(model, ids, full, length, drafted):
    """Drafts that are wrong are dropped again, once by the cache and once by the mask."""
    end = min(length + WINDOW + 1, LENGTH)
    cropped, masked = DynamicCache(config=model.config), DynamicCache(config=model.config)
    for cache in (cropped, masked):
        feed(model, cache, ids, [length])
        model(ids.flip(1)[:, :drafted], past_key_values=cache)
    cropped.crop(-drafted)
    torch.testing.assert_close(feed(model, cropped, ids, [1] * (end - length)), full[:, length:end], **EXACT)

    mask = torch.ones(3, LENGTH + drafted, dtype=torch.long)
    mask[:, length : length + drafted] = 0
    columns = torch.cat([ids[:, :length], ids.flip(1)[:, :drafted], ids[:, length:]], dim=1)
    found = feed(model, masked, columns, [1] * (end - length), mask)
    torch.testing.assert_close(found, full[:, length:end], **EXACT)


def test_rows_may_drop_different_numbers_of_symbols(model, ids, full):
    """Batched speculative decoding: each row accepts as many drafted symbols as it likes."""
    cache = DynamicCache(config=model.config)
    feed(model, cache, ids, [WINDOW - 1])
    held = torch.full((3,), WINDOW - 1)
    mask = torch.ones(3, WINDOW - 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    while int(held.max()) + 4 <= LENGTH:
        columns = held[:, None] + torch.arange(4)
        mask = torch.cat([mask, torch.ones(3, 4, dtype=torch.long)], dim=1)
        output = model(ids.gather(1, columns), attention_mask=mask, past_key_values=cache).last_hidden_state
        wanted = full.gather(1, columns[..., None].expand(-1, -1, full.shape[2]))
        torch.testing.assert_close(output, wanted, **EXACT)
        accepted = torch.randint(1, 5, (3,), generator=generator)
        mask[:, -4:] = torch.arange(4) < accepted[:, None]
        held += accepted


def test_beams_and_copies_of_rows_go_on_as_their_own(model, ids, full):
    cache = DynamicCache(config=model.config)
    feed(model, cache, ids, [WINDOW + 3])
    order = torch.tensor([2, 0, 0])
    cache.reorder_cache(order)
    rest = [1] * (LENGTH - WINDOW - 3)
    torch.testing.assert_close(feed(model, cache, ids[order], rest), full[order, WINDOW + 3 :], **EXACT)

    cache = DynamicCache(config=model.config)
    feed(model, cache, ids, [WINDOW + 3])
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3, 5]))
    rows = torch.tensor([0, 1, 2])
    torch.testing.assert_close(feed(model, cache, ids[rows], rest), full[rows, WINDOW + 3 :], **EXACT)


def test_a_reset_cache_and_a_static_one_begin_anew(model, ids, full):
    cache = StaticCache(config=model.config, max_cache_len=LENGTH)
    feed(model, cache, ids.flip(0), [LENGTH])
    assert cache.get_max_length() == LENGTH
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(feed(model, cache, ids, [5] + [1] * (LENGTH - 5)), full, **EXACT)


def test_the_window_costs_the_same_however_long_the_text(model):
    cache = DynamicCache(config=model.config)
    long = torch.randint(64, 320, (1, 40 * WINDOW))
    model(long, past_key_values=cache)
    layer = cache.layers[0]
    assert layer.ring == WINDOW + ROLLBACK
    assert layer.keys.shape[2] - layer.ring < 40 * WINDOW // CHUNK * 2


def test_more_symbols_than_the_ring_holds_cannot_be_dropped(model, ids):
    cache = DynamicCache(config=model.config)
    feed(model, cache, ids, [LENGTH])
    with pytest.raises(ProxyByteError, match="cache_rollback = 5 of the last symbols"):
        cache.crop(-ROLLBACK - 1)
    with pytest.raises(ProxyByteError, match="as a negative number"):
        cache.crop(3)
    cache.crop(-2)
    with pytest.raises(ProxyByteError, match="cache_rollback = 5"):
        cache.crop(-ROLLBACK + 1)


def test_masks_and_caches_that_do_not_fit_are_refused(model, ids):
    cache = DynamicCache(config=model.config)
    feed(model, cache, ids, [5])
    with pytest.raises(ProxyByteError, match=r"3 rows and 5 \+ 2 columns"):
        model(ids[:, 5:7], attention_mask=torch.ones(3, 2), past_key_values=cache)
    with pytest.raises(ProxyByteError, match="no cache for EVA attention"):
        model(ids, past_key_values=DynamicCache())
    with pytest.raises(ProxyByteError, match="several documents in a row"):
        model(ids[:, :4], position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=True)
    with pytest.raises(ProxyByteError, match="either input_ids or inputs_embeds"):
        model()


def test_gradients_flow_through_a_cache(model, ids):
    """As through the full forward; without a gradient to compute the cache is written in place."""
    model = EvaModel(model.config).double()
    weights = torch.randn(3, LENGTH, 16, dtype=torch.double)
    (model(ids, use_cache=False).last_hidden_state * weights).sum().backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    steps = [11] + [1] * (LENGTH - 11)
    (feed(model, DynamicCache(config=model.config), ids, steps) * weights).sum().backward()
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, **EXACT)


def test_a_cache_filled_in_inference_mode_goes_on_outside(model, ids, full):
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        feed(model, cache, ids, [WINDOW + 1])
    rest = [1] * (LENGTH - WINDOW - 1)
    torch.testing.assert_close(feed(model, cache, ids, rest), full[:, WINDOW + 1 :], **EXACT)
