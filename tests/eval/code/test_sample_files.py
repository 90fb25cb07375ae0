"""Sample files survive being killed, and belong to one model, set and setting."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.judging import VerdictFile
from proxybyte.eval.code.samples import Header, Sample, SampleFile, fingerprint_model, read_samples
from proxybyte.eval.sandbox import Outcome, Status

HEADER = Header("humaneval", "p", "m", "models/a", {"temperature": 0.0, "max_new": 10})
SAMPLES = [Sample("a/0", 0, "    return 1\n"), Sample("a/0", 1, "größer\ud800\u2028"), Sample("a/1", 0, "")]


def test_what_was_written_is_held_when_the_file_is_opened_again(tmp_path):
    with SampleFile(tmp_path / "s.jsonl", HEADER) as file:
        file.record(SAMPLES[:2])
    with SampleFile(tmp_path / "s.jsonl", HEADER) as file:
        assert file.held == {("a/0", 0): SAMPLES[0].completion, ("a/0", 1): SAMPLES[1].completion}
        file.record(SAMPLES)
    assert read_samples(tmp_path / "s.jsonl") == (HEADER, SAMPLES)


@given(st.data())
def test_a_file_cut_anywhere_goes_on_from_its_last_whole_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "s.jsonl"
    with SampleFile(path, HEADER) as file:
        file.record(SAMPLES)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with SampleFile(path, HEADER) as file:
        assert len(file.held) == max(0, whole[:cut].count(b"\n") - 1)
        file.record(SAMPLES)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "n", "folder": "models/b"}, "holds samples of another model .models/a, m; this one is models/b, n"),
        ({"problems": "mbpp"}, "holds samples of other problems .humaneval"),
        ({"prompts": "q"}, "holds samples of other problems .humaneval"),
        ({"settings": {"temperature": 0.8, "max_new": 10}}, "holds samples made with temperature=0.0, not 0.8"),
    ],
)
def test_samples_of_something_else_are_refused(tmp_path, change, message):
    SampleFile(tmp_path / "s.jsonl", HEADER).close()
    with pytest.raises(ProxyByteError, match=message):
        SampleFile(tmp_path / "s.jsonl", replace(HEADER, **change))


def test_a_model_that_moved_is_the_same_model(tmp_path):
    SampleFile(tmp_path / "s.jsonl", HEADER).close()
    SampleFile(tmp_path / "s.jsonl", replace(HEADER, folder="elsewhere")).close()


def test_two_processes_do_not_write_one_file(tmp_path):
    with (
        SampleFile(tmp_path / "s.jsonl", HEADER),
        pytest.raises(ProxyByteError, match=f"written by process {os.getpid()} on"),
    ):
        SampleFile(tmp_path / "s.jsonl", HEADER)


def test_a_file_without_a_header_is_not_added_to_but_can_be_read(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"task_id": "a/0", "completion": "x"}\n{"task_id": "a/0", "completion": "y"}\n')
    assert read_samples(path) == (None, [Sample("a/0", 0, "x"), Sample("a/0", 1, "y")])
    with pytest.raises(ProxyByteError, match="has no header"):
        SampleFile(path, HEADER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no sample"),
        ("\n\n", "holds no sample"),
        ("nonsense\n", "line 1: not a sample"),
        ('{"task_id": "a"}\n', "line 1: not a sample .KeyError: 'completion'"),
        ('{"task_id": "a", "completion": 3}\n', "line 1: not a sample"),
        ('{"format": "proxybyte-samples-99"}\n', "another version"),
        ('{"format": "proxybyte-samples-1"}\n', "line 1: not a header"),
    ],
)
def test_what_is_no_sample_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(ProxyByteError, match=message):
        read_samples(tmp_path / "s.jsonl")


def test_any_change_of_weights_or_config_is_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(3_000_000))
    first = fingerprint_model(tmp_path)
    assert fingerprint_model(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(bytes(2_000_000) + b"\1" + bytes(999_999))
    second = fingerprint_model(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert len({first, second, fingerprint_model(tmp_path)}) == 3


def test_verdicts_are_kept_by_program_and_conditions(tmp_path):
    outcome = Outcome(Status.FAILED, "line 1, größer", 0.5)
    with VerdictFile(tmp_path / "v.jsonl", {"seconds": 1}) as verdicts:
        assert "program\ud800" not in verdicts
        verdicts.record("program\ud800", outcome)
    with (tmp_path / "v.jsonl").open("a") as file:
        file.write('{"program": "half')
    with VerdictFile(tmp_path / "v.jsonl", {"seconds": 1}) as verdicts:
        assert verdicts["program\ud800"] == outcome
    with VerdictFile(tmp_path / "v.jsonl", {"seconds": 2}) as verdicts:
        assert "program\ud800" not in verdicts
    (tmp_path / "v.jsonl").write_text(json.dumps({"program": "x"}) + "\n")
    with pytest.raises(ProxyByteError, match="line 1: not a verdict"):
        VerdictFile(tmp_path / "v.jsonl", {})


ROWS = [
    {"task_id": f"a/{n}", "completion": text} for n, text in enumerate(["x", "größer\u2028\x85y", "\x0c\x1cz", "\n"])
]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "  "])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("count", [1, 4])
def test_every_sample_is_read_whatever_ends_the_file(tmp_path, end, ascii_only, count):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in ROWS[:count]]
    (tmp_path / "s.jsonl").write_bytes(("\n".join(lines) + end).encode())
    _, samples = read_samples(tmp_path / "s.jsonl")
    assert [sample.completion for sample in samples] == [row["completion"] for row in ROWS[:count]]


def test_a_last_line_that_is_cut_off_is_an_error_and_no_sample_less(tmp_path):
    with SampleFile(tmp_path / "s.jsonl", HEADER) as file:
        file.record(SAMPLES)
    (tmp_path / "s.jsonl").write_bytes((tmp_path / "s.jsonl").read_bytes()[:-5])
    with pytest.raises(ProxyByteError, match="line 4: not a sample"):
        read_samples(tmp_path / "s.jsonl")


def test_a_file_that_is_refused_keeps_every_byte(tmp_path):
    foreign = tmp_path / "s.jsonl"
    foreign.write_text("\n".join(json.dumps(row) for row in ROWS))
    before = foreign.read_bytes()
    with pytest.raises(ProxyByteError, match="has no header"):
        SampleFile(foreign, HEADER)
    with pytest.raises(ProxyByteError, match="not a verdict"):
        VerdictFile(foreign, {})
    assert foreign.read_bytes() == before


def test_rows_beside_a_task_are_split_at_newlines_alone(tmp_path, monkeypatch):
    from proxybyte.eval.tasks import local_rows

    monkeypatch.setattr(local_rows, "__file__", str(tmp_path / "local_rows.py"))
    texts = ["a\u2028b\x85c", "last"]
    (tmp_path / "rows.jsonl").write_bytes(
        "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode()
    )
    assert local_rows.load("rows.jsonl")["test"]["text"] == texts
