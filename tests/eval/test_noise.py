"""Noise in a text, and curves against its share."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.eval.noise import Noise, NoiseCurve, measure_noise, noise_crossing, noised, noised_bytes

TEXTS = st.text(max_size=60)
LINES = "".join(f"{' ' * (n % 5)}line {n}\n" for n in range(400))


@given(TEXTS, st.sampled_from(list(Noise)), st.integers(0, 3))
def test_no_noise_leaves_the_text_alone(text, kind, seed):
    assert noised(text, 0.0, kind, seed) == text


@given(TEXTS, st.floats(0, 1), st.sampled_from(list(Noise)), st.integers(0, 3))
def test_the_same_seed_gives_the_same_text(text, share, kind, seed):
    assert noised(text, share, kind, seed) == noised(text, share, kind, seed)


@given(TEXTS, st.floats(0, 1), st.integers(0, 3))
def test_swaps_keep_the_characters(text, share, seed):
    assert Counter(noised(text, share, Noise.SWAP, seed)) == Counter(text)


@given(TEXTS, st.floats(0, 1), st.integers(0, 3))
def test_deletions_leave_a_subsequence(text, share, seed):
    rest = iter(text)
    assert all(character in rest for character in noised(text, share, Noise.DELETE, seed))


@given(st.binary(max_size=40), st.floats(0, 1), st.integers(0, 3))
def test_bytes_that_are_no_text_stay(text, share, seed):
    rest = iter(text)
    assert all(byte in rest for byte in noised_bytes(text, share, Noise.DELETE, seed))
    assert noised_bytes(text, 0.0, Noise.MIXED, seed) == text


def test_everything_struck():
    assert noised("a Bc", 1.0, Noise.DELETE) == ""
    assert noised("abcde", 1.0, Noise.SWAP) == "badce"
    assert noised("a Bc1", 1.0, Noise.CASE) == "A bC1"
    assert noised("ox", 1.0, Noise.HOMOGLYPH) == "\N{CYRILLIC SMALL LETTER O}\N{CYRILLIC SMALL LETTER HA}"
    before, after = "  a\nb\n", noised("  a\nb\n", 1.0, Noise.INDENT)
    assert after in ("   a\nb\n", " a\nb\n")
    assert before.replace(" ", "") == after.replace(" ", "")


@pytest.mark.parametrize(("kind", "units"), [(Noise.DELETE, 20_000), (Noise.CASE, 20_000), (Noise.INDENT, 320)])
def test_the_share_is_the_share_of_what_is_struck(kind, units):
    """Within five standard deviations of a binomial."""
    share = 0.1
    if kind is Noise.INDENT:
        pairs = zip(LINES.splitlines(), noised(LINES, share, kind).splitlines(), strict=True)
        struck = sum(old != new for old, new in pairs)
    elif kind is Noise.DELETE:
        struck = units - len(noised("a" * units, share, kind))
    else:
        struck = noised("a" * units, share, kind).count("A")
    assert abs(struck - share * units) < 5 * math.sqrt(units * share * (1 - share))


@pytest.mark.parametrize("kind", list(Noise))
def test_a_share_that_is_none_is_refused(kind):
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ProxyByteError, match="share of noise"):
            noised("abc", share, kind)


def curve(*means: float) -> NoiseCurve:
    return NoiseCurve("m", Noise.MIXED, (0.0, 0.1, 0.3)[: len(means)], tuple((mean,) for mean in means))


def test_curves_cross_where_straight_lines_do():
    assert noise_crossing(curve(2.0, 2.0, 2.0), curve(1.0, 1.0, 3.0)) == pytest.approx(0.2)
    assert noise_crossing(curve(2.0, 2.0), curve(1.0, 1.5)) is None
    assert noise_crossing(curve(2.0, 2.0), curve(2.0, 1.5)) == 0.0
    assert noise_crossing(curve(3.0, 2.0), curve(2.0, 2.0)) == 0.1


def test_every_seed_reads_its_own_noise_and_a_clean_text_is_scored_once():
    read = []

    def score(texts):
        read.append(list(texts))
        return float(len(read))

    found = measure_noise(score, "m", [b"some text of a length", b"a"], Noise.DELETE, (0.0, 0.5), (0, 1))
    assert found.bits == ((1.0, 1.0), (2.0, 3.0))
    assert read[0] == [b"some text of a length", b"a"]
    assert read[1] != read[2]
    assert found.means == [1.0, 2.5]
    empty = []
    measure_noise(lambda texts: empty.extend(texts) or 0.0, "m", [b"a"], Noise.DELETE, (1.0,), (0,))
    assert empty == []


@pytest.fixture
def two_models(byte_llama, token_llama, tmp_path) -> tuple[Path, Path]:
    byte_llama.save_pretrained(tmp_path / "bytes")
    model, tokenizer = token_llama
    model.save_pretrained(tmp_path / "tokens")
    tokenizer.save_pretrained(tmp_path / "tokens")
    return tmp_path / "bytes", tmp_path / "tokens"


def test_the_command_scores_byte_and_tokenizer_models_on_the_same_noise(tmp_path, two_models, capsys, monkeypatch):
    byte_model, token_model = two_models
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("def answer(value):\n    return value + 1\n" * 3)
    words = ["eval", "noise", str(byte_model), str(token_model), "--data", "text.txt", "--out", "noise"]
    assert main([*words, "--shares", "0", "0.2", "--seeds", "2", "--kinds", "mixed", "indent", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "noise/results.json").read_bytes())
    assert [(c["model"], c["kind"]) for c in printed["curves"]] == [
        (str(model), kind) for model in two_models for kind in ("mixed", "indent")
    ]
    assert len(printed["crossings"]) == 2
    assert (tmp_path / "noise/noise.png").read_bytes().startswith(b"\x89PNG")
    by_hand = noised((tmp_path / "text.txt").read_text(), 0.2, Noise.MIXED, 1)
    (tmp_path / "noisy.txt").write_text(by_hand)
    assert main(["eval", "bpb", str(byte_model), "--data", "noisy.txt", "--json", "--no-baselines"]) == 0
    (figures,) = json.loads(capsys.readouterr().out).values()
    assert printed["curves"][0]["bpb"][1][1] == pytest.approx(figures["bits_per_byte"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kinds", "typos"], "--kinds must be some of delete, swap, case, indent, homoglyph, mixed, not 'typos'"),
        (["--shares", "0.2", "0.1"], "--shares must rise, not 0.2 0.1"),
        (["--shares", "2"], "must be at most 1"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    assert main(["eval", "noise", "absent", "--data", "text.txt", "--out", "noise", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "noise").exists()
