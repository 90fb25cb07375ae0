"""Damaged input of every kind: one sentence or a counted skip; no traceback, no hang, nothing accepted that is wrong.

Hypothesis draws the damage; ``make soak`` draws on for as long as is asked. What Hypothesis finds it makes as small as
it can, and prints how to do it again.
"""

import random

import fuzzing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TRIES = 12


@pytest.fixture(scope="module")
def surfaces(inputs) -> dict[str, fuzzing.Surface]:
    return {surface.name.partition("-00000-")[0]: surface for surface in fuzzing.surfaces(inputs)}


NAMES = [
    "JSON lines", "JSON lines in gzip", "JSON lines in Zstandard", "parquet", "recipe as YAML", "recipe as JSON",
    "plan as YAML", "plan as JSON", "problems", "conversations", "bpe compressor: compressor.json",
    "bpe compressor: tokenizer.json", "neural compressor: compressor.json", "neural compressor: m1.safetensors",
    "prepared data: train/data", "prepared data: train/state.json", "prepared data: train/dataset_info.json",
    "prepared data: prepared.json", "prepared data: SHA256SUMS", "weights: model.safetensors", "weights: SHA256SUMS",
    "checkpoint: state.json", "checkpoint: optimizer.safetensors", "checkpoint: model/model.safetensors",
    "checkpoint: SHA256SUMS", "tokenizer: tokenizer.json", "tokenizer: tokenizer_config.json",
    "tokenizer as a compressor: tokenizer.json", "model: config.json", "model: model.safetensors",
    "model: generation_config.json",
]  # fmt: skip


def test_every_surface_is_tried(surfaces):
    assert set(NAMES) == {name for name in surfaces if not name.endswith("SHA256SUMS")} | {
        name for name in surfaces if name.endswith("SHA256SUMS") and name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_damaged_it_is_one_sentence_or_a_counted_skip(name, surfaces, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PROXYBYTE_SKIP_CHECKSUMS", raising=False)
    home = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=TRIES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def tried(rng: random.Random) -> None:
        fuzzing.try_once(surfaces[name], rng, home / "case")

    tried()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("JSON lines", b'{"text": "a"}\n{"text": 1}\n[', fuzzing.ACCEPTED),
        ("JSON lines", b"\xff\xfe", fuzzing.REFUSED),
        ("parquet", b"PAR1", fuzzing.REFUSED),
        ("recipe as YAML", b"!!python/object/apply:os.system [true]", fuzzing.REFUSED),
        ("plan as JSON", b"{", fuzzing.REFUSED),
        ("weights: model.safetensors", b"", fuzzing.REFUSED),
    ],
)
def test_the_harness_tells_what_became_of_it(name, content, told, surfaces, tmp_path):
    """On content whose fate is known."""
    assert surfaces[name].read(content, tmp_path) == told


def test_the_harness_sees_a_fault(surfaces, tmp_path):
    def falls(*_):
        raise KeyError("nobody expected it")

    with pytest.raises(fuzzing.Fault, match="KeyError"):
        fuzzing.loaded(falls, tmp_path)
    with pytest.raises(fuzzing.Fault, match="hangs"):
        slow = fuzzing.Surface(
            "slow", b"", lambda content, _: content, lambda *_: str(next(x for x in iter(int, 1) if x))
        )
        fuzzing.SECONDS, before = 1, fuzzing.SECONDS
        try:
            fuzzing.try_once(slow, random.Random(0), tmp_path / "slow")
        finally:
            fuzzing.SECONDS = before
