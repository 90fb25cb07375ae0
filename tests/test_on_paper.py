"""The arithmetic of docs/scale.md, against a case worked by hand."""

from pathlib import Path

import pytest
from on_paper import Estimate, Inputs, main

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"


def test_a_small_case_worked_by_hand():
    given = Inputs(preset="tiny-llama", codes=0, text_tb=1e-3, bytes_per_symbol=2, compressed=0.5, gpus=4, every=100)
    found = Estimate.of(given)
    # 1 GB of text: half as it is, half in half as many symbols.
    assert found.symbols == pytest.approx(0.75e9)
    assert found.steps == pytest.approx(0.75e9 / (4 * 8 * 4096))
    assert found.network == 0  # one host
    assert found.checkpoint == 12 * found.weights
    part = found.weights * 12 / 4
    assert found.stall == pytest.approx(found.steps / 100 * (part * 4 / 2e9 + part / 1.4e9))
    assert found.prepare == pytest.approx(1e9 / (64 * 7.6e6))
    assert found.reading == pytest.approx(1e9 / 4 / 224e6)
    assert found.prepared == pytest.approx(1e9 + 1e9 / 2 * 2)
    assert found.training == pytest.approx(max(found.compute, found.reading) + found.stall)


def test_a_slow_network_binds():
    assert Estimate.of(Inputs(preset="small-llama", network_gb_s=0.01)).binds == "network"
    assert Estimate.of(Inputs(preset="small-llama", network_gb_s=1e6)).binds == "arithmetic"


def test_the_page_shows_what_is_printed(capsys):
    main([])
    page = PAGE.read_text(encoding="utf-8")
    for line in capsys.readouterr().out.splitlines():
        assert f"    {line}\n" in page
