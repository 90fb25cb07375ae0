from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from proxybyte.losses import head_loss, is_plain_linear
from proxybyte.symbols import IGNORE_INDEX


class Wrapped(nn.Module):
    """A head that is no ``nn.Linear``, as an adapter's is."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden)


def problem(rows: int, width: int, symbols: int, dtype=torch.float64, seed: int = 0):
    torch.manual_seed(seed)
    head = nn.Linear(width, symbols, bias=False).to(dtype)
    hidden = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, symbols, (rows,))
    targets[torch.rand(rows) < 0.3] = IGNORE_INDEX
    return head, hidden, targets


def brute_force(
    head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Nats of each target by the definition, one at a time."""
    logits = head(hidden)
    terms = [
        logits.new_zeros(()) if target == IGNORE_INDEX else logits[i].exp().sum().log() - logits[i, target]
        for i, target in enumerate(targets.tolist())
    ]
    return torch.stack(terms)


@pytest.mark.parametrize("way", ["linear", "module"])
@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_loss_and_gradients_are_those_of_the_definition(way, chunk_size):
    head, hidden, targets = problem(10, 6, 30)
    expected = brute_force(head, hidden, targets)
    expected_grads = torch.autograd.grad(3.0 * expected.sum(), (hidden, head.weight))
    got = head_loss(Wrapped(head) if way == "module" else head, hidden, targets, chunk_size)
    grads = torch.autograd.grad(3.0 * got.total, (hidden, head.weight))
    torch.testing.assert_close(got.nll, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.total, expected.sum(), rtol=0, atol=1e-11)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert not got.nll.requires_grad


@pytest.mark.parametrize("way", ["linear", "module"])
@pytest.mark.parametrize("chunk_size", [3, 64])
def test_a_cap_on_the_logits_is_part_of_loss_and_gradients(way, chunk_size):
    head, hidden, targets = problem(10, 6, 30)
    cap = 0.7
    expected = brute_force(lambda h: cap * torch.tanh(head(h) / cap), hidden, targets)
    expected_grads = torch.autograd.grad(expected.sum(), (hidden, head.weight))
    got = head_loss(Wrapped(head) if way == "module" else head, hidden, targets, chunk_size, cap=cap)
    torch.testing.assert_close(got.nll, expected, rtol=0, atol=1e-12)
    grads = torch.autograd.grad(got.total, (hidden, head.weight))
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50), st.integers(1, 50), st.integers(0, 99))
def test_chunks_change_nothing(rows, width, symbols, chunk_size, seed):
    head, hidden, targets = problem(rows, width, symbols, seed=seed)
    loss = head_loss(head, hidden, targets, chunk_size)
    loss.total.backward()
    ours = hidden.grad, head.weight.grad
    hidden.grad = head.weight.grad = None
    plain = F.cross_entropy(head(hidden), targets, reduction="none", ignore_index=IGNORE_INDEX)
    plain.sum().backward()
    torch.testing.assert_close(loss.nll, plain.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours, (hidden.grad, head.weight.grad), rtol=0, atol=1e-10)


@pytest.mark.parametrize("way", ["linear", "module"])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 25), st.booleans(), st.integers(0, 99))
def test_weighted_stacked_heads_are_a_weighted_sum_over_heads(way, heads, rows, chunk_size, weighted, seed):
    symbols = 17
    head, hidden, _ = problem(rows, 5, heads * symbols, seed=seed)
    targets = torch.randint(0, symbols, (heads, rows))
    targets[torch.rand(heads, rows) < 0.3] = IGNORE_INDEX
    weights = torch.rand(heads, rows, dtype=torch.float64) if weighted else None
    blocks = head.weight.split(symbols)
    nats = torch.stack(
        [
            F.cross_entropy(hidden @ block.T, wanted, reduction="none", ignore_index=IGNORE_INDEX)
            for block, wanted in zip(blocks, targets, strict=True)
        ]
    )
    expected = (nats if weights is None else nats * weights).sum()
    expected_grads = torch.autograd.grad(2.0 * expected, (hidden, head.weight))
    got = head_loss(Wrapped(head) if way == "module" else head, hidden, targets, chunk_size, weights)
    grads = torch.autograd.grad(2.0 * got.total, (hidden, head.weight))
    torch.testing.assert_close(got.nll, nats.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(got.total, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=1e-11)


def test_a_target_of_weight_zero_reports_its_nats_and_pulls_nothing():
    head, hidden, targets = problem(10, 4, 20)
    targets = targets.where(targets != IGNORE_INDEX, 3)
    weights = torch.zeros(10, dtype=torch.float64)
    loss = head_loss(head, hidden, targets, 3, weights)
    loss.total.backward()
    assert (loss.nll > 0).all()
    assert loss.total == 0 and not hidden.grad.any() and not head.weight.grad.any()


def test_only_wanted_gradients_are_computed():
    head, hidden, targets = problem(8, 4, 20)
    head.weight.requires_grad_(False)
    head_loss(head, hidden, targets, 3).total.backward()
    assert head.weight.grad is None and hidden.grad is not None
    with torch.no_grad():
        assert not head_loss(head, hidden, targets, 3).total.requires_grad


def test_without_targets_loss_and_gradients_are_zero():
    head, hidden, targets = problem(8, 4, 20)
    loss = head_loss(head, hidden, torch.full_like(targets, IGNORE_INDEX), 3)
    loss.total.backward()
    assert loss.total == 0 and not loss.nll.any() and not hidden.grad.any() and not head.weight.grad.any()


def test_huge_logits_stay_finite():
    head, hidden, targets = problem(8, 4, 20, torch.float32)
    loss = head_loss(head, hidden * 1e4, targets, 3)
    loss.total.backward()
    assert torch.isfinite(loss.nll).all() and torch.isfinite(hidden.grad).all()


def test_half_precision_sums_over_chunks_in_float32():
    """Sixty-four chunks of bfloat16 are as near to float64 as one chunk is."""
    head, hidden, targets = problem(512, 16, 64, torch.bfloat16)
    wide = nn.Linear(16, 64, bias=False).double()
    wide.weight.data.copy_(head.weight)
    exact = F.cross_entropy(wide(hidden.double()), targets, reduction="sum", ignore_index=IGNORE_INDEX)
    (exact_grad,) = torch.autograd.grad(exact, wide.weight)
    errors = []
    for chunk_size in (512, 8):
        loss = head_loss(head, hidden, targets, chunk_size)
        assert loss.nll.dtype == torch.float32
        (grad,) = torch.autograd.grad(loss.total, head.weight)
        assert grad.dtype == torch.bfloat16
        errors.append((grad.double() - exact_grad).norm() / exact_grad.norm())
        torch.testing.assert_close(loss.total.double(), exact, rtol=2e-2, atol=0)
    assert errors[1] < 1.5 * errors[0] < 0.05


def test_autocast_computes_in_half_and_returns_gradients_of_the_weights_kind():
    head, hidden, targets = problem(64, 16, 50, torch.float32)
    exact = head_loss(head, hidden, targets, 16)
    (exact_grad,) = torch.autograd.grad(exact.total, head.weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head_loss(head, hidden, targets, 16)
    grads = torch.autograd.grad(loss.total, (hidden, head.weight))
    assert [grad.dtype for grad in grads] == [torch.float32] * 2
    torch.testing.assert_close(loss.total, exact.total, rtol=1e-2, atol=0)
    assert 0 < (grads[1] - exact_grad).norm() < 0.05 * exact_grad.norm()


def test_heads_that_do_more_than_multiply_are_not_taken_for_plain_ones():
    head = nn.Linear(4, 8, bias=False)
    assert is_plain_linear(head)
    assert not is_plain_linear(nn.Linear(4, 8))
    assert not is_plain_linear(Wrapped(head))
    head.register_forward_hook(lambda module, inputs, output: output * 2)
    assert not is_plain_linear(head)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest result of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, torch.Tensor):
                self.elements = max(self.elements, result.numel())
        return results


@pytest.mark.parametrize("way", ["linear", "module"])
def test_no_more_logits_than_a_chunks_ever_exist(way):
    rows, width, symbols, chunk_size = 200, 4, 50, 10
    head, hidden, targets = problem(rows, width, symbols)
    with LargestTensor() as largest:
        head_loss(Wrapped(head) if way == "module" else head, hidden, targets, chunk_size).total.backward()
    assert largest.elements == max(chunk_size * symbols, rows * width) < rows * symbols


@pytest.mark.parametrize("way", ["linear", "module"])
def test_no_more_logits_than_one_heads_chunks_ever_exist(way):
    rows, width, symbols, chunk_size, heads = 240, 4, 50, 12, 6
    head, hidden, _ = problem(rows, width, heads * symbols)
    targets = torch.randint(0, symbols, (heads, rows))
    with LargestTensor() as largest:
        head_loss(Wrapped(head) if way == "module" else head, hidden, targets, chunk_size).total.backward()
    assert largest.elements == max(chunk_size * symbols, heads * rows, heads * symbols * width)
