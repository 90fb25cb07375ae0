"""Several bytes a step beside one: greedy decoding with the model's own heads, and with drafts in its compressed view.

The checkpoint is a small Llama with seven raw heads, trained once on this machine's CPython standard library under a
BPE, both views (a quarter of an hour or more of one core); it is kept under ``build/multibyte`` and used again.
``PROXYBYTE_BENCH_CHECKPOINT`` names another run or full export. Prompts are 400 bytes from the middle of held-out
files. Baseline: ``generate()`` of the same model on the same prompts, one byte a step. Seconds are CPU seconds of one
core, prompts' forward passes included; the ways take turns, and each counts with its best round.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteForCausalLM, encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import Special
from proxybyte.training.compressors import load_spelling

HOME = Path("build/multibyte")
PROMPT_BYTES, NEW_BYTES, PROMPTS, ROUNDS = 400, 256, 8, 2
BACKBONE = (
    "{model_type: llama, hidden_size: 128, intermediate_size: 384, num_hidden_layers: 4, num_attention_heads: 4, "
    "max_position_embeddings: 2048, initializer_range: 0.09, tie_word_embeddings: false, "
    "rope_parameters: {rope_type: default, rope_theta: 100000.0}}"
)
RECIPE = f"""\
output: {HOME}/run
data: {HOME}/prepared
model: {{num_raw_pred_heads: 7, backbone_config: {BACKBONE}}}
plan:
  row_length: 256
  budget: 4_000_000
  budget_unit: symbols
  schedule: {{rate: 0.5, warmup: 0.1, warmup_rate: 0.4, warmup_pairing: random, decay: 0.5, decay_rate: 0.15}}
batch: {{rows_per_step: 8, rows_per_device: 8, shuffle_steps: 256}}
optimizer: {{lr: 5.0e-3}}
learning_rate: {{shape: cosine, warmup: 0.05, final: 0.05}}
log: {{every: 10}}
checkpoint: {{every: 500}}
evaluation: {{every: 1000, documents: 16, max_bytes: 1536}}
"""


@dataclass(frozen=True)
class Way:
    """One way to write the same bytes.

    Attributes:
        seconds: of the best round, all prompts together.
        texts: what it wrote.
        drafts: how drafting went; ``None`` without drafts.
    """

    seconds: float
    texts: torch.Tensor
    drafts: Any

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return PROMPTS * NEW_BYTES / self.seconds


def measure() -> list[dict]:
    """Rows ``multibyte_speedup_b1``, ``multibyte_speedup_b8``, ``crossview_speedup_b1``, ``crossview_bytes_needed``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    try:
        model, spelling = _checkpoint()
        prompts = _prompts()
        alone = _ways(model, spelling, [prompt[None] for prompt in prompts], ("one", "heads", "compressed"))
        together = _ways(model, spelling, [torch.stack(prompts)], ("one", "heads"))
    finally:
        torch.set_num_threads(threads)
    return [
        _row("multibyte_speedup_b1", alone["heads"], alone["one"]),
        _row("multibyte_speedup_b8", together["heads"], together["one"]),
        _row("crossview_speedup_b1", alone["compressed"], alone["one"]),
        _needed(alone["compressed"], alone["heads"]),
    ]


def _checkpoint() -> tuple[Any, Any]:
    """The model and what its compressed symbols spell."""
    given = os.environ.get("PROXYBYTE_BENCH_CHECKPOINT")
    if given is None:
        _train()
    run = Path(given) if given is not None else HOME / "run"
    folder = run / "model" if (run / "model").is_dir() else run
    if not (folder / "config.json").is_file():
        raise ProxyByteError(f"PROXYBYTE_BENCH_CHECKPOINT={given} is neither a run nor a full export")
    return ProxyByteForCausalLM.from_pretrained(folder).eval(), load_spelling(run / "compressor")


def _train() -> None:
    """The steps from source files to a model, those left out that are done."""
    _collect()
    recipe = HOME / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    bpe, prepared = str(HOME / "bpe"), str(HOME / "prepared")
    steps = {
        HOME / "bpe": ("compressor", "fit", "bpe", "--corpus", str(HOME / "corpus"), "--symbols", "2048", "--out", bpe),
        HOME / "prepared": ("prepare", str(HOME / "corpus"), "--compressor", bpe, "--out", prepared),
        HOME / "run" / "model": ("train", "--config", str(recipe)),
    }
    for made, words in steps.items():
        if not made.exists():
            _command(words)


def _collect() -> None:
    if not (HOME / "corpus").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        library = sysconfig.get_path("stdlib")
        _command(("corpus", library, "--max-mb", "24", "--by-document", "--out", str(HOME / "corpus")))


def _command(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "proxybyte.cli", *words], stdout=sys.stderr, check=False)
    if done.returncode:
        raise ProxyByteError(f"'proxybyte {' '.join(words)}' failed: its message is above")


def _prompts() -> list[torch.Tensor]:
    """Pieces of held-out files, from the line after their first kilobyte, opened as texts are."""
    _collect()
    table = pq.read_table(sorted((HOME / "corpus").glob("validation-*.parquet"))[0], columns=["text"])
    pieces = []
    for text in table["text"].to_pylist():
        start = text.find(b"\n", 1000) + 1
        if start and len(text) >= start + PROMPT_BYTES:
            piece = encode_bytes(text[start : start + PROMPT_BYTES]).astype(np.int64)
            pieces.append(torch.tensor([int(Special.RAW_OPEN), *piece.tolist()]))
    return pieces[:: max(1, len(pieces) // PROMPTS)][:PROMPTS]


def _ways(model: Any, spelling: Any, batches: list[torch.Tensor], names: tuple[str, ...]) -> dict[str, Way]:
    """Each way on all batches."""
    settings: dict[str, dict[str, Any]] = {
        "one": {},
        "heads": {"draft": "heads"},
        "compressed": {"draft": "compressed", "draft_spelling": spelling},
    }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    texts = {}
    for _ in range(ROUNDS):
        for name in names:
            texts[name], spent = _timed(lambda name=name: _write(model, batches, settings[name]))  # type: ignore[misc]
            seconds[name].append(spent)
    drafted = [name for name in names if settings[name]]
    reports = {
        name: [
            model.generate(batch, **_SETTINGS, **settings[name], return_dict_in_generate=True).drafts
            for batch in batches
        ]
        for name in drafted
    }
    return {name: Way(min(seconds[name]), texts[name], reports.get(name)) for name in names}


_SETTINGS: dict[str, Any] = {"max_new_tokens": NEW_BYTES, "eos_token_id": None, "do_sample": False}


def _write(model: Any, batches: list[torch.Tensor], settings: dict[str, Any]) -> torch.Tensor:
    return torch.cat([model.generate(batch, **_SETTINGS, **settings) for batch in batches])


def _timed(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def _row(name: str, drafted: Way, one: Way) -> dict:
    symbols, passes = (sum(getattr(report, key) for report in drafted.drafts) for key in ("symbols", "row_forwards"))
    places = max(len(report.offered) for report in drafted.drafts)
    shares = []
    for place in range(min(places, 8)):
        reports = [report for report in drafted.drafts if len(report.offered) > place]
        shares.append(sum(report.accepted[place] for report in reports) / sum(r.offered[place] for r in reports))
    # In float32 a tie between two bytes may tip with the number of positions in a matrix product.
    equal = int((drafted.texts == one.texts).all(dim=1).sum())
    return {
        "name": name,
        "value": drafted.speed,
        "unit": f"bytes/s, greedy, one core; {equal} of {len(one.texts)} texts equal; {symbols / passes:.2f} bytes a "
        f"verifying pass, drafts right up to place 1, 2, ...: {' '.join(f'{share:.2f}' for share in shares)}; "
        "baseline: one byte a step",
        "baseline": one.speed,
        "ratio": drafted.speed / one.speed,
    }


def _needed(cross: Way, heads: Way) -> dict:
    """How many bytes a step cross-view drafts would have to bring to be as fast as the heads, beside what they do."""
    symbols, passes = (sum(getattr(report, key) for report in cross.drafts) for key in ("symbols", "row_forwards"))
    drafting = sum(report.draft_forwards for report in cross.drafts)
    needed = heads.speed * cross.seconds / passes
    return {
        "name": "crossview_bytes_needed",
        "value": needed,
        "unit": f"bytes a step ({drafting / passes:.1f} passes that draft and one that verifies) at which cross-view "
        "drafts equal the heads; baseline: what they bring",
        "baseline": symbols / passes,
        "ratio": needed / (symbols / passes),
    }
