"""What ``precision: auto`` chooses on processors of several kinds, and what is said of the slow choice."""

import logging
from pathlib import Path

import pytest
import torch

from proxybyte.training.run.config import Precision
from proxybyte.training.run.precision import exact_products, fastest_on_cpu, settle_precision

# Flags as Linux prints them: Zen 2, Ice Lake, Zen 4, Sapphire Rapids, and others.
AVX2 = {"avx2": True, "fma3": True}
AVX512 = {**AVX2, "avx512_f": True, "avx512_vnni": True}
PROCESSORS = [
    (AVX2, Precision.FLOAT32),
    ({**AVX2, "avx_vnni": True, "avx512_bf16": False, "amx_bf16": False}, Precision.FLOAT32),
    (AVX512, Precision.FLOAT32),
    ({**AVX512, "avx512_bf16": True, "amx_bf16": False}, Precision.BFLOAT16),
    ({**AVX512, "avx512_bf16": True, "amx_tile": True, "amx_bf16": True}, Precision.MEDIUM),
    ({**AVX512, "amx_tile": True, "amx_int8": True, "amx_bf16": False}, Precision.FLOAT32),
    ({}, Precision.FLOAT32),
]


@pytest.mark.parametrize(("able", "chosen"), PROCESSORS)
def test_auto_goes_by_the_instructions(monkeypatch, able, chosen):
    assert fastest_on_cpu(able) is chosen
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    with exact_products():
        assert settle_precision(Precision.AUTO, cpu=True) is chosen
        assert (torch.get_float32_matmul_precision() == "medium") == (chosen is Precision.MEDIUM)
        assert settle_precision(Precision.AUTO, cpu=False) is Precision.BFLOAT16


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks Linux what the processor has")
def test_auto_on_this_processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
    with exact_products():
        chosen = settle_precision(Precision.AUTO, cpu=True)
    wanted = Precision.BFLOAT16 if "avx512_bf16" in flags else Precision.FLOAT32
    assert chosen is (Precision.MEDIUM if "amx_bf16" in flags else wanted)


@pytest.mark.parametrize(("able", "slow"), [(AVX2, True), (AVX512, True), ({**AVX512, "avx512_bf16": True}, False)])
def test_the_slow_one_is_warned_of_where_a_user_asks_for_it(monkeypatch, caplog, able, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    with exact_products(), caplog.at_level(logging.WARNING):
        assert settle_precision(Precision.BFLOAT16, cpu=True) is Precision.BFLOAT16
        assert ("no bf16 instructions" in caplog.text) is slow
        caplog.clear()
        for unmeant in (Precision.FLOAT32, Precision.MEDIUM, Precision.AUTO):
            settle_precision(unmeant, cpu=True)
        settle_precision(Precision.BFLOAT16, cpu=False)
        assert not caplog.text
