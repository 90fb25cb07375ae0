"""Heads that predict further: targets, loss and gradients against the definition, one position at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from proxybyte import ProxyByteConfig, ProxyByteError, ProxyByteForCausalLM
from proxybyte.losses import head_targets, head_weights
from proxybyte.symbols import COMPRESSED_OFFSET, IGNORE_INDEX

IGNORED, VOCAB = IGNORE_INDEX, 360


def valid_target(labels: list[int], positions: list[int], t: int, head: int, heads: int) -> int:
    """The label that ``head`` is to predict at ``t``, or the ignored one: the definition for one position."""
    goal = t + 1 + head
    if goal >= len(labels):
        return IGNORED
    within = all(positions[i] == positions[i - 1] + 1 for i in range(t + 1, goal + 1))
    if head > 0 and not within:
        return IGNORED
    if head >= heads and not all(0 <= labels[i] < COMPRESSED_OFFSET for i in range(t + 1, goal + 1)):
        return IGNORED
    return labels[goal]


def brute_force_targets(labels: torch.Tensor, positions: torch.Tensor, heads: int, raw_heads: int) -> torch.Tensor:
    rows, places = labels.tolist(), positions.tolist()
    return torch.tensor(
        [
            [
                [valid_target(row, place, t, h, heads) for t in range(len(row))]
                for row, place in zip(rows, places, strict=True)
            ]
            for h in range(heads + raw_heads)
        ]
    )


def brute_force_loss(
    model: ProxyByteForCausalLM, hidden: torch.Tensor, targets: torch.Tensor, num_items: float
) -> torch.Tensor:
    """The mean over valid heads at each position, summed, by plain logits of all heads."""
    config = model.config
    blocks = [model.lm_head.weight]
    if config.num_pred_heads > 1:
        blocks += model.pred_heads.weight.split(config.vocab_size)
    if config.num_raw_pred_heads:
        blocks += model.raw_pred_heads.weight.split(COMPRESSED_OFFSET)
    total = 0 * hidden.sum()
    for row in range(hidden.shape[0]):
        for t in range(hidden.shape[1]):
            nats = [
                -F.log_softmax(block @ hidden[row, t], 0)[targets[h, row, t]]
                for h, block in enumerate(blocks)
                if targets[h, row, t] != IGNORED
            ]
            if nats:
                total = total + torch.stack(nats).mean()
    return total / num_items


@st.composite
def packed_rows(draw, rows: int = 2, length: int = 14) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Symbols, positions and labels of rows in which short documents of both views, and of one in two, are packed."""
    symbol = st.one_of(st.integers(0, 319), st.integers(320, VOCAB - 1))
    ids, positions, labels = [], [], []
    for _ in range(rows):
        spans = draw(st.lists(st.integers(1, 8), min_size=length, max_size=length))
        places = [i for span in spans for i in range(span)][:length]
        row = draw(st.lists(symbol, min_size=length, max_size=length))
        hidden_too = draw(st.lists(st.integers(0, 5), min_size=length, max_size=length))
        ids.append(row)
        positions.append(places)
        labels.append([IGNORED if p == 0 or h == 0 else s for s, p, h in zip(row, places, hidden_too, strict=True)])
    return torch.tensor(ids), torch.tensor(positions), torch.tensor(labels)


@settings(max_examples=60, deadline=None)
@given(packed_rows(), st.integers(1, 5), st.integers(0, 4))
def test_targets_are_those_of_the_definition(row_batch, heads, raw_heads):
    _, positions, labels = row_batch
    found = head_targets(labels, positions, heads, raw_heads)
    assert torch.equal(found, brute_force_targets(labels, positions, heads, raw_heads))


@settings(max_examples=40, deadline=None)
@given(packed_rows(), st.integers(1, 5), st.integers(0, 4))
def test_no_head_but_the_first_looks_across_documents_even_where_labels_do(row_batch, heads, raw_heads):
    ids, positions, _ = row_batch
    found = head_targets(ids, positions, heads, raw_heads)
    assert torch.equal(found, brute_force_targets(ids, positions, heads, raw_heads))
    assert torch.equal(found[0, :, :-1], ids[:, 1:])


def test_a_row_without_positions_is_one_document():
    labels = torch.arange(70, 76)[None]
    found = head_targets(labels, None, 3, 1)
    assert found[:, 0].tolist() == [
        [71, 72, 73, 74, 75, IGNORED],
        [72, 73, 74, 75, IGNORED, IGNORED],
        [73, 74, 75, IGNORED, IGNORED, IGNORED],
        [74, 75, IGNORED, IGNORED, IGNORED, IGNORED],
    ]


def test_a_horizon_beyond_the_row_has_no_targets():
    assert head_targets(torch.tensor([[70, 71]]), None, 5, 2)[1:].eq(IGNORED).all()


def test_a_raw_head_is_valid_only_where_every_symbol_up_to_its_target_is_raw():
    # </comp> <raw> a b </raw> after two compressed symbols, and a position that is no target.
    labels = torch.tensor([[14, 400, 401, 15, 12, 161, 162, 13, IGNORED, 2]])
    (full, raw) = head_targets(labels, None, 1, 1)[:, 0].tolist()
    assert full == [400, 401, 15, 12, 161, 162, 13, IGNORED, 2, IGNORED]
    assert raw == [IGNORED, IGNORED, 12, 161, 162, 13, IGNORED, IGNORED, IGNORED, IGNORED]


def test_targets_of_the_documented_row():
    """The table of docs/model.md."""
    labels = torch.tensor([[IGNORED, 400, 15, 2, IGNORED, 161, 162, 13, 2]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    assert head_targets(labels, positions, 2, 1)[:, 0].tolist() == [
        [400, 15, 2, IGNORED, 161, 162, 13, 2, IGNORED],
        [15, 2, IGNORED, IGNORED, 162, 13, 2, IGNORED, IGNORED],
        [IGNORED, IGNORED, IGNORED, IGNORED, 13, 2, IGNORED, IGNORED, IGNORED],
    ]


@settings(max_examples=40, deadline=None)
@given(packed_rows(), st.integers(1, 5), st.integers(0, 4))
def test_weights_of_a_position_add_up_to_one_over_its_valid_heads(row_batch, heads, raw_heads):
    _, positions, labels = row_batch
    targets = head_targets(labels, positions, heads, raw_heads)
    weights = head_weights(targets, torch.float64)
    assert ((weights > 0) == (targets != IGNORED)).all()
    some = (targets != IGNORED).any(0)
    torch.testing.assert_close(weights.sum(0), some.double(), rtol=0, atol=1e-15)
    assert all(len(column[column > 0].unique()) <= 1 for column in weights.flatten(1).T)


class Wrapped(nn.Module):
    """A head that is no ``nn.Linear``, as an adapter's is."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> nn.Parameter:
        return self.inner.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden)


def last_hidden(model: ProxyByteForCausalLM, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state


@pytest.mark.parametrize("way", ["linear", "module"])
@settings(max_examples=12, deadline=None)
@given(row_batch=packed_rows(), shape=st.sampled_from([(1, 0), (3, 0), (1, 2), (3, 2)]), chunk=st.integers(1, 30))
def test_loss_and_gradients_are_those_of_the_definition(way, row_batch, shape, chunk):
    ids, positions, labels = row_batch
    heads, raw_heads = shape
    model = small_model(num_pred_heads=heads, num_raw_pred_heads=raw_heads, loss_chunk_size=chunk)
    targets = brute_force_targets(labels, positions, heads, raw_heads)
    expected = brute_force_loss(model, last_hidden(model, ids, positions), targets, 7)
    weights = dict(model.named_parameters())
    expected_grads = torch.autograd.grad(expected, list(weights.values()), materialize_grads=True)
    if way == "module":
        for name in ("lm_head", "pred_heads", "raw_pred_heads"):
            if hasattr(model, name):
                setattr(model, name, Wrapped(getattr(model, name)))
    output = model(ids, position_ids=positions, labels=labels, num_items_in_batch=7)
    grads = torch.autograd.grad(output.loss, list(weights.values()), materialize_grads=True)
    torch.testing.assert_close(output.loss, expected, rtol=0, atol=1e-10)
    for name, ours, theirs in zip(weights, grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9, msg=name)


def small_model(**settings) -> ProxyByteForCausalLM:
    torch.manual_seed(0)
    shapes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ProxyByteConfig(
        backbone_config={"model_type": "llama", **shapes}, num_compressed_symbols=VOCAB - COMPRESSED_OFFSET, **settings
    )
    model = ProxyByteForCausalLM(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.4)
    return model


def packed_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two rows: a raw document of 5, one of 4 in the compressed view, then raw text behind a masked prompt; all raw."""
    ids = torch.tensor(
        [[12, 80, 81, 13, 2, 14, 330, 331, 15, 12, 90, 91, 92, 93], [12, *range(100, 111), 13, 2]],
    )
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 4], list(range(14))])
    labels = ids.clone()
    labels[positions == 0] = IGNORED
    labels[0, 10:12] = IGNORED
    return ids, positions, labels


def test_each_heads_nats_and_targets_are_reported_by_row():
    ids, positions, labels = packed_batch()
    model = small_model(num_pred_heads=3, num_raw_pred_heads=1)
    output = model(ids, position_ids=positions, labels=labels)
    targets = brute_force_targets(labels, positions, 3, 1)
    hidden = last_hidden(model, ids, positions)
    blocks = [model.lm_head.weight, *model.pred_heads.weight.split(VOCAB), model.raw_pred_heads.weight]
    for head, block in enumerate(blocks):
        logits = hidden @ block.T
        nats = F.cross_entropy(logits.flatten(0, 1), targets[head].flatten(), reduction="none").view(2, -1)
        torch.testing.assert_close(output.head_nll[:, head], nats.sum(1).detach(), rtol=0, atol=1e-10)
        assert torch.equal(output.head_targets[:, head], (targets[head] != IGNORED).sum(1))
    torch.testing.assert_close(output.head_nll[:, 0], output.target_nll.sum(1))
    assert not output.head_nll.requires_grad


def test_more_heads_change_nothing_of_what_the_first_reports():
    ids, positions, labels = packed_batch()
    one, many = small_model(), small_model(num_pred_heads=4, num_raw_pred_heads=2)
    many.load_state_dict(one.state_dict(), strict=False)
    kwargs = {"position_ids": positions, "labels": labels, "return_logits": True}
    alone, among = one(ids, **kwargs), many(ids, **kwargs)
    assert torch.equal(alone.target_nll, among.target_nll)
    assert torch.equal(alone.logits, among.logits)
    assert alone.head_nll is alone.head_targets is alone.head_logits is None


def test_the_next_symbol_alone_is_the_loss_of_the_first_head():
    ids, positions, labels = packed_batch()
    model = small_model(num_pred_heads=3, num_raw_pred_heads=2)
    output = model(ids, position_ids=positions, labels=labels, next_symbol_only=True)
    torch.testing.assert_close(output.loss, output.target_nll.sum() / (labels[:, 1:] != IGNORED).sum())
    assert output.head_nll is output.head_targets is None
    output.loss.backward()
    assert model.pred_heads.weight.grad is model.raw_pred_heads.weight.grad is None


def test_padding_on_the_left_changes_no_loss():
    model = small_model(num_pred_heads=3, num_raw_pred_heads=2)
    ids = torch.tensor([[12, *range(70, 77)]])
    alone = model(ids, labels=ids)
    padded = F.pad(ids, (3, 0), value=0)
    labels = F.pad(ids, (3, 0), value=IGNORED)
    labels[:, 3] = IGNORED  # no position before it sees anything
    beside = model(padded, attention_mask=padded.ne(0).long(), labels=labels, num_items_in_batch=7)
    torch.testing.assert_close(beside.loss, alone.loss, rtol=0, atol=1e-10)
    assert torch.equal(beside.head_targets, alone.head_targets)


@pytest.mark.parametrize("way", ["linear", "module"])
@pytest.mark.parametrize(("heads", "raw_heads"), [(3, 2), (1, 2), (3, 0)])
def test_drafts_are_the_raw_rows_of_each_extra_head_in_order(way, heads, raw_heads):
    model = small_model(num_pred_heads=heads, num_raw_pred_heads=raw_heads)
    ids = torch.randint(64, VOCAB, (2, 6))
    hidden = model(ids, output_hidden_states=True).hidden_states[-1]
    blocks = []
    if heads > 1:
        blocks += [block[:COMPRESSED_OFFSET] for block in model.pred_heads.weight.split(VOCAB)]
    if raw_heads:
        blocks += model.raw_pred_heads.weight.split(COMPRESSED_OFFSET)
    expected = torch.stack([hidden @ block.T for block in blocks], dim=2)
    if way == "module":
        for name in ("pred_heads", "raw_pred_heads"):
            if hasattr(model, name):
                setattr(model, name, Wrapped(getattr(model, name)))
    output = model(ids, return_head_logits=True)
    assert output.head_logits.shape == (2, 6, heads - 1 + raw_heads, 320)
    torch.testing.assert_close(output.head_logits, expected, rtol=0, atol=1e-12)
    for keep, where in ((2, [4, 5]), (1, [5]), (torch.tensor([0, 3]), [0, 3])):
        kept = model(ids, logits_to_keep=keep, return_head_logits=True)
        torch.testing.assert_close(kept.head_logits, expected[:, where], rtol=0, atol=1e-12)
        assert kept.logits.shape[1] == len(where)


def test_heads_that_are_not_asked_for_draft_nothing():
    model = small_model(num_pred_heads=3)
    assert model(torch.tensor([[70, 71]])).head_logits is None
    with pytest.raises(ProxyByteError, match="has one head and drafts nothing"):
        small_model()(torch.tensor([[70, 71]]), return_head_logits=True)


def test_without_more_heads_there_are_no_more_weights():
    names = set(small_model().state_dict())
    assert not any("pred_heads" in name for name in names)
    added = small_model(num_pred_heads=3, num_raw_pred_heads=2).state_dict()
    assert set(added) - names == {"pred_heads.weight", "raw_pred_heads.weight"}
    assert added["pred_heads.weight"].shape == (2 * VOCAB, 8)
    assert added["raw_pred_heads.weight"].shape == (2 * 320, 8)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "proxybyte_eva"])
def test_heads_start_as_lm_head_does_and_leave_the_other_weights_as_they_were(kind):
    shapes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}

    def make(**settings):
        torch.manual_seed(3)
        backbone = {"model_type": kind, **shapes, "initializer_range": 0.05, "tie_word_embeddings": False}
        return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, **settings))

    many, one = make(num_pred_heads=4, num_raw_pred_heads=3), make()
    for name, weight in one.state_dict().items():
        assert torch.equal(many.state_dict()[name], weight), name
    for weight in (many.lm_head.weight, many.pred_heads.weight, many.raw_pred_heads.weight):
        assert weight.std().item() == pytest.approx(0.05, rel=0.03)
        assert abs(weight.mean().item()) < 0.002


@pytest.mark.parametrize("tied", [False, True])
def test_saving_and_loading_keeps_every_head_and_ties_none(tmp_path, tied):
    model = small_model(num_pred_heads=3, num_raw_pred_heads=2, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    loaded = ProxyByteForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert (loaded.config.num_pred_heads, loaded.config.num_raw_pred_heads) == (3, 2)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    embedding = loaded.model.embed_tokens.weight.data_ptr()
    assert (loaded.lm_head.weight.data_ptr() == embedding) is tied
    assert embedding not in (loaded.pred_heads.weight.data_ptr(), loaded.raw_pred_heads.weight.data_ptr())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_pred_heads": 0}, "num_pred_heads is 0: give a whole number of at least 1"),
        ({"num_pred_heads": 2.0}, "num_pred_heads is 2.0: give a whole number"),
        ({"num_raw_pred_heads": -1}, "num_raw_pred_heads is -1: give a whole number of at least 0"),
        ({"num_raw_pred_heads": True}, "num_raw_pred_heads is True: give a whole number"),
    ],
)
def test_a_number_of_heads_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ProxyByteError, match=message):
        ProxyByteConfig(**settings)
