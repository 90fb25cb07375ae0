"""Several bytes a step beside one: drafts by the model's heads, by the text's own repeats, and in its compressed view.

The checkpoint is that of the recipe ``multibyte-heads``, a small Llama with seven raw heads, trained once by ``make
bench-long`` on this machine's CPython standard library under a BPE, both views (hours on a CPU); it is kept under
``build/multibyte`` and used again. ``PROXYBYTE_BENCH_CHECKPOINT`` names another run or full export; without
either it is the model in the box with heads trained on top of it (:mod:`box_heads`), which has no compressed view.

Prompts are 240 bytes from the middle of held-out files. Baseline: ``generate()`` of the same model on the same prompts,
one byte a step. Seconds are CPU seconds of one core, prompts' forward passes included; the ways take turns, and each
counts with its best round. With a queue (``draft_rows``) all prompts are one call that has eight rows in a pass;
without, they are a call for each eight.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from box_heads import box_with_heads, texts
from figures import Figure, one_core
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteForCausalLM, encode_bytes
from proxybyte.drafters import MATCH
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import Special
from proxybyte.training.compressors import load_spelling
from proxybyte.training.compressors.cross_view import CrossViewDrafter

HOME = Path("build/multibyte")
PROMPT_BYTES, NEW_BYTES, PROMPTS, BATCH, ROUNDS = 240, 256, 24, 8, 2
GREEDY: dict[str, Any] = {"max_new_tokens": NEW_BYTES, "eos_token_id": None, "do_sample": False}
SAMPLED: dict[str, Any] = GREEDY | {"do_sample": True, "temperature": 1.0, "top_k": 0}


@dataclass(frozen=True)
class Way:
    """One way to write the same bytes.

    Attributes:
        seconds: of the best round, all prompts together.
        texts: what it wrote.
        drafts: how drafting went, batch by batch; empty without drafts.
    """

    seconds: float
    texts: torch.Tensor
    drafts: list[Any]

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return len(self.texts) * NEW_BYTES / self.seconds


HEADS: dict[str, Any] = {"draft": "heads"}
BOTH: dict[str, Any] = {"draft": "heads", "draft_repeats": True}
REPEATS: dict[str, Any] = {"draft_repeats": True}


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``multibyte_*`` (heads), ``multibyte_repeats_*`` (and repeats), ``repeats_*`` (alone), ``crossview_*``."""
    transformers_logging.disable_progress_bar()
    with one_core():
        model, spelling = _checkpoint(long)
        prompts = _prompts(texts(held_out=True) if spelling is None else _collected())
        yield from in_batches(model, prompts)
        yield from one_row(model, prompts[:BATCH], spelling)
        yield from drawn(model, prompts[:BATCH])


def in_batches(model: Any, prompts: list[torch.Tensor]) -> Iterator[Figure]:
    """Eight rows in a pass, with and without others that take the places of those that end."""
    batches = [torch.stack(prompts[start : start + BATCH]) for start in range(0, len(prompts), BATCH)]
    queue = {"draft_rows": BATCH}
    names = {"multibyte": HEADS, "multibyte_repeats": BOTH, "repeats": REPEATS}
    ways = names | {f"{name}_queue": way | queue for name, way in names.items() if name != "repeats"}
    together = _ways(model, batches, {"one": {}, **ways}, GREEDY)
    for name in ways:
        yield _row(f"{name}_speedup_b{BATCH}", together[name], together["one"])


def one_row(model: Any, prompts: list[torch.Tensor], spelling: Any) -> Iterator[Figure]:
    """A prompt at a time, greedily."""
    lookup = {"prompt_lookup_num_tokens": 15, "max_matching_ngram_size": MATCH}
    ways: dict[str, dict[str, Any]] = {"multibyte": HEADS, "multibyte_repeats": BOTH, "repeats": REPEATS}
    ways["prompt_lookup"] = lookup
    if spelling is not None:
        ways["crossview"] = {"draft": CrossViewDrafter(spelling)}
    alone = _ways(model, [prompt[None] for prompt in prompts], {"one": {}, **ways}, GREEDY)
    for name in ways:
        yield _row(f"{name}_speedup_b1", alone[name], alone["one"])
    if spelling is not None:
        yield _needed(alone["crossview"], alone["multibyte"])


def drawn(model: Any, prompts: list[torch.Tensor]) -> Iterator[Figure]:
    """A prompt at a time, at temperature 1."""
    ways = {"one": {}, "multibyte": HEADS, "multibyte_repeats": BOTH}
    found = _ways(model, [prompt[None] for prompt in prompts], ways, SAMPLED)
    yield _row("multibyte_sampled_speedup_b1", found["multibyte"], found["one"])
    yield _row("multibyte_repeats_sampled_speedup_b1", found["multibyte_repeats"], found["one"])


def _checkpoint(long: bool) -> tuple[Any, Any]:
    """The model and what its compressed symbols spell, or ``None`` for the box; trained if it is not there."""
    given = os.environ.get("PROXYBYTE_BENCH_CHECKPOINT")
    if given is None and long:
        _train()
    if given is None and not (HOME / "run" / "model").is_dir():
        return box_with_heads(HOME / "box-heads.safetensors"), None
    run = Path(given) if given is not None else HOME / "run"
    folder = run / "model" if (run / "model").is_dir() else run
    if not (folder / "config.json").is_file():
        raise ProxyByteError(f"PROXYBYTE_BENCH_CHECKPOINT={given} is neither a run nor a full export")
    return ProxyByteForCausalLM.from_pretrained(folder).eval(), load_spelling(run / "compressor")


def _train() -> None:
    """The steps from source files to a model, those left out that are done."""
    _collect()
    bpe, prepared = str(HOME / "bpe"), str(HOME / "prepared")
    steps = {
        HOME / "bpe": ("compressor", "fit", "bpe", "--corpus", str(HOME / "corpus"), "--symbols", "2048", "--out", bpe),
        HOME / "prepared": ("prepare", str(HOME / "corpus"), "--compressor", bpe, "--out", prepared),
        HOME / "run" / "model": ("train", "--config", "multibyte-heads", f"output={HOME}/run", f"data={prepared}"),
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


def _collected() -> Iterator[bytes]:
    _collect()
    table = pq.read_table(sorted((HOME / "corpus").glob("validation-*.parquet"))[0], columns=["text"])
    yield from table["text"].to_pylist()


def _prompts(documents: Iterable[bytes]) -> list[torch.Tensor]:
    """Pieces of them, from the line after their first kilobyte, opened as texts are."""
    pieces = []
    for text in documents:
        start = text.find(b"\n", 1000) + 1
        if start and len(text) >= start + PROMPT_BYTES:
            piece = encode_bytes(text[start : start + PROMPT_BYTES]).astype(np.int64)
            pieces.append(torch.tensor([int(Special.RAW_OPEN), *piece.tolist()]))
    return pieces[:: max(1, len(pieces) // PROMPTS)][:PROMPTS]


def _ways(
    model: Any, batches: list[torch.Tensor], ways: dict[str, dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Way]:
    """Each way, by arguments of ``generate``, on all batches."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            texts[name], spent = _timed(lambda way=way: _write(model, batches, settings | way))  # type: ignore[misc]
            seconds[name].append(spent)
    # Apart from the clock, because the cache is then handed back.
    reports = {
        name: [
            model.generate(batch, **settings, **way, return_dict_in_generate=True).drafts
            for batch in _calls(batches, way)
        ]
        for name, way in ways.items()
        if any(key.startswith("draft") for key in way)
    }
    return {name: Way(min(seconds[name]), texts[name], reports.get(name, [])) for name in ways}


def _write(model: Any, batches: list[torch.Tensor], settings: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.cat([model.generate(batch, **settings) for batch in _calls(batches, settings)])


def _calls(batches: list[torch.Tensor], way: dict[str, Any]) -> list[torch.Tensor]:
    return [torch.cat(batches)] if "draft_rows" in way else batches


def _timed(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def _row(name: str, drafted: Way, one: Way) -> Figure:
    # In float32 a tie between two bytes may tip with the number of positions in a matrix product; drawn texts differ.
    equal = int((drafted.texts == one.texts).all(dim=1).sum())
    return {
        "name": name,
        "value": drafted.speed,
        "unit": f"bytes/s, one core; {equal} of {len(one.texts)} texts equal{_told(drafted.drafts)}; "
        "baseline: one byte a step",
        "baseline": one.speed,
        "ratio": drafted.speed / one.speed,
    }


def _told(reports: list[Any]) -> str:
    """What the reports say together."""
    if not reports:
        return ""
    symbols, passes, repeated = (
        sum(getattr(report, key) for report in reports) for key in ("symbols", "row_forwards", "repeated")
    )
    right = [0] * 8
    for report in reports:
        for place, count in enumerate(report.accepted[: len(right)]):
            right[place] += count
    shares = " ".join(f"{count / passes:.2f}" for count in right)
    return (
        f"; {symbols / passes:.2f} bytes a verifying pass, {repeated / symbols:.0%} of the bytes copied from the text; "
        f"share of passes that kept 1, 2, ... drafted bytes: {shares}"
    )


def _needed(cross: Way, heads: Way) -> Figure:
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
