"""EVA attention against its definition: the full mask, position by position. Slow, and that is the point."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte import eva_attention
from proxybyte.eva_attention import (
    EvaSpec,
    KeysValues,
    Landmarks,
    find_documents,
    flex_block_mask,
    flex_windowed_attention,
    summarize,
    windowed_attention,
)

EXACT = {"rtol": 0, "atol": 1e-9}


def full_mask(spec: EvaSpec, documents: list[int]) -> torch.Tensor:
    """Whether position ``i`` sees summary ``c`` or position ``j``: shape ``(T, N + T)``, summaries first."""
    length = len(documents)
    chunks = -(-length // spec.chunk)
    mask = torch.zeros(length, chunks + length, dtype=torch.bool)
    for i in range(length):
        for c in range(chunks):
            members = range(c * spec.chunk, min((c + 1) * spec.chunk, length))
            earlier = members[-1] // spec.window < i // spec.window
            mask[i, c] = earlier and documents[i] in [documents[j] for j in members]
        for j in range(i + 1):
            mask[i, chunks + j] = i // spec.window == j // spec.window and documents[i] == documents[j]
    return mask


def reference_row(qkv, landmarks: Landmarks, spec: EvaSpec, documents: list[int]) -> torch.Tensor:
    """Attention of one row by the equations; queries, keys and values ``(H, T, D)``, a document number a column."""
    query, key, value = qkv
    scale = query.shape[-1] ** -0.5
    keys, values = [], []
    for first in range(0, len(documents), spec.chunk):
        last = min(first + spec.chunk, len(documents)) - 1
        members = [j for j in range(first, last + 1) if documents[j] == documents[last]]
        k, v = key[:, members], value[:, members]
        by_mu = torch.softmax(torch.einsum("hd,hjd->hj", landmarks.mu, k), -1)
        phi = torch.einsum("hd,hjd->hj", landmarks.phi, k)
        by_phi = torch.softmax(scale * (phi - (k * k).sum(-1) / 2), -1)
        keys.append(torch.einsum("hj,hjd->hd", by_mu, k))
        values.append(torch.einsum("hj,hjd->hd", by_phi, v))
    keys = torch.cat([torch.stack(keys, 1), key], 1)
    values = torch.cat([torch.stack(values, 1), value], 1)
    scores = (scale * query @ keys.transpose(1, 2)).masked_fill(~full_mask(spec, documents), -torch.inf)
    return torch.softmax(scores, -1) @ values


def reference_attention(qkv, landmarks, spec, documents) -> torch.Tensor:
    rows = [reference_row([x[b] for x in qkv], landmarks, spec, row) for b, row in enumerate(documents)]
    return torch.stack(rows)


@dataclass(frozen=True)
class Case:
    """Rows of documents, given by their lengths."""

    spec: EvaSpec
    documents: list[list[int]]
    seed: int

    def numbers(self) -> list[list[int]]:
        return [[n for n, size in enumerate(row) for _ in range(size)] for row in self.documents]

    def position_ids(self) -> torch.Tensor:
        return torch.tensor([[p for size in row for p in range(size)] for row in self.documents])

    def tensors(self) -> tuple[list[torch.Tensor], Landmarks]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (len(self.documents), 2, sum(self.documents[0]), 4)

        def draw(*sizes):
            return torch.randn(*sizes, generator=generator, dtype=torch.double, requires_grad=True)

        return [draw(*shape) for _ in range(3)], Landmarks(draw(2, 4), draw(2, 4))


@st.composite
def cases(draw) -> Case:
    chunk = draw(st.sampled_from([1, 2, 3, 4]))
    spec = EvaSpec(chunk * draw(st.integers(1, 4)), chunk, chunk)
    length = draw(st.integers(1, 44))

    def row():
        cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=5))) if length > 1 else []
        return [end - start for start, end in itertools.pairwise([0, *cuts, length])]

    return Case(spec, [row() for _ in range(draw(st.integers(1, 2)))], draw(st.integers(0, 9)))


def fast_attention(case: Case, qkv, landmarks, flex: bool = False) -> torch.Tensor:
    documents = find_documents(case.position_ids())
    starts = None if documents is None else documents.starts
    length = qkv[0].shape[2]
    part = slice(0, case.spec.chunks_before(length - 1) * case.spec.chunk)
    held = KeysValues(qkv[1][:, :, part], qkv[2][:, :, part])
    summaries = summarize(held, landmarks, case.spec.chunk, None if starts is None else starts[:, part])
    if flex:
        mask = flex_block_mask(length, case.spec, starts, qkv[0].device)
        return flex_windowed_attention(tuple(qkv), summaries, mask)
    return windowed_attention(tuple(qkv), summaries, case.spec, documents)


def assert_equals_reference(case: Case) -> None:
    qkv, landmarks = case.tensors()
    expected = reference_attention(qkv, landmarks, case.spec, case.numbers())
    found = fast_attention(case, qkv, landmarks)
    torch.testing.assert_close(found, expected, **EXACT)
    weights = torch.randn_like(expected)
    inputs = [*qkv, landmarks.mu, landmarks.phi]
    wanted = torch.autograd.grad(expected, inputs, weights, allow_unused=True, materialize_grads=True)
    gradients = torch.autograd.grad(found, inputs, weights, allow_unused=True, materialize_grads=True)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, **EXACT)


@pytest.fixture(params=["fused kernel of the CPU", "kernel of any device"])
def small_blocks(request, monkeypatch):
    """Blocks so small that a window holds several, on both kernels."""
    monkeypatch.setattr(eva_attention, "QUERY_BLOCK", 5)
    if request.param == "kernel of any device":
        monkeypatch.setattr(eva_attention, "_kernel", lambda device: eva_attention._AnyKernel)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_output_and_gradients_are_those_of_the_full_mask(case):
    assert_equals_reference(case)


@pytest.mark.parametrize(
    "documents",
    [
        pytest.param([[48]], id="one document"),
        pytest.param([[37]], id="unfinished window and chunk"),
        pytest.param([[10, 3, 24]], id="a document inside a chunk's window"),
        pytest.param([[13, 1, 1, 1, 21], [7, 7, 7, 7, 9]], id="several documents in one chunk, rows that differ"),
        pytest.param([[12, 12, 12, 12]], id="documents that end with windows"),
    ],
)
def test_every_kernel_equals_the_full_mask_where_blocks_are_small(small_blocks, documents):
    assert_equals_reference(Case(EvaSpec(12, 4, 4), documents, seed=1))


@settings(max_examples=15, deadline=None)
@given(case=cases())
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_the_same_forward(case):
    qkv, landmarks = case.tensors()
    qkv = [x.detach() for x in qkv]
    with torch.no_grad():
        expected = reference_attention(qkv, landmarks, case.spec, case.numbers())
        torch.testing.assert_close(fast_attention(case, qkv, landmarks, flex=True), expected, **EXACT)


def test_documents_begin_where_positions_do_not_go_on_by_one():
    documents = find_documents(torch.tensor([[0, 1, 0, 1, 2], [4, 5, 6, 7, 0]]))
    assert documents.starts.tolist() == [[0, 0, 2, 2, 2], [0, 0, 0, 0, 4]]
    assert documents.earliest == (0, 0, 0, 0, 2)
    assert find_documents(torch.tensor([[7, 8, 9]])) is None
    padded = torch.tensor([[0, 1, 2, 0, 0]])
    assert find_documents(padded, attended=torch.tensor([[True, True, True, False, False]])) is None


def test_half_precision_stays_near_the_full_mask():
    case = Case(EvaSpec(16, 4, 4), [[30, 34]], seed=2)
    qkv, landmarks = case.tensors()
    expected = reference_attention(qkv, landmarks, case.spec, case.numbers())
    found = fast_attention(case, [x.bfloat16() for x in qkv], landmarks)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05)
