"""The schedule: shares, phases and the pair arithmetic of DESIGN section 5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxybyte.training.stream.schedule import Mixture, Pairing, ScheduleConfig

shares = st.floats(0, 1)


@given(shares, st.sampled_from([p for p in Pairing if p is not Pairing.NONE]))
def test_pairs_keep_compressed_to_raw_at_rate(rate, pairing):
    mixture = Mixture(rate, pairing, 0.0)
    pair, alone = mixture.pair_share, mixture.compressed_alone_share
    raw_alone = 1.0 - pair - alone
    assert raw_alone >= -1e-12
    compressed_views, raw_views = pair + alone, pair + raw_alone
    assert compressed_views * (1 - rate) == pytest.approx(raw_views * rate, abs=1e-12)


@pytest.mark.parametrize("pairing", [Pairing.RANDOM, Pairing.PARALLEL])
def test_every_view_of_the_rarer_kind_has_its_twin(pairing):
    mostly_compressed, mostly_raw = Mixture(0.9, pairing, 0.0), Mixture(0.1, pairing, 0.0)
    assert mostly_compressed.pair_share == pytest.approx(1 / 9)
    assert mostly_compressed.compressed_alone_share == pytest.approx(8 / 9)
    assert mostly_raw.compressed_alone_share == 0.0


def test_phases_follow_progress():
    schedule = ScheduleConfig(warmup=0.2, warmup_rate=0.4, rate=0.9, decay=0.1, decay_rate=0.1)
    assert schedule.at(0.0) == Mixture(0.4, Pairing.RANDOM, 0.0)
    assert schedule.at(0.1).rate == pytest.approx(0.65)
    assert schedule.at(0.2) == Mixture(0.9, Pairing.NONE, 0.0)
    assert schedule.at(0.95).rate == pytest.approx(0.5)
    assert schedule.at(1.0).rate == pytest.approx(0.1)


def test_no_warmup_and_no_decay_is_one_constant_mixture():
    schedule = ScheduleConfig(rate=0.0, warmup=0.0)
    assert {schedule.at(progress / 10) for progress in range(11)} == {Mixture(0.0, Pairing.NONE, 0.0)}


def test_phases_longer_than_the_run_are_refused():
    with pytest.raises(ValidationError, match="add up to at most 1"):
        ScheduleConfig(warmup=0.7, decay=0.7)


@given(st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.5]), st.tuples(*[st.sampled_from([0.0, 0.7])] * 3))
def test_a_run_shows_compressed_views_if_its_rate_is_ever_above_zero(warmup, decay, rates):
    schedule = ScheduleConfig(warmup=warmup, decay=decay, rate=rates[0], warmup_rate=rates[1], decay_rate=rates[2])
    ever = max(schedule.at(progress / 100).rate for progress in range(101)) > 0
    assert schedule.shows_compressed == ever
