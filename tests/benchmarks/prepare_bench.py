"""Text per second through ``proxybyte prepare`` with a BPE of 16,384 symbols.

The baseline is what one writes first: ``datasets.map`` with the same tokenizer through the tokenizers library, in as
many processes, saved to disk (on an eighth of the documents, for it is slow). Both write codes of equal ids, and both
times are those of a user, with processes started and files written. Processor time is given beside wall time,
because on a busy machine only that says something.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from figures import Figure, figure
from tokenizers import Tokenizer

from proxybyte.training.compressors.bpe_train import train_bpe
from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.prepare import PrepareOptions, prepare_corpus
from proxybyte.training.prepare.shard import default_workers
from proxybyte.training.texts.records import MEGABYTE

TEXT_BYTES = 60 * MEGABYTE
FITTED_BYTES = 8 * MEGABYTE
NUM_SYMBOLS = 16_384


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``prepare_bpe16k_mb_per_s`` and ``prepare_bpe16k_mb_per_cpu_s`` for ``make bench``."""
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
        ours = [_timed(lambda: _prepare(folder), report.train.bytes) for _ in range(2)]
        texts = [text.decode("utf-8", errors="replace") for text in documents[::every]]
        baseline = _timed(lambda: _map(folder, texts), sum(len(text) for text in documents[::every]))
    wall, processor = (max(rate[kind] for rate in ours) for kind in range(2))
    unit = f"MB of source text/s, {default_workers()} processes, start to finish, every document verified"
    yield figure("prepare_bpe16k_mb_per_s", wall, baseline[0], unit)
    unit = "MB of source text for each second of one core"
    yield figure("prepare_bpe16k_mb_per_cpu_s", processor, baseline[1], unit)


def _timed(work: Callable[[], None], n_bytes: int) -> tuple[float, float]:
    """MB for each second of wall time, and of processor time of this process and its children."""
    wall, processor = time.perf_counter(), _processor_seconds()
    work()
    megabytes = n_bytes / MEGABYTE
    return megabytes / (time.perf_counter() - wall), megabytes / (_processor_seconds() - processor)


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    prepare_corpus(PrepareOptions(folder / "corpus", str(folder / "bpe"), folder / "prepared"))


def _map(folder: Path, texts: list[str]) -> None:
    """The plain way."""
    tokenizer = Tokenizer.from_file(str(folder / "bpe" / "tokenizer.json"))

    def encode(batch: dict[str, list]) -> dict[str, list]:
        return {"symbols": [code.ids for code in tokenizer.encode_batch(batch["text"])]}

    mapped = datasets.Dataset.from_dict({"text": texts}).map(encode, batched=True, num_proc=default_workers())
    mapped.save_to_disk(folder / "mapped")
