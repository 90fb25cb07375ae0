"""M1 as used: the same integers for any batch, order, precision, kernel and thread count."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.neural import byte_lm
from proxybyte.training.compressors.neural.byte_lm import ByteLM
from proxybyte.training.compressors.neural.compressor import lm_from_bytes, lm_to_bytes
from proxybyte.training.compressors.neural.fit import (
    NO_TARGET,
    FitOptions,
    FloatByteLM,
    TextSampler,
    bits_per_byte,
    fit,
    quantise,
)

CPU = torch.device("cpu")
TEXTS = [b"def step(self):\n", b"import os\n\n\nimpo", b"\x00\xff\x80 bytes \x01\x02..", bytes(range(200, 216))]


def read(lm: ByteLM, texts: list[bytes]) -> torch.Tensor:
    """States after texts of equal length."""
    states = lm.fresh(len(texts))
    for column in zip(*texts, strict=True):
        states = lm.step(states, torch.tensor(column))
    return states


def step_by_definition(lm: ByteLM, state: np.ndarray, byte: int) -> np.ndarray:
    """One step for one state in 64-bit integers and exact halves, from the formulas of the module."""
    tensors = {name: tensor.double().numpy() for name, tensor in lm.tensors().items()}
    wide = lm.width
    sums = np.rint(tensors["recurrent"].astype(np.int64) @ state.astype(np.int64) * tensors["recurrent_scale"])
    given = tensors["inputs"][byte]

    def table(name: str, index: np.ndarray) -> np.ndarray:
        return tensors[name][np.clip(index, -byte_lm.INDEX_MAX, byte_lm.INDEX_MAX).astype(int) + byte_lm.INDEX_MAX]

    gates = table("sigmoid", sums[: 2 * wide] + given[: 2 * wide])
    inner = np.clip(sums[2 * wide :] + tensors["candidate_bias"], -byte_lm.INNER_MAX, byte_lm.INNER_MAX)
    candidate = table("tanh", np.rint(inner * gates[:wide] / 2**9) + given[2 * wide :])
    return np.rint((gates[wide:] * state + (256 - gates[wide:]) * candidate) / 256)


def frequencies_by_definition(lm: ByteLM, state: np.ndarray) -> list[int]:
    sums = lm.head.long().numpy() @ state.astype(np.int64)
    logits = np.rint(sums * lm.head_scale.double().numpy()) + lm.head_bias.double().numpy()
    below = np.minimum(logits.max() - logits, byte_lm.EXPONENTS).astype(int)
    weights = [int(lm.exp2[i]) for i in below]
    factor = (65_280 << 30) // sum(weights)
    result = [1 + (weight * factor >> 30) for weight in weights]
    result[int(np.argmax(logits))] += 65_536 - sum(result)
    return result


def test_a_step_is_its_definition_in_exact_integers(small_lm):
    for text in TEXTS:
        state = np.zeros(small_lm.width)
        for end, byte in enumerate(text, 1):
            state = step_by_definition(small_lm, state, byte)
            found = read(small_lm, [text[:end]])
            assert np.array_equal(found[0].numpy(), state)
        assert small_lm.frequencies(found)[0].tolist() == frequencies_by_definition(small_lm, state)


def test_rows_do_not_depend_on_their_batch(small_lm):
    """Alone (float32 kernel), in batches of any size and order (int8 kernel): one result."""
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, 256, 9).astype(np.uint8).tobytes() for _ in range(70)]
    together = read(small_lm, texts)
    alone = torch.cat([read(small_lm, [text]) for text in texts])
    assert torch.equal(together, alone)
    order = torch.randperm(len(texts))
    shuffled = read(small_lm, [texts[i] for i in order])
    assert torch.equal(shuffled, together[order])
    for function in (small_lm.frequencies, small_lm.entropies):
        assert torch.equal(function(together), torch.cat([function(row) for row in alone.split(1)]))


def test_kernel_precision_and_threads_change_nothing(small_lm, monkeypatch):
    texts = [bytes(row) for row in np.random.default_rng(1).integers(0, 256, (40, 12)).tolist()]
    expected = read(small_lm, texts)
    monkeypatch.setattr("proxybyte.training.compressors.neural.byte_lm.trusted", lambda device: False)
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        for name in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(name)
            torch.set_num_threads(1 if name == "high" else 2)
            assert torch.equal(read(small_lm, texts), expected), name
            assert torch.equal(small_lm.frequencies(expected), small_lm.frequencies(expected.flip(0)).flip(0))
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


@pytest.mark.gpu
def test_an_accelerator_gives_the_same_bits(small_lm):
    texts = [bytes(row) for row in np.random.default_rng(1).integers(0, 256, (40, 12)).tolist()]
    device = torch.device("cuda")
    lm, states = small_lm.to(device), small_lm.fresh(len(texts))
    there = states.to(device)
    for column in zip(*texts, strict=True):
        states = small_lm.step(states, torch.tensor(column))
        there = lm.step(there, torch.tensor(column, device=device))
    assert torch.equal(states, there.cpu())
    assert torch.equal(small_lm.frequencies(states), lm.frequencies(there).cpu())
    assert torch.equal(small_lm.entropies(states), lm.entropies(there).cpu())


def test_int8_products_that_saturate_are_not_trusted(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.int() @ b.int()).clamp(-(2**15), 2**15 - 1))
    assert not byte_lm.trusted.__wrapped__(CPU)


def test_frequencies_and_entropies_follow_the_logits(small_lm):
    states = read(small_lm, [text[:12] for text in TEXTS])
    frequencies = small_lm.frequencies(states)
    assert (frequencies.sum(dim=1) == 65_536).all() and frequencies.min() >= 1
    logits = (states.double() @ small_lm.head.double().T * small_lm.head_scale.double()).round() + small_lm.head_bias
    shares = torch.softmax(logits.double() * math.log(2) / 64, dim=1)
    assert torch.allclose(frequencies.double() / 65_536, shares, atol=0.006)
    entropies = -(shares * shares.clamp(min=1e-12).log2()).sum(dim=1)
    assert torch.allclose(small_lm.entropies(states).double() / 64, entropies, atol=0.05)


def test_rounding_to_integers_costs_under_a_hundredth_of_a_bit(sources, tmp_path):
    options = FitOptions(width=32, steps=60, batch=64, context=16, learning_rate=1e-2)
    sampler = TextSampler.of(sources)
    model = fit(sampler, options, tmp_path, CPU)
    text, targets = (torch.from_numpy(part) for part in sampler.batch(4096, options.context, (options.seed, 1, 0)))
    lm, costs = quantise(model), []
    states = lm.fresh(4096)
    for row, target in zip(text, targets, strict=True):
        share = lm.frequencies(states).gather(1, row[:, None])[:, 0] / 65_536
        costs.append(-share.log2()[target != NO_TARGET])
        states = lm.step(states, row)
    assert torch.cat(costs).mean().item() == pytest.approx(bits_per_byte(model, sampler, options), abs=0.01)


def test_weights_that_could_round_are_refused(small_lm):
    wide = 1200
    big = quantise(FloatByteLM(wide, torch.ones(256)))
    heavy = torch.full_like(big.recurrent, 127)
    with pytest.raises(ProxyByteError, match="'recurrent' has a row whose sum may pass"):
        dataclasses.replace(big, recurrent=heavy)
    with pytest.raises(ProxyByteError, match="'head_scale' must hold powers of two"):
        dataclasses.replace(small_lm, head_scale=small_lm.head_scale * 3)
    with pytest.raises(ProxyByteError, match="'tanh' must hold integers"):
        dataclasses.replace(small_lm, tanh=small_lm.tanh + 0.5)


def test_an_m1_of_another_vocabulary_is_refused(small_lm):
    head = torch.zeros(300, small_lm.width, dtype=torch.int8)
    with pytest.raises(ProxyByteError, match="predicts 300"):
        dataclasses.replace(small_lm, head=head)


def test_the_file_holds_the_same_model_and_foreign_files_are_refused(small_lm):
    content = lm_to_bytes(small_lm)
    again = lm_from_bytes(content, "m1.safetensors")
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in small_lm.tensors().items())
    with pytest.raises(ProxyByteError, match="is no safetensors"):
        lm_from_bytes(content[:1000], "m1.safetensors")
    from safetensors.torch import save

    with pytest.raises(ProxyByteError, match="is no M1"):
        lm_from_bytes(save({"weight": torch.zeros(2)}), "m1.safetensors")


def test_examples_stay_inside_their_document():
    documents = [b"aaaa", b"", b"bbbbbbbb", b"c"]
    sampler = TextSampler.of(documents)
    text, targets = sampler.batch(200, 6, (0, 0, 0))
    for column in range(200):
        inside = targets[:, column][targets[:, column] != NO_TARGET]
        assert len(set(inside.tolist())) == 1 and targets[0, column] == text[0, column]
    assert np.array_equal(targets, sampler.batch(200, 6, (0, 0, 0))[1])
    with pytest.raises(ProxyByteError, match="no text"):
        TextSampler.of([b""])


def test_an_interrupted_fit_ends_as_an_uninterrupted_one(sources, tmp_path, monkeypatch):
    options = FitOptions(width=16, steps=8, batch=8, context=8)
    sampler = TextSampler.of(sources)
    whole = fit(sampler, options, tmp_path / "whole", CPU)
    from proxybyte.training.compressors.neural import fit as module

    steps = iter(range(5))
    train_step = module._train_step

    def stop_at_the_fifth(*args):
        if next(steps) == 4:
            raise KeyboardInterrupt
        return train_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_step", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            fit(sampler, options, tmp_path / "cut", CPU)
    with pytest.raises(ProxyByteError, match="other options"):
        fit(sampler, FitOptions(width=16, steps=9, batch=8, context=8), tmp_path / "cut", CPU)
    resumed = fit(sampler, options, tmp_path / "cut", CPU)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert not list((tmp_path / "cut").iterdir())
