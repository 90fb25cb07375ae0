"""lm-eval's code tasks and ``eval code`` give the same completions the same score."""

import json

import pytest

from proxybyte import build_tokenizer
from proxybyte.cli import main
from proxybyte.eval.sandbox import Limits, Wall, capabilities
from proxybyte.eval.tasks import TASKS_FOLDER
from proxybyte.tokenization_proxybyte import save_tokenizer

lm_eval = pytest.importorskip("lm_eval")
import yaml  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from proxybyte.eval.code.judging import Bench, judge  # noqa: E402
from proxybyte.eval.code.problems import CodeSet, MbppPrompt, parse_problems  # noqa: E402
from proxybyte.eval.code.samples import Sample  # noqa: E402

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

MBPP_ROWS = [
    {
        "task_id": 20 + number,
        "text": "Write a function to add one.",
        "code": "def f(x):\n    return x + 1",
        "test_setup_code": "",
        "test_list": [f"assert f({number}) == {number + 1}"] * 3,
    }
    for number in range(2)
]


def evaluate(task: str, metadata: dict, folder, **options):
    return lm_eval.simple_evaluate(
        model="proxybyte",
        model_args={"pretrained": str(folder)},
        tasks=[task],
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata=metadata),
        device="cpu",
        batch_size=2,
        gen_kwargs="max_gen_toks=48",
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )


@pytest.fixture(scope="module", autouse=True)
def known_class():
    import proxybyte.eval.lm_eval_model  # noqa: F401


def test_the_same_completions_get_the_same_score(solver, problems_file, tmp_path):
    save_tokenizer(build_tokenizer(), solver)
    arguments = ["eval", "code", str(solver), "--data", str(problems_file), "--output", str(tmp_path)]
    assert main([*arguments, "--max-new", "48", "--confirm-run-unsafe-code"]) == 0
    ours = json.loads((tmp_path / "results.json").read_text())
    found = evaluate(
        "proxybyte_humaneval", {"humaneval_file": str(problems_file)}, solver, confirm_run_unsafe_code=True
    )
    theirs = found["results"]["proxybyte_humaneval"]
    assert theirs["pass_at_1,program"] == pytest.approx(ours["pass@1"]["mean"]) == pytest.approx(2 / 3)
    by_task = {row["doc"]["task_id"]: row for row in found["samples"]["proxybyte_humaneval"]}
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()[1:]]
    for sample in samples:
        row = by_task[sample["task_id"]]
        assert row["resps"] == [[sample["completion"]]]
        assert row["pass_at_1"] == ours["correct"][sample["task_id"]]


def test_nothing_runs_without_the_users_word(solver, problems_file):
    with pytest.raises(ValueError, match="marked as unsafe"):
        evaluate("proxybyte_humaneval", {"humaneval_file": str(problems_file)}, solver)


def humaneval_plus_rows(problems_file) -> list[dict]:
    """With a test that the published ones lack."""
    rows = [json.loads(line) for line in problems_file.read_text().splitlines()]
    return [{**row, "test": row["test"] + "    assert candidate(0.5) is not None\n"} for row in rows]


MBPP_PLUS_ROWS = [
    {**row, "prompt": row["text"], "test_imports": ["import math"], "test": "assert f(-1) == 0 and math"}
    for row in MBPP_ROWS
]


@pytest.mark.parametrize(
    ("name", "code_set", "style"),
    [
        ("proxybyte_humaneval_plus", CodeSet.HUMANEVAL_PLUS, MbppPrompt.FEW_SHOT),
        ("proxybyte_mbpp", CodeSet.MBPP, MbppPrompt.FEW_SHOT),
        ("proxybyte_mbpp_docstring", CodeSet.MBPP, MbppPrompt.DOCSTRING),
        ("proxybyte_mbpp_plus", CodeSet.MBPP_PLUS, MbppPrompt.FEW_SHOT),
    ],
)
def test_other_sets_are_asked_and_judged_as_by_eval_code(problems_file, tmp_path, name, code_set, style):
    """The same prompts, and verdicts of the same completions by lm-eval's task and by our own judge."""
    from lm_eval.tasks import get_task_dict

    rows = {CodeSet.HUMANEVAL_PLUS: humaneval_plus_rows(problems_file), CodeSet.MBPP: MBPP_ROWS}
    rows = rows.get(code_set, MBPP_PLUS_ROWS)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metadata = {f"{code_set.replace('-', '_')}_file": str(file)}
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata=metadata)
    task = get_task_dict([name], manager)[name]
    problems = parse_problems(rows, code_set, "rows", style)
    completions = [problems[0].canonical, "    return 2 * x\n", "def f(x): return abs(x) + 1\n", "def f(x): return x\n"]
    scores = set()
    for doc, problem in zip(task.test_docs(), problems, strict=True):
        assert task.doc_to_text(doc) == problem.prompt
        samples = [Sample(problem.task_id, number, text) for number, text in enumerate(completions)]
        ours = [outcome.passed for outcome in judge([problem], samples, Bench(Limits(), capabilities().wall))]
        programs = [f"{doc['head']}{text}" for text in completions]
        theirs = [task.process_results(doc, [[program]])["pass_at_1"] for program in programs]
        assert theirs == ours
        scores |= set(ours)
    assert scores == {True, False}


def test_stop_strings_of_the_tasks_are_those_of_the_sets():
    from proxybyte.eval.code import problems

    stops = {"few-shot": problems.FEW_SHOT_STOPS, "docstring": problems.DOCSTRING_STOPS, None: problems.HUMANEVAL_STOPS}

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    files = [file for file in TASKS_FOLDER.glob("*.yaml") if "code_rows" in file.read_text()]
    assert len(files) == 5
    for file in files:
        config = yaml.load(file.read_text(), Loader)
        style = config["dataset_kwargs"].get("mbpp_prompt")
        assert tuple(config["generation_kwargs"]["until"]) == stops[style]
        assert config["unsafe_code"] is True
