"""A corpus of invented packages, and plans of seconds over it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxybyte.cli import main
from proxybyte.training.experiments.runner import RunOptions, run_plan
from proxybyte.training.experiments.schema import ExperimentPlan, lay_over, parse_plan

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
WORDS = ["def", "return", "import", "self", "None", "for", "in", "range", "(x)", ":\n", "= 0", "λ"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Twelve packages of eight short files, a quarter of them held out."""
    root = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    for package in range(12):
        (root / f"package{package}").mkdir()
        for number in range(8):
            text = " ".join(rng.choices(WORDS, k=rng.randint(20, 200)))
            (root / f"package{package}" / f"file{number}.py").write_text(text, encoding="utf-8")
    folder = root.parent / f"{root.name}-corpus"
    assert main(["corpus", str(root), "--validation-share", "0.25", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def plan_values(corpus) -> dict[str, Any]:
    """A plan of three arms, as YAML would hold it."""
    return {
        "title": "tiny",
        "corpus": {"folder": str(corpus)},
        "compressors": {"bpe": {"fit": "bpe", "options": {"symbols": 280}}},
        "models": {"one": {"backbone_config": BACKBONE}},
        "arms": {
            "bytes": {"kind": "bytes"},
            "proxy": {"kind": "proxy", "compressor": "bpe", "raw_share": 0.5},
            "tokenizer": {"kind": "compressed", "compressor": "bpe"},
        },
        "seeds": [0, 1],
        "match": {"by": "flops", "budget": 4.0e8},
        "train": {
            "precision": "float32",
            "plan": {"row_length": 64},
            "batch": {"rows_per_step": 4, "rows_per_device": 4},
            "optimizer": {"lr": 1.0e-2},
            "learning_rate": {"warmup": 0.1},
            "compute": {"device": "cpu"},
        },
        "evaluation": {"points": 2, "documents": 4, "max_bytes": 200, "final_documents": 6, "final_max_bytes": 300},
    }


@pytest.fixture
def make_plan(plan_values) -> Callable[..., ExperimentPlan]:
    """The plan with sections laid over."""

    def make(**changes: Any) -> ExperimentPlan:
        return parse_plan(lay_over(plan_values, changes), "tiny.yaml")

    return make


@pytest.fixture
def plan_file(plan_values, tmp_path) -> Callable[..., Path]:
    """Writes the plan, with sections laid over, as a file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(lay_over(plan_values, changes)))
        return path

    return write


@pytest.fixture(scope="session")
def finished(plan_values, tmp_path_factory) -> Path:
    """A folder in which the whole plan was run; copy it before changing anything in it."""
    folder = tmp_path_factory.mktemp("experiment") / "tiny"
    progress = run_plan(parse_plan(plan_values, "tiny.yaml"), RunOptions(folder, workers=1))
    assert len(progress.finished) == 6
    assert not progress.failed
    return folder
