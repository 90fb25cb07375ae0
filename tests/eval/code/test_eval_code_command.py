"""``proxybyte eval code`` from a model to its table, through the real sandbox."""

import json
import subprocess
import sys
import time

import pytest

from proxybyte.cli import main
from proxybyte.eval.sandbox import Wall, capabilities

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

YES = "--confirm-run-unsafe-code"
LENGTH = ["--max-new", "48"]


def run(*arguments: object) -> int:
    return main(["eval", "code", *map(str, arguments)])


def refusal(capsys, *arguments: object) -> str:
    """The one sentence on stderr."""
    assert run(*arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("proxybyte: ")
    return last


def completions(folder) -> dict[tuple[str, int], str]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()[1:]]
    return {(row["task_id"], row["number"]): row["completion"] for row in rows}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_model_is_asked_cut_and_judged(solver, problems_file, tmp_path, capsys, batch):
    assert run(solver, "--data", problems_file, "--output", tmp_path, "--batch-size", batch, *LENGTH, YES) == 0
    assert completions(tmp_path) == {
        ("Tiny/0", 0): "    return x + 1\n",
        ("Tiny/1", 0): "    return 2 * x",
        ("Tiny/2", 0): "    return x * 3\n",
    }
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["pass@1"]["mean"] == pytest.approx(2 / 3)
    assert results["correct"] == {"Tiny/0": 1, "Tiny/1": 1, "Tiny/2": 0}
    assert [verdict["status"] for verdict in results["verdicts"]] == ["passed", "passed", "failed"]
    assert results["prompts_cut"] == 0
    captured = capsys.readouterr()
    assert "pass@1       66.67%  20.77% to 93.85%" in captured.out
    assert "sandbox:" in captured.err


def test_samples_are_judged_without_a_model(solver, problems_file, tmp_path, capsys):
    assert run(solver, "--data", problems_file, "--output", tmp_path, *LENGTH, "--generate-only") == 0
    assert not (tmp_path / "results.json").exists()
    assert "next: proxybyte eval code --samples" in capsys.readouterr().out
    assert run("--samples", tmp_path / "samples.jsonl", "--data", problems_file, "--json", YES) == 0
    assert json.loads(capsys.readouterr().out)["solved"] == 2
    assert run("--samples", tmp_path / "samples.jsonl", "--data", problems_file, "--limit", 2, YES) == 0
    assert "2 of 2 problems solved" in capsys.readouterr().out
    asked_otherwise = tmp_path / "other.jsonl"
    asked_otherwise.write_text(problems_file.read_text().replace("Twice", "Two times"))
    message = refusal(capsys, "--samples", tmp_path / "samples.jsonl", "--data", asked_otherwise, "--limit", 2, YES)
    assert "asked with other prompts than these: give the --set, --data, --mbpp-prompt and --limit" in message
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text('{"task_id": "Tiny/2", "completion": "    return x * x"}\n')
    assert run("--samples", foreign, "--data", problems_file, YES) == 0
    said = capsys.readouterr()
    assert "1 of 1 problems solved" in said.out
    assert "NOT SCORED, as they have no sample: 2 problems" in said.out
    assert "2 of the 3 problems have no sample and are not in the scores: Tiny/0, Tiny/1" in said.err
    assert run("--samples", foreign, "--data", problems_file, "--json", YES) == 0
    assert json.loads(capsys.readouterr().out)["problems_without_samples"] == ["Tiny/0", "Tiny/1"]


SETS = {
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def add(x):\n",
        "entry_point": "add",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    },
    "mbpp": {
        "task_id": 11,
        "text": "Write a function to add one.",
        "code": "def add(x):\r\n    return x + 1",
        "test_list": ["assert add(1) == 2", "assert add(7) == 8", "assert add(0) == 1"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
}
PLUS_TESTS = "import numpy as np\n\nfor x in np.arange(9):\n    assert {name}(x) == x + 1\n"
SETS["humaneval-plus"] = {
    **SETS["humaneval"],
    "test": "def check(candidate):\n" + "".join(f"    {line}\n" for line in PLUS_TESTS.splitlines()),
}
SETS["humaneval-plus"]["test"] = SETS["humaneval-plus"]["test"].format(name="candidate")
SETS["mbpp-plus"] = {
    "task_id": 2,
    "prompt": "Write a function to add one.",
    "code": "def add(x):\n    return x + 1",
    "source_file": "Benchmark Questions Verification V2.ipynb",
    "test_imports": ["import math"],
    "test_list": ["assert add(1) == 2"],
    "test": PLUS_TESTS.format(name="add"),
}
"""A row of each set in its published form; the plus sets ask for more than their originals."""


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_judged_from_a_local_file(name, tmp_path, capsys):
    """The published solution passes, a wrong one does not, and one that is right for 1 alone fails more tests."""
    rows, row = tmp_path / "rows.jsonl", SETS[name]
    rows.write_text(json.dumps(row) + "\n")
    asked = ["--set", name, "--data", rows, "--json", YES]
    assert run("--canonical", *asked) == 0
    assert json.loads(capsys.readouterr().out)["pass@1"]["mean"] == 1.0
    task_id = f"MBPP/{row['task_id']}" if "code" in row else row["task_id"]
    head = "def add(x):\n" if "code" in row else ""
    answers = {"x + 1": True, "2": name == "humaneval", "x": False}
    samples = tmp_path / "samples.jsonl"
    for answer, passes in answers.items():
        samples.write_text(json.dumps({"task_id": task_id, "completion": f"{head}    return {answer}\n"}) + "\n")
        assert run("--samples", samples, *asked) == 0
        assert json.loads(capsys.readouterr().out)["solved"] == passes


def test_sampled_completions_are_the_same_whether_or_not_the_run_was_cut(solver, problems_file, tmp_path):
    asked = [solver, "--data", problems_file, "-n", 4, "--temperature", 9, "--top-p", 0.999, "--batch-size", 5, *LENGTH]
    assert run(*asked, "--output", tmp_path / "whole", "--generate-only") == 0
    whole = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    (tmp_path / "cut").mkdir()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "cut" / "samples.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:20])
    assert run(*asked, "--output", tmp_path / "cut", "--generate-only") == 0
    assert (tmp_path / "cut" / "samples.jsonl").read_bytes() == whole
    assert len(completions(tmp_path / "whole")) == 12
    assert len(set(completions(tmp_path / "whole").values())) > 3
    assert run(*asked, "--output", tmp_path / "other", "--generate-only", "--seed", 1) == 0
    assert completions(tmp_path / "other") != completions(tmp_path / "whole")


def test_pass_at_k_of_samples_is_the_estimator_of_their_verdicts(solver, problems_file, tmp_path):
    asked = [solver, "--data", problems_file, "-n", 3, "--temperature", 4, *LENGTH, "--output", tmp_path, YES]
    assert run(*asked, "-k", 1, 3) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    counts = list(results["correct"].values())
    assert results["pass@1"]["mean"] == pytest.approx(sum(counts) / 9)
    assert results["pass@3"]["mean"] == pytest.approx(sum(count > 0 for count in counts) / 3)


def test_a_killed_run_goes_on_where_it_was(solver, problems_file, tmp_path, server):
    command = ["eval", "code", str(solver), "--data", str(problems_file)]
    command += ["-n", "20", "--temperature", "1", "--batch-size", "2", *LENGTH, "--generate-only"]
    command += ["--output", str(tmp_path)]
    running = server.fork(command)
    file = tmp_path / "samples.jsonl"
    while not (file.exists() and file.read_bytes().count(b"\n") > 5) and running.poll() is None:
        time.sleep(0.02)
    running.kill()
    running.wait()
    before = file.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    assert 5 < kept.count(b"\n") < 61, "it was killed too late to tell anything"
    assert main(command) == 0
    assert file.read_bytes().startswith(kept)
    assert len(completions(tmp_path)) == file.read_bytes().count(b"\n") - 1 == 60


def test_programs_are_not_run_twice(solver, problems_file, tmp_path):
    asked = [solver, "--data", problems_file, "--output", tmp_path, *LENGTH, YES]
    assert run(*asked) == 0
    verdicts = (tmp_path / "verdicts.jsonl").read_bytes()
    assert verdicts.count(b"\n") == 3
    assert run(*asked) == 0
    assert (tmp_path / "verdicts.jsonl").read_bytes() == verdicts


def test_a_tokenizer_model_is_asked_the_same(token_llama, problems_file, tmp_path):
    model, tokenizer = token_llama
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    asked = [tmp_path / "model", "--data", problems_file, "--output", tmp_path / "out", "--max-new", 12, YES]
    assert run(*asked, "--batch-size", 2) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["symbols"], results["samples"]) == ("tokens", 3)
    alone = [tmp_path / "model", "--data", problems_file, "--output", tmp_path / "alone", "--max-new", 12, YES]
    assert run(*alone, "--batch-size", 1) == 0
    assert completions(tmp_path / "alone") == completions(tmp_path / "out")


def test_the_published_solutions_need_no_model(capsys):
    assert run("--canonical", "--limit", 5, YES) == 0
    assert "5 of 5 problems solved" in capsys.readouterr().out


def test_nothing_runs_without_the_users_word(solver, problems_file, tmp_path, capsys):
    asked = [solver, "--data", problems_file, "--output", tmp_path]
    assert "add --confirm-run-unsafe-code" in refusal(capsys, *asked)
    assert not list(tmp_path.iterdir())


def test_a_sample_file_of_another_model_is_refused(solver, byte_llama, problems_file, tmp_path, capsys):
    asked = ["--data", problems_file, "--output", tmp_path / "out", *LENGTH, "--generate-only"]
    assert run(solver, *asked) == 0
    byte_llama.save_pretrained(tmp_path / "other")
    message = refusal(capsys, tmp_path / "other", *asked)
    assert "samples of another model" in message
    assert solver.name in message and str(solver) not in message
    assert "made with temperature=0.0, not 1.0" in refusal(capsys, solver, *asked, "--temperature", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "{tmp}/absent.jsonl", YES], "no such file: {tmp}/absent.jsonl"),
        (["--samples", "{tmp}/empty.jsonl", YES], "{tmp}/empty.jsonl holds no sample"),
        (["--canonical", "--data", "{tmp}/empty.jsonl", YES], "{tmp}/empty.jsonl holds no problem"),
        (["--canonical", "--data", "{tmp}/absent.jsonl", YES], "no such file: {tmp}/absent.jsonl"),
        (["{tmp}/absent", "--output", "{tmp}/o", YES], "{tmp}/absent is no folder"),
        (
            ["{tmp}/run", "--output", "{tmp}/o", YES],
            "{tmp}/run holds no model: it has no config.json",
        ),
        (["--samples", "{tmp}/foreign.jsonl", YES], "a sample of Other/1, which is none of the problems"),
        ([YES], "give one of these: a model folder, --samples FILE, or --canonical"),
        (["model", YES], "Give --output FOLDER"),
        (["model", "--output", "{tmp}/o", "-n", "2", YES], "greedy decoding writes the same sample"),
        (["model", "--output", "{tmp}/o", "--temperature", "-1", YES], "--temperature must be at least 0"),
        (["model", "--output", "{tmp}/o", "--temperature", "nan", YES], "--temperature must be a finite number"),
        (
            ["model", "--output", "{tmp}/o", "--temperature", "inf", YES],
            "--temperature must be a finite number, not inf",
        ),
        (
            ["model", "--output", "{tmp}/o", "--temperature", "1e308", YES],
            "must be 0 (greedy) or from 0.0001 to 10000, not 1e308",
        ),
        (["model", "--output", "{tmp}/o", "--temperature", "1e-45", YES], "--temperature must be 0 (greedy) or from"),
        (["model", "--output", "{tmp}/o", "-n", "9000000000", YES], "must be at most 100000"),
        (["--canonical", "--timeout", "inf", YES], "--timeout must be a finite number"),
        (["--canonical", "--timeout", "nan", YES], "--timeout must be a finite number"),
        (["--canonical", "--timeout", "1e300", YES], "--timeout must be at most 1e+06"),
        (["--canonical", "--memory", "99999999999999999999", YES], "--memory must be at most"),
        (["--canonical", "--workers", "1000000000", YES], "--workers must be at most 1024"),
        (["model", "--output", "{tmp}/o", "--top-p", "0", YES], "--top-p must be above 0"),
        (["--canonical", "--timeout", "0", YES], "--timeout must be above 0"),
        (["--canonical", "--limit", "0", YES], "--limit must be at least 1"),
        (["--canonical", "-k", "5", "--limit", "1", YES], "pass@5 needs 5 samples of every problem, and one has 1"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, message):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "foreign.jsonl").write_text('{"task_id": "Other/1", "completion": ""}\n')
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert message.format(tmp=tmp_path) in refusal(capsys, *given)


def test_an_unknown_set_is_told_the_known_ones(capsys):
    with pytest.raises(SystemExit) as left:
        run("--canonical", "--set", "humanevil", YES)
    assert left.value.code == 2
    assert "mbpp-plus" in capsys.readouterr().err


def test_a_set_that_only_the_hub_has_is_one_sentence_offline():
    code = (
        "import sys; from proxybyte.cli import main; "
        f"sys.exit(main(['eval', 'code', '--canonical', '--set', 'mbpp-plus', {YES!r}]))"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PATH": "/usr/bin", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("proxybyte: mbpp-plus cannot be had from the Hub")
    assert "--data FILE.jsonl" in last


def test_a_prompt_that_does_not_fit_is_counted(solver, tmp_path):
    row = {
        "task_id": "Long/0",
        "prompt": "#" * 400 + "\ndef f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    pass\n",
        "test": "def check(f): pass",
    }
    (tmp_path / "long.jsonl").write_text(json.dumps(row))
    assert run(solver, "--data", tmp_path / "long.jsonl", "--output", tmp_path, *LENGTH, YES) == 0
    assert json.loads((tmp_path / "results.json").read_text())["prompts_cut"] == 1
    assert run(solver, "--data", tmp_path / "long.jsonl", "--output", tmp_path, *LENGTH, YES) == 0
    assert json.loads((tmp_path / "results.json").read_text())["prompts_cut"] == 1, "also when nothing is left to do"
