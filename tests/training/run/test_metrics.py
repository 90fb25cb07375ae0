import json
import math

import numpy as np
import pytest
import torch

from proxybyte.errors import ProxyByteError
from proxybyte.modeling_proxybyte import ProxyByteOutput
from proxybyte.training.run.metrics import Count, MetricsLog, Totals, nats_by_row, refuse_nan, step_losses


def test_nats_of_each_view_are_those_of_a_loop_over_targets():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 400, (5, 40), generator=generator)
    labels[torch.rand((5, 40), generator=generator) < 0.2] = -100
    nll = torch.rand((5, 39), generator=generator, dtype=torch.float64) * (labels[:, 1:] >= 0)
    got = nats_by_row(ProxyByteOutput(target_nll=nll), labels)
    for row in range(5):
        pairs = list(zip(labels[row, 1:].tolist(), nll[row].tolist(), strict=True))
        assert got[row, 0] == pytest.approx(sum(n for _, n in pairs))
        assert got[row, 1] == pytest.approx(sum(n for s, n in pairs if 64 <= s < 320))
        assert got[row, 2] == pytest.approx(sum(n for s, n in pairs if s >= 320))


def counts(**values):
    array = np.zeros(len(Count))
    for name, value in values.items():
        array[Count[name.upper()]] = value
    return array


def test_bpb_is_bits_per_byte_of_text_and_loss_nats_per_symbol():
    nats = np.array([[10.0, 4.0, 5.0], [20.0, 6.0, 10.0]])
    made = step_losses(nats, counts(targets=12, raw_symbols=8, raw_bytes=8, compressed_symbols=3, compressed_bytes=9.5))
    assert made == pytest.approx(
        {
            "loss": 30 / 12,
            "raw/loss": 10 / 8,
            "raw/bpb": 10 / 8 / math.log(2),
            "compressed/loss": 15 / 3,
            "compressed/bpb": 15 / 9.5 / math.log(2),
        }
    )


def test_a_view_that_a_step_does_not_hold_has_no_loss():
    made = step_losses(np.array([[3.0, 3.0, 0.0]]), counts(targets=2, raw_symbols=2, raw_bytes=2))
    assert set(made) == {"loss", "raw/loss", "raw/bpb"}


def test_each_heads_loss_is_its_nats_over_its_own_targets():
    nats = np.array([[3.0, 3.0, 0.0, 8.0, 0.0, 4.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0]])
    made = step_losses(nats, counts(targets=2, raw_symbols=2, raw_bytes=2))
    assert made["loss"] == 2.0
    assert made["head_1/loss"] == 9 / 6
    assert "head_2/loss" not in made


def test_a_row_holds_the_nats_and_then_the_targets_of_the_heads_after_the_first():
    labels = torch.full((2, 4), 70)
    head_nll, head_targets = torch.rand(2, 3), torch.tensor([[3, 2, 1], [3, 1, 0]])
    output = ProxyByteOutput(target_nll=torch.rand(2, 3), head_nll=head_nll, head_targets=head_targets)
    found = nats_by_row(output, labels)
    assert torch.equal(found[:, 3:5], head_nll[:, 1:])
    assert found[:, 5:].tolist() == [[2, 1], [1, 0]]


def test_a_head_whose_loss_is_not_finite_names_its_row():
    nats = np.array([[1.0, 1.0, 0.0, 2.0, 3.0], [1.0, 1.0, 0.0, np.nan, 3.0]])
    with pytest.raises(ProxyByteError, match=r"row\(s\) 9 is not finite at step 4"):
        refuse_nan(4, np.array([5, 9]), nats, 1.0)


def test_totals_survive_json_and_their_shares_add_up():
    totals = Totals()
    for _ in range(3):
        step = counts(raw_symbols=10, compressed_symbols=30, raw_documents=1, raw_bytes=10, compressed_bytes=0.1)
        totals.add(step, symbols=64, flops=1e9)
    back = Totals.from_dict(json.loads(json.dumps(totals.as_dict())))
    assert back == totals
    shares = totals.shares()
    assert shares["raw/share_of_symbols"] == 0.25
    assert shares["raw/share_of_documents"] == 1.0
    for what in ("documents", "bytes", "symbols"):
        assert shares[f"raw/share_of_{what}"] + shares[f"compressed/share_of_{what}"] == pytest.approx(1.0)


def test_a_loss_that_is_not_finite_names_its_rows_and_step():
    rows = np.array([43, 41, 40, 42])
    nats = np.ones((4, 3))
    nats[1, 0] = math.nan
    nats[3, 0] = math.inf
    with pytest.raises(ProxyByteError, match=r"row\(s\) 41, 42 is not finite at step 11"):
        refuse_nan(11, rows, nats, 1.0)
    with pytest.raises(ProxyByteError, match=r"gradient norm is inf at step 11 \(rows 40, 41, 42, 43\)"):
        refuse_nan(11, rows, np.ones((4, 3)), math.inf)
    refuse_nan(11, rows, np.ones((4, 3)), 1.0)


def test_cutting_the_log_drops_later_steps_and_a_half_written_line(tmp_path):
    log = MetricsLog(tmp_path)
    log.append({"kind": "train", "step": step} for step in range(1, 7))
    with log.path.open("a") as file:
        file.write('{"kind": "train", "st')
    log.cut(4)
    assert [line["step"] for line in log.read()] == [1, 2, 3, 4]
    log.append([{"kind": "train", "step": 5}])
    assert [line["step"] for line in log.read()] == [1, 2, 3, 4, 5]
