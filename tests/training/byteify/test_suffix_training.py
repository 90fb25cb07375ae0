"""Suffix rows and the teacher's lessons through the training loop, to both forms of export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.symbols import NUM_RAW_SYMBOLS, Special
from proxybyte.training.byteify import byteify
from proxybyte.training.byteify.embedding_rows import token_spellings
from proxybyte.training.compressors import load_compressor
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

STEPS = 6
RAW_ALONE = ["plan.schedule.rate=0", "plan.schedule.warmup=0", "plan.schedule.decay=0"]
TEXT = torch.tensor([[Special.RAW_OPEN, *encode_bytes(b"def f(x):\n    return x ** 2").tolist()]])


@pytest.fixture(scope="module")
def model(make_base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("byteified") / "model"
    byteify(str(make_base("llama-tied", dtype=torch.float32)), out)
    return out


@pytest.fixture
def run(model, prepare_texts, tmp_path):
    def start(*overrides: str, output: str = "run") -> Path:
        values = {
            "output": str(tmp_path / output), "data": str(prepare_texts(model)), "precision": "float32",
            "model": {"checkpoint": str(model)},
            "plan": {"row_length": 64, "budget": 64 * 2 * STEPS, "budget_unit": "symbols"},
            "batch": {"rows_per_step": 2, "rows_per_device": 1}, "optimizer": {"lr": 1e-3},
            "log": {"every": 1, "trackers": [], "plot": False}, "checkpoint": {"every": 2, "keep": 9},
            "evaluation": {"every": 0},
        }  # fmt: skip
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(values))
        config = load_config(recipe, overrides)
        train(config)
        return config.output

    return start


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


KEPT = "suffix_rows.mix.value=0.5"
FADED = [KEPT, "suffix_rows.mix.hold=0.2", "suffix_rows.mix.end=0.8"]


def test_kept_rows_come_out_with_the_model_and_travel_in_the_full_export(run, tmp_path):
    folder = run(*RAW_ALONE, KEPT)
    trained = ProxyByteForCausalLM.from_pretrained(folder / "model").eval()
    assert trained.config.suffix_rows.mix == 0.5
    with pytest.raises(ProxyByteError, match=r"suffix_rows\.mix=0\.5"):
        export_model(folder, tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    assert not (tmp_path / "native").exists()
    out = export_model(folder, tmp_path / "full", ExportOptions(ExportFormat.FULL))
    assert (out / "suffix_rows.py").is_file()
    script = (
        "import sys, torch; sys.modules['proxybyte'] = None\n"
        "from transformers import AutoModelForCausalLM as A\n"
        f"m = A.from_pretrained({str(out)!r}, trust_remote_code=True).eval()\n"
        f"x = torch.tensor({TEXT.tolist()})\n"
        "print(m(x).logits[0, -1, :320].argmax().item(), m.reads_suffixes)\n"
        "print(m.generate(x, max_new_tokens=5, do_sample=False)[0].tolist())\n"
    )
    environment = {
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PATH": "",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        expected = [
            f"{int(trained(TEXT).logits[0, -1, :320].argmax())} True",
            str(trained.generate(TEXT, max_new_tokens=5, do_sample=False)[0].tolist()),
        ]
    assert done.stdout.splitlines() == expected


def test_the_table_may_hold_the_first_tokens_alone(run, model):
    few, all_ = (
        ProxyByteForCausalLM.from_pretrained(run(*RAW_ALONE, KEPT, *asked, output=name) / "model").suffix_rows
        for name, asked in (("few", ["suffix_rows.tokens=270"]), ("all", []))
    )
    spelled = token_spellings(load_compressor(model / "compressor"))
    assert max(code for code, word in enumerate(spelled) if word) > 270
    assert few.symbols.max() == 320 + max(code for code, word in enumerate(spelled[:270]) if word)
    assert len(few.symbols) < len(all_.symbols)


def test_faded_rows_leave_a_model_that_exports_natively(run, tmp_path):
    folder = run(*RAW_ALONE, *FADED)
    shares = [
        ProxyByteForCausalLM.from_pretrained(folder / f"checkpoints/step-{step:08d}/model").config.suffix_rows.mix
        for step in (2, 4)
    ]
    # The share of step 2 and 4 of 6: 1/3 and 2/3 of the run, on a line from 0.2 to 0.8.
    assert shares == pytest.approx([0.5 * (0.8 - 1 / 3) / 0.6, 0.5 * (0.8 - 2 / 3) / 0.6])
    out = export_model(folder, tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    assert plain.config.model_type == "llama"
    with torch.no_grad():
        expected = ProxyByteForCausalLM.from_pretrained(folder / "model").eval()(TEXT).logits[..., :NUM_RAW_SYMBOLS]
        torch.testing.assert_close(plain(TEXT).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        [*FADED, "teacher.tokens.value=1", "teacher.tokens.end=0.5", "teacher.tokens.hold=0.2", *RAW_ALONE],
        ["teacher.kind=dense", "teacher.weight=0.5", "raw_rows_only=true", "teacher.tokens.value=1", *RAW_ALONE],
        [KEPT, "teacher.kind=dense", "teacher.weight=0.5", "teacher.chunks.value=0.5"],
        ["teacher.hidden.value=0.5", "teacher.hidden.hold=0.2", "teacher.hidden.end=0.6", "teacher.layers=[1,2]"],
    ],
    ids=["faded", "teacher", "mixed views", "hidden"],
)
def test_an_interrupted_run_is_the_uninterrupted_one(run, overrides, tmp_path):
    whole = losses(run(*overrides, output="whole"))
    assert len(whole) == STEPS
    folder = run(*overrides, output="again")
    for step in (4, 6):
        for path in sorted((folder / f"checkpoints/step-{step:08d}").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (folder / f"checkpoints/step-{step:08d}").rmdir()
    assert losses(run(*overrides, output="again")) == whole


def test_what_the_teacher_says_changes_what_is_learnt(run):
    plain = losses(run(*RAW_ALONE, output="plain"))
    tokens = losses(run(*RAW_ALONE, "teacher.tokens.value=1", output="tokens"))
    over = losses(
        run(*RAW_ALONE, "teacher.tokens.value=1", "teacher.tokens.hold=0", "teacher.tokens.end=0.0001", output="over")
    )
    # The loss that is logged is that of the targets: the first step's does not depend on the teacher.
    assert tokens[0] == plain[0]
    assert tokens[2:] != plain[2:]
    assert over == plain


def test_layers_that_are_not_there_are_refused(run):
    with pytest.raises(ProxyByteError, match=r"teacher.layers is \[1, 9\], but the models have 2 layers"):
        run("teacher.hidden.value=1", "teacher.layers=[1,9]", output="deep")
    with pytest.raises(ProxyByteError, match=r"teacher.hidden.value and teacher.layers go together"):
        run("teacher.hidden.value=1", output="none")


def test_a_base_with_another_tokenizer_teaches_through_bytes(run, make_base, tmp_path):
    other = tmp_path / "other"
    byteify(str(make_base("qwen3", "gemma-pieces", dtype=torch.float32)), other)
    dense = ["teacher.kind=dense", "teacher.weight=1", f"teacher.model={other}", *RAW_ALONE]
    plain, taught = losses(run(*RAW_ALONE, output="plain")), losses(run(*dense, output="taught"))
    assert taught[0] == plain[0]
    assert taught[1:] != plain[1:]
    with pytest.raises(ProxyByteError, match=r"another tokenizer.*teacher\.tokens"):
        run(*dense, "teacher.tokens.value=1", output="refused")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["raw_rows_only=true", "plan.schedule.rate=0.5"], "raw_rows_only"),
        (["suffix_rows.mix.value=1.5"], "mix"),
        (["teacher.kind=often"], "teacher.kind"),
        (["teacher.tokens.hold=0.9", "teacher.tokens.end=0.5"], "hold"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(run, overrides, said):
    with pytest.raises(ProxyByteError, match=said):
        run(*overrides)
