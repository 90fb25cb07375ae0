"""``proxybyte eval robustness``, over built-in perturbations and over files in ReCode's layout."""

import gzip
import json
from pathlib import Path

import pytest

from proxybyte.cli import main
from proxybyte.eval.code.problems import CodeSet, parse_problems
from proxybyte.eval.code.sources import read_rows
from proxybyte.eval.robustness.recode import load_recode
from proxybyte.eval.robustness.variants import Family
from proxybyte.eval.sandbox import Wall, capabilities

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

RECODE = Path(__file__).parents[4] / "shared" / "data" / "recode"
YES = "--confirm-run-unsafe-code"
MARK = "    # print('@@this is the line to split##')\n"


def run(*arguments: object) -> int:
    return main(["eval", "robustness", *map(str, arguments)])


def results(folder: Path) -> dict[tuple[str, str], dict]:
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {(row["family"], row["perturbation"]): row for row in rows}


@pytest.fixture
def release(problems_file, tmp_path):
    """Two families of perturbed files as ReCode publishes them; the solution of Tiny/1 under one seed is broken."""
    rows = read_rows(problems_file)
    folder = tmp_path / "release" / "humaneval"
    for seed in range(3):
        perturbed = [dict(row, prompt=row["prompt"].replace("x.", "X.")) for row in rows]
        if seed == 2:
            perturbed[1]["canonical_solution"] = "    return x\n"
        (folder / "nlaugmenter").mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in perturbed)
        (folder / "nlaugmenter" / f"humaneval_Shout_s{seed}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    half = [
        dict(
            row,
            prompt=row["prompt"] + "    pass\n    \n",
            partial=row["prompt"] + "    pass\n" + MARK + row["canonical_solution"],
        )
        for row in rows
    ]
    half[2]["partial"] = None
    (folder / "natgen").mkdir()
    (folder / "natgen" / "humaneval_Dead_s0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in half))
    return tmp_path / "release"


def test_published_files_are_read_with_their_unperturbed_halves(release, problems_file):
    nominal = parse_problems(read_rows(problems_file), CodeSet.HUMANEVAL, "rows")
    found = load_recode(str(release), CodeSet.HUMANEVAL, nominal)
    assert [(v.family, v.perturbation, v.seed) for v in found.variants] == [
        (Family.SYNTAX, "Dead", 0),
        *((Family.DOCSTRINGS, "Shout", seed) for seed in range(3)),
    ]
    assert found.partial.problems[0].prompt == nominal[0].prompt + "    pass\n"
    assert found.partial.problems[0].canonical == nominal[0].canonical
    assert found.partial.problems[2] == nominal[2], "a solution of one line has no half"
    assert found.baseline(Family.DOCSTRINGS).problems == tuple(nominal)


def test_a_model_is_measured_against_the_ceiling_of_published_files(solver, problems_file, release, tmp_path):
    out = tmp_path / "out"
    asked = [solver, "--data", problems_file, "--recode", release, "--max-new", 48, "--output", out, YES]
    assert run(*asked) == 0
    rows = results(out)
    assert rows["docstrings", "Shout"]["ceiling"]["robust_pass"]["mean"] == pytest.approx(2 / 3)
    assert rows["docstrings", "Shout"]["variants"] == 3
    model = rows["docstrings", "Shout"]["model"]
    assert model["nominal"]["mean"] == pytest.approx(2 / 3)
    assert 0 <= model["robust_pass"]["mean"] <= 2 / 3
    assert model["robust_drop"] == pytest.approx(1 - model["robust_pass"]["mean"] * 1.5)
    assert rows["syntax", "Dead"]["ceiling"]["nominal"]["mean"] == 1.0
    before = {file.name: file.read_bytes() for file in (out / "samples").iterdir()}
    verdicts = (out / "verdicts.jsonl").read_bytes()
    assert run(*asked) == 0
    assert {file.name: file.read_bytes() for file in (out / "samples").iterdir()} == before
    assert (out / "verdicts.jsonl").read_bytes() == verdicts


def test_fewer_seeds_and_families_can_be_asked_for(problems_file, release, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--data", problems_file, "--recode", release, "--output", out, "--seeds", 2, "--families", "docstrings"]
    assert run(*asked, YES) == 0
    assert results(out)["docstrings", "Shout"]["ceiling"]["robust_pass"]["mean"] == 1.0
    assert len(results(out)) == 1
    assert "100.0%" in capsys.readouterr().out


def test_built_in_perturbations_need_no_files(solver, problems_file, tmp_path):
    asked = [solver, "--data", problems_file, "--limit", 2, "--seeds", 1, "--max-new", 48, "--output", tmp_path, YES]
    assert run(*asked, "--families", "names") == 0
    rows = results(tmp_path)
    assert ("names", "worst of all") in rows
    assert all(row["ceiling"]["robust_pass"]["mean"] == 1.0 for row in rows.values())
    assert all(row["model"]["nominal"]["mean"] == 1.0 for row in rows.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recode", "{tmp}/absent"], "no such folder: {tmp}/absent"),
        (["--recode", "{tmp}"], "{tmp} holds no perturbed file of humaneval"),
        (["--recode", "{tmp}/release", "--families", "names"], "holds no file of the families asked for (names)"),
        (["--recode", "{tmp}/torn"], "has no line to split at"),
        (["--recode", "{tmp}/foreign"], "perturbs none of the problems asked for"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["-k", "2"], "robustness is measured at one -k"),
        (["--data", "{tmp}/nothing.jsonl"], "no such file: {tmp}/nothing.jsonl"),
    ],
)
def test_bad_input_is_one_sentence(problems_file, release, tmp_path, capsys, arguments, message):
    row = read_rows(problems_file)[0]
    for name, content in {"torn": dict(row, partial="no mark"), "foreign": dict(row, task_id="Other/0")}.items():
        (tmp_path / name / "natgen").mkdir(parents=True)
        (tmp_path / name / "natgen" / "humaneval_X_s0.jsonl").write_text(json.dumps(content))
    if arguments[1] == "{tmp}":
        arguments = ["--recode", str(tmp_path / "empty")]
        (tmp_path / "empty").mkdir()
        message = f"{tmp_path}/empty holds no perturbed file of humaneval"
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    data = [] if "--data" in given else ["--data", problems_file]
    assert run("--output", tmp_path / "out", *data, *given, YES) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("proxybyte: ")
    assert message.format(tmp=tmp_path) in last


@pytest.mark.parametrize("families", [[], ["--families", "syntax"]])
def test_a_release_without_low_seeds_says_which_it_has(problems_file, release, tmp_path, capsys, families):
    (tmp_path / "high" / "natgen").mkdir(parents=True)
    (file,) = list((release / "humaneval" / "natgen").glob("*.jsonl"))[:1]
    for seed in (9, 7):
        (tmp_path / "high" / "natgen" / f"humaneval_X_s{seed}.jsonl").write_bytes(file.read_bytes())
    asked = ["--data", problems_file, "--output", tmp_path / "out", "--recode", tmp_path / "high", YES, *families]
    assert run(*asked) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"proxybyte: {tmp_path}/high holds no file of the first 5 seeds: give --seeds 8 or more"


def test_nothing_runs_without_the_users_word(problems_file, tmp_path, capsys):
    assert run("--data", problems_file, "--output", tmp_path / "out") == 2
    assert "--confirm-run-unsafe-code" in capsys.readouterr().err


@pytest.mark.skipif(not RECODE.is_dir(), reason="ReCode's files are not beside the project")
def test_the_published_release_is_read():
    nominal = parse_problems(read_rows(RECODE / "nominal" / "HumanEval.jsonl.gz"), CodeSet.HUMANEVAL, "rows")
    found = load_recode(str(RECODE), CodeSet.HUMANEVAL, nominal)
    assert {variant.family for variant in found.variants} == set(Family)
    assert all(len(variant.problems) == 164 for variant in [found.nominal, found.partial, *found.variants])
    assert all(half.prompt.startswith(p.prompt) for half, p in zip(found.partial.problems, nominal, strict=True))
