"""The steps for datatrove: any number of tasks gives the folder of one, and the rows of ``prepare``."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="the steps for datatrove need the extra 'scale'")

import datasets
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader, ParquetReader

from proxybyte.checksums import verify_folder
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import load_compressor
from proxybyte.training.prepare import PrepareOptions, prepare_corpus, read_manifest
from proxybyte.training.prepare.trove import PreparedMerge, PreparedWriter


def content(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "prepared.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run(steps: list, logs: Path, tasks: int, workers: int = 1) -> None:
    LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=str(logs)).run()


def prepare(reader, output: Path, tokenizer: Path, tasks: int, **how) -> Path:
    run([reader, PreparedWriter(output, tokenizer, **how)], output.with_name(f"{output.name}-logs"), tasks)
    PreparedMerge(output, tasks).merge()
    return output


@pytest.fixture
def lines(tmp_path, some_text) -> Path:
    """Five files of JSON lines, one of them compressed; a line without text in each."""
    folder = tmp_path / "lines"
    folder.mkdir()
    for file in range(5):
        texts = [*(some_text(10 * file + number, 400 + 300 * file).decode() for number in range(6)), "", "é ü 漢字"]
        content = "".join(json.dumps({"text": text, "id": f"{file}-{n}"}) + "\n" for n, text in enumerate(texts))
        if file == 3:
            (folder / f"{file}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
        else:
            (folder / f"{file}.jsonl").write_text(content)
    return folder


def texts_of(folder: Path, pattern: str = "*") -> list[tuple[str, str]]:
    """(id, text) of every line with text, file by file."""
    found = []
    for path in sorted(folder.glob(pattern)):
        stored = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in stored.decode().splitlines()]
        found += [(row["id"], row["text"]) for row in rows if row["text"]]
    return found


def rows_of(folder: Path, split: str = "train") -> list[tuple[str, str]]:
    rows = datasets.load_from_disk(folder / split)
    return [(row["source"], row["text"].decode()) for row in rows]


def test_any_number_of_tasks_gives_the_folder_of_one_in_the_order_of_the_files(tmp_path, lines, tokenizer):
    one = prepare(JsonlReader(str(lines)), tmp_path / "one", tokenizer, 1)
    assert rows_of(one) == texts_of(lines)
    for tasks in (2, 5, 7):
        many = prepare(JsonlReader(str(lines)), tmp_path / f"of-{tasks}", tokenizer, tasks)
        assert content(many) == content(one)
        assert read_manifest(many).fingerprint == read_manifest(one).fingerprint
        verify_folder(many)
    compressor = load_compressor(one / "compressor")
    for row in datasets.load_from_disk(one / "train").with_format("numpy"):
        assert compressor.decode(row["symbols"]) == row["text"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_corpus_read_by_datatrove_gives_the_rows_and_codes_of_prepare(tmp_path, corpus, tokenizer):
    """The corpus holds bytes that are not UTF-8; datatrove's reader hands on what the column holds."""
    reader = ParquetReader(str(corpus), glob_pattern="train-*.parquet")
    trove = prepare(reader, tmp_path / "trove", tokenizer, 2)
    prepare_corpus(PrepareOptions(corpus, str(tokenizer), tmp_path / "ours", workers=1))
    theirs, ours = (datasets.load_from_disk(folder / "train") for folder in (trove, tmp_path / "ours"))
    assert theirs[:] == ours[:]
    assert theirs.features == ours.features
    assert read_manifest(trove).compressor == read_manifest(tmp_path / "ours").compressor


def test_filters_of_datatrove_come_between(tmp_path, lines, tokenizer):
    steps = [JsonlReader(str(lines)), LambdaFilter(lambda document: len(document.text) > 900)]
    run([*steps, PreparedWriter(tmp_path / "out", tokenizer)], tmp_path / "logs", 2)
    PreparedMerge(tmp_path / "out", 2).merge()
    assert rows_of(tmp_path / "out") == [pair for pair in texts_of(lines) if len(pair[1]) > 900]


def test_documents_are_held_out_by_their_bytes_whoever_reads_them(tmp_path, lines, tokenizer):
    one, three = (
        prepare(JsonlReader(str(lines)), tmp_path / f"of-{tasks}", tokenizer, tasks, validation_share=0.3)
        for tasks in (1, 3)
    )
    assert content(one) == content(three)
    train, held_out = rows_of(one, "train"), rows_of(one, "validation")
    assert sorted(train + held_out) == sorted(texts_of(lines))
    assert 0 < len(held_out) < len(train)
    assert not {text for _, text in train} & {text for _, text in held_out}


def test_exact_duplicates_across_files_go_by_the_blocks_of_datatrove(tmp_path, lines, tokenizer):
    """Every file holds one line of the same text: one copy is left, as ``proxybyte corpus`` leaves one."""
    config = ExactDedupConfig(content_getter=text_of)
    signatures, duplicates = tmp_path / "signatures", tmp_path / "duplicates"
    run([JsonlReader(str(lines)), ExactDedupSignature(str(signatures), config)], tmp_path / "logs-1", 3)
    run([ExactFindDedups(str(signatures), str(duplicates), config)], tmp_path / "logs-2", 1)
    steps = [JsonlReader(str(lines)), ExactDedupFilter(str(duplicates), config)]
    run([*steps, PreparedWriter(tmp_path / "out", tokenizer)], tmp_path / "logs-3", 3)
    PreparedMerge(tmp_path / "out", 3).merge()
    kept = Counter(text for _, text in rows_of(tmp_path / "out"))
    assert kept == Counter({text: 1 for _, text in texts_of(lines)})
    assert main(["corpus", *map(str, sorted(lines.iterdir())), "--out", str(tmp_path / "corpus")]) == 0
    ours = datasets.load_dataset("parquet", data_files=str(tmp_path / "corpus" / "*.parquet"), split="train")
    assert Counter(text.decode() for text in ours["text"]) == kept


def text_of(document: Document) -> bytes:
    return document.text.encode()


def test_a_merge_before_all_ranks_are_through_names_the_one_that_is_not(tmp_path, lines, tokenizer):
    writer = PreparedWriter(tmp_path / "out", tokenizer)
    for rank in (0, 2):
        for _ in writer.run(JsonlReader(str(lines)).run(rank=rank, world_size=3), rank, 3):
            pass
    with pytest.raises(ProxyByteError, match="rank 1 of 3 is not through"):
        PreparedMerge(tmp_path / "out", 3).merge()
    for _ in writer.run(JsonlReader(str(lines)).run(rank=1, world_size=3), 1, 3):
        pass
    PreparedMerge(tmp_path / "out", 3).merge()
    assert rows_of(tmp_path / "out") == texts_of(lines)


PIPELINE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from proxybyte.training.prepare.trove import PreparedMerge, PreparedWriter

def slow(document):
    import os, time
    if os.environ.get("SLOW"):
        time.sleep(0.05)
    return True

if __name__ == "__main__":
    lines, tokenizer, out, logs = sys.argv[1:]
    steps = [JsonlReader(lines), LambdaFilter(slow), PreparedWriter(out, tokenizer)]
    first = LocalPipelineExecutor(steps, tasks=5, workers=2, logging_dir=logs)
    merge = LocalPipelineExecutor([PreparedMerge(out, tasks=5)], depends=first, logging_dir=logs + "-merge")
    merge.run()
"""


def test_a_killed_run_redoes_the_ranks_that_were_not_through_and_no_other(tmp_path, lines, tokenizer):
    script, out, logs = tmp_path / "pipeline.py", tmp_path / "out", tmp_path / "logs"
    script.write_text(PIPELINE)
    command = [sys.executable, *map(str, (script, lines, tokenizer, out, logs))]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env={**environment, "SLOW": "1"}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while len(list(logs.glob("completions/*"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    through = {int(path.name) for path in logs.glob("completions/*")}
    assert 2 <= len(through) < 5 and not out.exists()
    partial = tmp_path / "out.partial"
    reports = [json.loads((partial / "done" / f"rank-{rank:05d}-of-00005.json").read_text()) for rank in through]
    names = [name for report in reports for part in report["parts"] for name in part["totals"]["files"]]
    before = {(partial / name).stat().st_ino for name in names}
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True, timeout=240)
    stats = {int(path.stem) for path in logs.glob("stats/*.json") if path.stem.isdigit()}
    assert stats == set(range(5))
    logged = "".join(path.read_text() for path in logs.glob("logs/*"))
    assert all(logged.count(f"Processing done for rank={rank}") == 1 for rank in through)
    assert len(before) == len(through)
    assert before <= {path.stat().st_ino for path in (out / "train").glob("*.arrow")}
    assert content(out) == content(prepare(JsonlReader(str(lines)), tmp_path / "one", tokenizer, 1))


@pytest.mark.slow
def test_a_local_ray_executor_gives_the_same_folder(tmp_path, lines, tokenizer):
    ray = pytest.importorskip("ray")
    from datatrove.executor.ray import RayPipelineExecutor

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000)
    try:
        steps = [JsonlReader(str(lines)), PreparedWriter(tmp_path / "out", tokenizer)]
        RayPipelineExecutor(
            steps, tasks=3, workers=2, cpus_per_task=1, mem_per_cpu_gb=0.5, logging_dir=str(tmp_path / "logs")
        ).run()
    finally:
        ray.shutdown()
    PreparedMerge(tmp_path / "out", 3).merge()
    assert content(tmp_path / "out") == content(prepare(JsonlReader(str(lines)), tmp_path / "one", tokenizer, 1))
