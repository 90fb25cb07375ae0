"""Results for a model card: what a run measured, and files of evaluations, in the Hub's two formats of metadata.

``model-index`` in the card takes any result. ``.eval_results/*.yaml`` takes those of benchmarks that are registered on
the Hub (https://huggingface.co/docs/hub/eval-results), from where they reach the benchmark's own table.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

from proxybyte.errors import ProxyByteError
from proxybyte.provenance import Provenance
from proxybyte.symbols import View

EVAL_FOLDER = ".eval_results"
_BPB = "bits per byte"
_SETS = {
    "humaneval": ("HumanEval", "openai/openai_humaneval"),
    "humaneval-plus": ("HumanEval+", "evalplus/humanevalplus"),
    "mbpp": ("MBPP", "google-research-datasets/mbpp"),
    "mbpp-plus": ("MBPP+", "evalplus/mbppplus"),
}
"""Of 'proxybyte eval code': the set's name for people, and on the Hub."""
_REGISTERED = {
    "gsm8k": ("openai/gsm8k", "gsm8k"),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", "mmlu_pro"),
}
"""Tasks of lm-eval that are registered benchmarks: dataset and task there. A YAML file may bring others."""
_NO_SHARES = frozenset({"bits_per_byte", "byte_perplexity", "word_perplexity", "perplexity"})
_PASS = re.compile(r"pass@\d+")
_VIEWS = re.compile(r"\((raw|compressed|tokens)\)$")


@dataclass(frozen=True)
class Result:
    """One figure.

    Attributes:
        dataset: name of the data for people.
        dataset_id: on the Hub; a word of ours where it is not there.
        metric: for people.
        metric_type: as the Hub spells it.
        value: bits for each byte, a share from 0 to 1, or what else the metric is.
        note: how it was measured.
        benchmark: the Hub's entry, for a registered benchmark.
    """

    dataset: str
    dataset_id: str
    metric: str
    metric_type: str
    value: float
    note: str = ""
    benchmark: EvalResultEntry | None = None

    @property
    def shown(self) -> str:
        """The value as a table has it."""
        share = self.metric_type not in _NO_SHARES and 0 <= self.value <= 1
        return f"{self.value:.2%}" if share else f"{self.value:.4f}"

    def to_eval_result(self) -> EvalResult:
        """For ``model-index``."""
        return EvalResult(
            task_type="text-generation",
            dataset_type=self.dataset_id,
            dataset_name=self.dataset,
            metric_type=self.metric_type,
            metric_name=self.metric,
            metric_value=round(self.value, 6),
        )


def results_of_training(made: Provenance) -> list[Result]:
    """Bits per byte on the validation split, of the last run that measured it."""
    told = next((run.validation for run in reversed(made.training) if run.validation), {})
    found = []
    for view in View:
        value = told.get(f"validation/{view}_bpb")
        if value is not None:
            found.append(_bits("validation split", f"{_BPB}, {view} view", value, "during training"))
    return found


def read_results(path: Path) -> list[Result]:
    """The figures in a file that an evaluation wrote.

    Args:
        path: ``results.json`` of 'proxybyte eval code', what 'proxybyte eval bpb --json' printed (the data take the
            file's name), results of lm-eval, or a YAML file in the Hub's own format.

    Raises:
        ProxyByteError: if it is none of these.
    """
    try:
        if path.suffix in (".yaml", ".yml"):
            entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
            found = [_of_entry(entry) for entry in entries]
        else:
            found = _of_json(json.loads(path.read_bytes()), path.stem)
    except OSError as error:
        raise ProxyByteError(f"--results {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        raise ProxyByteError(f"--results {path} is damaged: let the evaluation write it again ({error})") from error
    if not found:
        raise ProxyByteError(
            f"--results {path} holds no figure: give results.json of 'proxybyte eval code', what 'proxybyte eval bpb "
            "--json' printed, results of lm-eval, or YAML as the Hub's .eval_results has it"
        )
    return found


def write_benchmarks(results: Iterable[Result], folder: Path) -> list[str]:
    """Write ``.eval_results/NAME.yaml`` for registered benchmarks; the names of the files."""
    by_file: dict[str, list[EvalResultEntry]] = {}
    for entry in (result.benchmark for result in results if result.benchmark is not None):
        by_file.setdefault(re.sub(r"[^a-z0-9_-]", "_", entry.task_id.lower()), []).append(entry)
    for name, entries in by_file.items():
        (folder / EVAL_FOLDER).mkdir(exist_ok=True)
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        (folder / EVAL_FOLDER / f"{name}.yaml").write_text(text, encoding="utf-8")
    return sorted(f"{EVAL_FOLDER}/{name}.yaml" for name in by_file)


def _bits(dataset: str, metric: str, value: float, note: str) -> Result:
    return Result(dataset, "local", metric, "bits_per_byte", float(value), note)


def _of_entry(entry: EvalResultEntry) -> Result:
    """A figure in the Hub's format; above 1 it is one in percent."""
    value = float(entry.value)
    share = value / 100 if value > 1 else value
    return Result(entry.dataset_id, entry.dataset_id, entry.task_id, "score", share, entry.notes or "", entry)


def _of_json(content: dict[str, Any], name: str) -> list[Result]:
    if "set" in content and any(map(_PASS.fullmatch, content)):
        return _of_code(content)
    if isinstance(content.get("results"), dict):
        return _of_lm_eval(content)
    return [
        _bits(name, f"{_BPB}, {view[1]} view", figures["bits_per_byte"], f"{figures['bytes']:,} bytes")
        for label, figures in content.items()
        if (view := _VIEWS.search(label))
    ]


def _of_code(content: dict[str, Any]) -> list[Result]:
    shown, dataset_id = _SETS.get(content["set"], (content["set"], "local"))
    settings = content.get("settings") or {}
    temperature = settings.get("temperature")
    note = f"{content['samples']} samples of {content['problems']} problems"
    note += f", temperature {temperature:g}" if isinstance(temperature, int | float) else ""
    return [
        Result(shown, dataset_id, metric, "pass@k", float(figures["mean"]), note)
        for metric, figures in content.items()
        if _PASS.fullmatch(metric)
    ]


def _of_lm_eval(content: dict[str, Any]) -> list[Result]:
    """Every metric of every task, but for standard errors."""
    shots = content.get("n-shot") or {}
    found = []
    for task, figures in content["results"].items():
        note = f"{shots[task]}-shot" if task in shots else ""
        first = True
        for key, value in figures.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or isinstance(value, str):
                continue
            entry = None
            if task in _REGISTERED and first:
                dataset_id, task_id = _REGISTERED[task]
                entry = EvalResultEntry(dataset_id, task_id, round(100 * value, 4), notes=f"{note} {key}".strip())
            first = False
            bits = metric == "bits_per_byte"
            shown = f"{metric} ({kind})" if kind != "none" else metric
            found.append(Result(task, task, shown, metric, float(value), note, None if bits else entry))
    return found
