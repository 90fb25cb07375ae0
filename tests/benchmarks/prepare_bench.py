"""Text per second through ``proxybyte prepare`` with a BPE of 16,384 symbols.

The baseline is what one writes first: ``datasets.map`` with the same tokenizer through the tokenizers library, in as
many processes, saved to disk (on an eighth of the documents, for it is slow). Both write codes of equal ids, and both
times are those of a user, with processes started and files written. Processor time is given beside wall time,
because on a busy machine only that says something.

The rows ``prepare_vs_map`` answer whether our own pool of workers earns its place: beside it runs ``datasets.map`` over
the same compressor, on the same corpus files, with the same check by decoding and the same columns.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from figures import Figure, figure
from tokenizers import Tokenizer

from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.bpe_train import Split, train_bpe
from proxybyte.training.compressors.protocol import Compressor
from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.corpus.folder import read_report
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.prepare import PrepareOptions, prepare_corpus
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.shard import default_workers
from proxybyte.training.texts.records import MEGABYTE

TEXT_BYTES = 60 * MEGABYTE
FITTED_BYTES = 8 * MEGABYTE
NUM_SYMBOLS = 16_384


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``prepare_KIND_mb_per_s`` and ``prepare_KIND_mb_per_cpu_s`` for ``make bench``.

    Kinds are ``bpe16k`` (the default split of text, on tiktoken), ``bpe16k_gpt2`` (on gigatoken, if it is installed),
    ``1kb`` and ``1kb_gpt2`` (the same text in documents of at most 1,000 bytes), and ``vs_map``.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = SplitRule(validation_share=0.0, max_bytes=TEXT_BYTES)
        report = collect_corpus(CorpusOptions(folder / "corpus", python_packages=True, split=split))
        documents = [
            text
            for shard in sorted((folder / "corpus").glob("train-*"))
            for text in pq.read_table(shard, columns=["text"])["text"].to_pylist()
        ]
        every = max(1, report.train.bytes // FITTED_BYTES)
        train_bpe(documents[::every], NUM_SYMBOLS).save(folder / "bpe")
        train_bpe(documents[::every], NUM_SYMBOLS, Split.GPT2).save(folder / "bpe-gpt2")
        collect_corpus(CorpusOptions(folder / "corpus-1kb", python_packages=True, split=split, cut_bytes=1000))
        mapped = max(_timed(lambda: _map_ours(folder), report.train.bytes) for _ in range(2))
        ours = [_timed(lambda: _prepare(folder), report.train.bytes) for _ in range(2)]
        texts = [text.decode("utf-8", errors="replace") for text in documents[::every]]
        baseline = _timed(lambda: _map(folder, texts), sum(len(text) for text in documents[::every]))
        others = {
            kind: _best(folder, corpus, bpe)
            for kind, corpus, bpe in (
                ("bpe16k_gpt2", "corpus", "bpe-gpt2"),
                ("1kb", "corpus-1kb", "bpe"),
                ("1kb_gpt2", "corpus-1kb", "bpe-gpt2"),
            )
        }
    wall, processor = (max(rate[kind] for rate in ours) for kind in range(2))
    unit = f"MB of source text/s, {default_workers()} processes, start to finish, every document verified"
    yield figure("prepare_bpe16k_mb_per_s", wall, baseline[0], unit)
    unit = "MB of source text for each second of one core"
    yield figure("prepare_bpe16k_mb_per_cpu_s", processor, baseline[1], unit)
    for kind, rates in others.items():
        for name, rate, beside in zip(("mb_per_s", "mb_per_cpu_s"), rates, baseline, strict=True):
            yield figure(f"prepare_{kind}_{name}", rate, beside, "likewise, beside the same baseline")
    unit = "MB of source text/s, beside datasets.map over the same compressor"
    yield figure("prepare_vs_map_mb_per_s", wall, mapped[0], unit)
    yield figure("prepare_vs_map_mb_per_cpu_s", processor, mapped[1], "MB for each second of one core, likewise")


def _timed(work: Callable[[], None], n_bytes: int) -> tuple[float, float]:
    """MB for each second of wall time, and of processor time of this process and its children."""
    wall, processor = time.perf_counter(), _processor_seconds()
    work()
    megabytes = n_bytes / MEGABYTE
    return megabytes / (time.perf_counter() - wall), megabytes / (_processor_seconds() - processor)


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _prepare(folder: Path, corpus: str = "corpus", bpe: str = "bpe") -> None:
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    prepare_corpus(PrepareOptions(folder / corpus, str(folder / bpe), folder / "prepared"))


def _best(folder: Path, corpus: str, bpe: str) -> tuple[float, float]:
    """The better of two runs by each clock."""
    n_bytes = read_report(folder / corpus).train.bytes
    rates = [_timed(lambda: _prepare(folder, corpus, bpe), n_bytes) for _ in range(2)]
    return max(wall for wall, _ in rates), max(processor for _, processor in rates)


def _map_ours(folder: Path) -> None:
    """The compressor of ``prepare`` in ``datasets.map``."""
    for name in ("cache", "mapped-ours"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = [str(path) for path in sorted((folder / "corpus").glob("train-*"))]
    corpus = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    schema = datasets.Features({**corpus.features, **_added(NUM_SYMBOLS)})
    how = {"batched": True, "batch_size": 256, "num_proc": default_workers(), "features": schema}
    corpus.map(_Encode(folder / "bpe"), **how).save_to_disk(folder / "mapped-ours")


def _added(num_symbols: int) -> datasets.Features:
    features = prepared_features(num_symbols)
    return datasets.Features({name: features[name] for name in ("symbols", "n_bytes", "n_symbols", "borders")})


class _Encode:
    """Codes of a batch, each decoded again and compared; the compressor is loaded in the process that needs it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._compressor: Compressor | None = None

    def __getstate__(self) -> dict[str, Path | None]:
        return {"_folder": self._folder, "_compressor": None}

    def __call__(self, batch: dict[str, list]) -> dict[str, list | np.ndarray]:
        self._compressor = self._compressor or load_compressor(str(self._folder))
        codes = self._compressor.encode_batch(batch["text"])
        for text, code in zip(batch["text"], codes, strict=True):
            if self._compressor.decode(code) != text:
                raise ValueError("the code does not spell the text")
        ends = [self._compressor.borders(code) for code in codes]
        return {
            "symbols": codes,
            "n_bytes": [len(text) for text in batch["text"]],
            "n_symbols": [len(code) for code in codes],
            "borders": [
                [end[len(end) * part // 16 - 1] if len(end) * part // 16 else 0 for part in range(1, 16)]
                for end in ends
            ],
        }


def _map(folder: Path, texts: list[str]) -> None:
    """The plain way."""
    tokenizer = Tokenizer.from_file(str(folder / "bpe" / "tokenizer.json"))

    def encode(batch: dict[str, list]) -> dict[str, list]:
        return {"symbols": [code.ids for code in tokenizer.encode_batch(batch["text"])]}

    mapped = datasets.Dataset.from_dict({"text": texts}).map(encode, batched=True, num_proc=default_workers())
    mapped.save_to_disk(folder / "mapped")
