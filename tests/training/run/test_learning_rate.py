import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.training.run.config import Decay, LearningRateConfig, OptimizerConfig
from proxybyte.training.run.optim import learning_rate, make_adamw, set_learning_rate


def test_cosine_meets_its_closed_form():
    config = LearningRateConfig(shape=Decay.COSINE, warmup=0.1, final=0.1)
    rates = [learning_rate(config, 2.0, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    for step in range(10, 100):
        wave = math.cos(math.pi * (step - 10) / 89)
        assert rates[step] == pytest.approx(0.2 + 1.8 * (1 + wave) / 2)
    assert rates[10] == 2.0
    assert rates[99] == pytest.approx(0.2)


def test_wsd_is_flat_and_then_falls_linearly_to_its_last_value():
    config = LearningRateConfig(shape=Decay.WSD, warmup=0.1, decay=0.2, final=0.25)
    rates = [learning_rate(config, 1.0, step, 50) for step in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:40] == [1.0] * 35
    assert rates[40:] == pytest.approx([1 - 0.075 * (k + 1) for k in range(10)])


def test_constant_stays():
    config = LearningRateConfig(shape=Decay.CONSTANT, warmup=0.0)
    assert {learning_rate(config, 0.3, step, 7) for step in range(7)} == {0.3}


@given(
    shape=st.sampled_from(Decay),
    warmup=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
    final=st.floats(0, 1),
    total=st.integers(1, 300),
)
def test_every_shape_stays_between_zero_and_the_peak(shape, warmup, decay, final, total):
    config = LearningRateConfig(shape=shape, warmup=warmup, decay=decay, final=final)
    for step in range(total):
        assert 0 <= learning_rate(config, 1.0, step, total) <= 1 + 1e-12


def test_weight_decay_touches_matrices_only():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Embedding(5, 4))
    optimizer = make_adamw(model, OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.3,
    }
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]
