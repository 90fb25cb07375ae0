"""Published forms are read, and what is none is refused in one sentence."""

import gzip
import json

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.problems import CodeSet, MbppPrompt, parse_problems
from proxybyte.eval.code.sources import load_problems, read_rows

FULL = {
    "task_id": 11,
    "text": "Write a function to add one.",
    "code": "def f(x):\r\n  return x + 1",
    "test_list": ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}
SANITIZED = {
    "task_id": 12,
    "prompt": "Write a function to add one.",
    "code": "def f(x):\n  return x + 1",
    "test_imports": ["import math", "import re"],
    "test_list": ["assert f(1) == 2"],
    "source_file": "x.ipynb",
}


def test_the_packaged_humaneval_has_164_problems_that_stop_rules_leave_whole():
    problems = load_problems(CodeSet.HUMANEVAL)
    assert len(problems) == 164
    assert [problem.task_id for problem in problems] == [f"HumanEval/{number}" for number in range(164)]
    for problem in problems:
        assert not any(stop in problem.canonical for stop in problem.stops)
        assert problem.prompt == problem.head


def test_mbpp_full_is_asked_as_published():
    (problem,) = parse_problems([FULL], CodeSet.MBPP, "rows")
    assert problem.prompt.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to f"
    )
    assert problem.prompt.count("[BEGIN]") == 4
    assert problem.prompt.count("[DONE]") == 3
    assert problem.prompt.endswith(
        "task: Write a function to add one. Your code should pass these tests:\n\n"
        "assert f(1) == 2\nassert f(2) == 3\nassert f(3) == 4\n[BEGIN]\n"
    )
    assert problem.stops == ("[DONE]",)
    assert problem.program("CODE") == ("CODE\nimport math\nassert f(1) == 2\nassert f(2) == 3\nassert f(3) == 4\n")


def test_mbpp_sanitized_and_plus_bring_their_imports_and_tests():
    (plain,) = parse_problems([SANITIZED], CodeSet.MBPP, "rows", MbppPrompt.DOCSTRING)
    assert plain.prompt == '"""\nWrite a function to add one.\nassert f(1) == 2\n"""\n'
    assert plain.program("C") == "C\nimport math\nimport re\nassert f(1) == 2\n"
    (plus,) = parse_problems([{**SANITIZED, "test": "assert f(9) == 10"}], CodeSet.MBPP_PLUS, "rows")
    assert plus.program("C") == "C\nimport math\nimport re\nassert f(9) == 10\n"


def test_of_all_of_mbpp_the_test_split_is_taken():
    rows = [{**FULL, "task_id": number} for number in range(1, 975)]
    problems = parse_problems(rows, CodeSet.MBPP, "rows")
    assert (len(problems), problems[0].task_id, problems[-1].task_id) == (500, "MBPP/11", "MBPP/510")


def test_mbpp_plus_is_taken_whole():
    """Its tasks come from every split of MBPP."""
    rows = [{**SANITIZED, "task_id": number, "test": "assert True"} for number in (2, 3, 11, 600, 809)]
    problems = parse_problems(rows, CodeSet.MBPP_PLUS, "rows")
    assert [problem.task_id for problem in problems] == ["MBPP/2", "MBPP/3", "MBPP/11", "MBPP/600", "MBPP/809"]


def test_each_set_has_the_published_stop_strings():
    humaneval = {
        "task_id": "T/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "",
        "test": "def check(f): pass",
    }
    plus = {**SANITIZED, "test": "assert True"}
    codex = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    whole = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")
    for row, code_set, style, stops in [
        (humaneval, CodeSet.HUMANEVAL, MbppPrompt.FEW_SHOT, codex),
        (humaneval, CodeSet.HUMANEVAL_PLUS, MbppPrompt.FEW_SHOT, codex),
        (FULL, CodeSet.MBPP, MbppPrompt.FEW_SHOT, ("[DONE]",)),
        (plus, CodeSet.MBPP_PLUS, MbppPrompt.FEW_SHOT, ("[DONE]",)),
        (FULL, CodeSet.MBPP, MbppPrompt.DOCSTRING, whole),
        (plus, CodeSet.MBPP_PLUS, MbppPrompt.DOCSTRING, whole),
    ]:
        (problem,) = parse_problems([row], code_set, "rows", style)
        assert problem.stops == stops


def test_gzip_and_plain_files_hold_the_same_rows(tmp_path):
    text = json.dumps(FULL) + "\n\n" + json.dumps(FULL | {"task_id": 13})
    (tmp_path / "rows.jsonl").write_text(text)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read_rows(tmp_path / "rows.jsonl") == read_rows(tmp_path / "rows.jsonl.gz") == [FULL, FULL | {"task_id": 13}]


@pytest.mark.parametrize(
    ("content", "code_set", "message"),
    [
        ("", CodeSet.HUMANEVAL, "holds no problem"),
        ("{}", CodeSet.HUMANEVAL, "row 1: not a problem of humaneval .KeyError: 'task_id'"),
        (json.dumps(FULL), CodeSet.HUMANEVAL, "row 1: not a problem of humaneval .KeyError: 'prompt'"),
        (json.dumps(SANITIZED), CodeSet.MBPP_PLUS, "row 1: not a problem of mbpp-plus .KeyError: 'test'"),
        ("{", CodeSet.HUMANEVAL, "line 1: not JSON"),
        ("\n[1]", CodeSet.HUMANEVAL, "line 2: not an object"),
        (json.dumps({"plus_input": []}), CodeSet.HUMANEVAL_PLUS, "EvalPlus' release form"),
        (json.dumps(FULL) + "\n" + json.dumps(FULL), CodeSet.MBPP, "holds a task_id twice"),
    ],
)
def test_what_is_no_set_is_one_sentence(tmp_path, content, code_set, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(ProxyByteError, match=message) as caught:
        load_problems(code_set, file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_torn_file_are_named(tmp_path):
    with pytest.raises(ProxyByteError, match=f"no such file: {tmp_path}/absent"):
        read_rows(tmp_path / "absent")
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(FULL).encode())[:-9])
    with pytest.raises(ProxyByteError, match="no complete gzip file"):
        read_rows(torn)
