"""lm-eval's code tasks and ``eval code`` give the same completions the same score."""

import json

import pytest

from proxybyte import build_tokenizer
from proxybyte.cli import main
from proxybyte.eval.sandbox import Wall, capabilities
from proxybyte.eval.tasks import TASKS_FOLDER
from proxybyte.tokenization_proxybyte import save_tokenizer

lm_eval = pytest.importorskip("lm_eval")
import yaml  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from proxybyte.eval.code.problems import CodeSet, MbppPrompt, parse_problems  # noqa: E402

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


@pytest.mark.parametrize("style", list(MbppPrompt))
def test_mbpp_is_asked_and_judged_as_by_eval_code(solver, tmp_path, style):
    from lm_eval.tasks import get_task_dict

    file = tmp_path / "mbpp.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in MBPP_ROWS))
    name = "proxybyte_mbpp" if style is MbppPrompt.FEW_SHOT else "proxybyte_mbpp_docstring"
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata={"mbpp_file": str(file)})
    task = get_task_dict([name], manager)[name]
    ours = parse_problems(MBPP_ROWS, CodeSet.MBPP, "rows", style)
    for doc, problem in zip(task.test_docs(), ours, strict=True):
        assert task.doc_to_text(doc) == problem.prompt
        assert task.process_results(doc, [[problem.canonical]]) == {"pass_at_1": 1.0}
        assert task.process_results(doc, [["def f(x): return x"]]) == {"pass_at_1": 0.0}


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
