"""The prepared folder: the same from any number of workers and after any interruption, and read by ``datasets``."""

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import load_compressor
from proxybyte.training.prepare import PrepareOptions, Verify, prepare_corpus, read_manifest
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.shard import Job, run_tasks
from proxybyte.training.prepare.tasks import plan_tasks
from proxybyte.training.stream.prepared import PreparedSplit


def prepare(corpus: Path, compressor: Path | str, output: Path, workers: int = 1, verify: Verify = Verify.ALL):
    return prepare_corpus(PrepareOptions(corpus, str(compressor), output, workers, verify))


def content(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "prepared.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_datasets_reads_what_was_in_the_corpus_and_codes_spell_the_text(tmp_path, corpus, tokenizer):
    manifest = prepare(corpus, tokenizer, tmp_path / "prepared")
    compressor = load_compressor(tmp_path / "prepared" / "compressor")
    for split, totals in (("train", manifest.train), ("validation", manifest.validation)):
        dataset = datasets.load_from_disk(tmp_path / "prepared" / split)
        shards = [pq.read_table(path) for path in sorted(corpus.glob(f"{split}-*"))]
        assert dataset["text"][:] == [text for shard in shards for text in shard["text"].to_pylist()]
        assert dataset["source"][:] == [source for shard in shards for source in shard["source"].to_pylist()]
        assert dataset.features == prepared_features(compressor.num_symbols)
        rows = dataset.with_format("numpy")
        for row in rows:
            assert row["n_bytes"] == len(row["text"])
            assert row["n_symbols"] == len(row["symbols"]) > 0
            assert compressor.decode(row["symbols"]) == row["text"]
            ends = [0, *compressor.borders(row["symbols"]).tolist()]
            assert row["borders"].tolist() == [ends[row["n_symbols"] * part // 16] for part in range(1, 16)]
        assert totals.documents == len(dataset)
        assert totals.bytes == totals.coded_bytes == int(rows["n_bytes"][:].sum())
        assert totals.symbols == int(rows["n_symbols"][:].sum())
    assert manifest.ratio == pytest.approx(manifest.total.bytes / manifest.total.symbols)
    assert read_manifest(tmp_path / "prepared") == manifest


def test_training_reads_the_same_folder(tmp_path, corpus, tokenizer):
    prepare(corpus, tokenizer, tmp_path / "prepared")
    split = PreparedSplit(tmp_path / "prepared" / "train")
    dataset = datasets.load_from_disk(tmp_path / "prepared" / "train")
    assert len(split) == len(dataset)
    for number, row in enumerate(dataset):
        assert split.raw(number, 0, row["n_bytes"]).tobytes() == row["text"]
        assert split.compressed(number, 0, row["n_symbols"]).tolist() == row["symbols"]
        assert split.borders[number].tolist() == row["borders"]


def test_one_worker_equals_two(tmp_path, corpus, tokenizer):
    one = prepare(corpus, tokenizer, tmp_path / "one", workers=1)
    two = prepare(corpus, tokenizer, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert (tmp_path / "two").stat() and not list(tmp_path.glob("*.partial"))


def test_killed_run_goes_on_where_it_stopped_and_gives_the_same_dataset(tmp_path, tokenizer, some_text, write_shard):
    (tmp_path / "corpus").mkdir()
    texts = [some_text(number, 10_000) for number in range(320)]
    write_shard(tmp_path / "corpus" / "train-00000.parquet", texts, 5)
    arguments = [
        "prepare",
        tmp_path / "corpus",
        "--compressor",
        tokenizer,
        "--out",
        tmp_path / "out",
        "--workers",
        "2",
    ]
    command = [sys.executable, "-m", "proxybyte.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    partial = tmp_path / "out.partial"
    while len(list(partial.glob("done/*.json"))) < 2:
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers), "workers outlive their parent"

    assert not (tmp_path / "out").exists()
    done = [json.loads(path.read_text())["files"] for path in partial.glob("done/*.json")]
    finished = {name: (partial / name).stat() for files in done for name in files}
    assert 2 <= len(finished) < 64
    prepare(tmp_path / "corpus", tokenizer, tmp_path / "out")
    for name, before in finished.items():
        after = (tmp_path / "out" / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    prepare(tmp_path / "corpus", tokenizer, tmp_path / "uninterrupted")
    assert content(tmp_path / "out") == content(tmp_path / "uninterrupted")


def test_leftovers_of_other_inputs_are_not_used(tmp_path, corpus, tokenizer):
    prepare(corpus, tokenizer, tmp_path / "expected")
    old = tmp_path / "out.partial"
    (old / "train").mkdir(parents=True)
    (old / "done").mkdir()
    (name,) = [path.name for path in (tmp_path / "expected" / "train").glob("data-00000-*.arrow")]
    other = name.replace("data-00000-", "data-00000-0")
    (old / "train" / other).write_bytes(b"old")
    (old / "done" / f"train-{other}.json").write_text(json.dumps({"files": {f"train/{other}": 3}}))
    (old / "train" / f"{name}.77.tmp").write_bytes(b"half")
    (old / "compressor").mkdir()
    (old / "compressor" / "leftover").touch()
    prepare(corpus, tokenizer, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def test_finished_folder_is_left_alone_until_an_input_changes(tmp_path, corpus, tokenizer, write_shard):
    first = prepare(corpus, tokenizer, tmp_path / "out")
    inode = (tmp_path / "out").stat().st_ino
    assert prepare(corpus, tokenizer, tmp_path / "out", workers=2) == first
    assert (tmp_path / "out").stat().st_ino == inode

    write_shard(corpus / "validation-00000.parquet", [b"another text"], 5)
    second = prepare(corpus, tokenizer, tmp_path / "out")
    assert second.fingerprint != first.fingerprint
    assert datasets.load_from_disk(tmp_path / "out" / "validation")["text"][:] == [b"another text"]
    third = prepare(corpus, tokenizer, tmp_path / "out", verify=Verify.NONE)
    assert third.fingerprint != second.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_folder_that_lost_a_shard_is_made_again(tmp_path, corpus, tokenizer):
    prepare(corpus, tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    next((tmp_path / "out" / "train").glob("*.arrow")).unlink()
    prepare(corpus, tokenizer, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_another_compressor_makes_another_dataset(tmp_path, corpus, tokenizer, lowercase_tokenizer):
    first = prepare(corpus, tokenizer, tmp_path / "out")
    second = prepare(corpus, lowercase_tokenizer, tmp_path / "out")
    assert second.fingerprint != first.fingerprint
    raw = [row["source"] for row in datasets.load_from_disk(tmp_path / "out" / "train") if row["n_symbols"] < 0]
    assert len(raw) == second.train.raw_documents == sum(second.train.raw_reasons.values()) > 0
    assert [example.partition(": ")[0] for example in second.train.raw_examples] == raw
    assert "normaliser" in next(iter(second.train.raw_reasons))


def test_compressor_without_borders_says_so_in_the_manifest(tmp_path, corpus, tokenizer):
    manifest = prepare(corpus, "gzip", tmp_path / "out", workers=2)
    assert manifest.compressor.family == "gzip"
    assert not manifest.total.has_borders
    assert not PreparedSplit(tmp_path / "out" / "train").borders.any()
    assert manifest.total.raw_documents == 0
    assert prepare(corpus, tokenizer, tmp_path / "with").total.has_borders


@pytest.mark.parametrize("absent", [True, False], ids=["no shard", "a shard without rows"])
def test_corpus_without_validation_gives_no_validation_folder(tmp_path, corpus, tokenizer, write_shard, absent):
    if absent:
        (corpus / "validation-00000.parquet").unlink()
    else:
        write_shard(corpus / "validation-00000.parquet", [], 5)
    first = prepare(corpus, tokenizer, tmp_path / "out")
    assert first.validation.documents == 0
    assert not (tmp_path / "out" / "validation").exists()
    assert prepare(corpus, tokenizer, tmp_path / "out") == first


def tasks_in_two_workers(tmp_path: Path, corpus: Path, tokenizer: Path, advance) -> list:
    for name in ("train", "validation", "done"):
        (tmp_path / "work" / name).mkdir(parents=True)
    compressor = load_compressor(tokenizer)
    compressor.save(tmp_path / "work" / "compressor")
    job = Job(
        tmp_path / "work",
        tmp_path / "work" / "compressor",
        prepared_features(compressor.num_symbols).arrow_schema,
        Verify.ALL,
    )
    return list(run_tasks(job, plan_tasks(corpus, "digest", Verify.ALL), 2, advance))


def test_dead_worker_is_one_sentence_that_says_what_to_do(tmp_path, corpus, tokenizer):
    def kill_one(_: int) -> None:
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    with pytest.raises(ProxyByteError, match="fewer --workers; finished shards are kept"):
        tasks_in_two_workers(tmp_path, corpus, tokenizer, kill_one)
    assert multiprocessing.active_children() == []


def test_interrupt_ends_the_workers(tmp_path, corpus, tokenizer):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks_in_two_workers(tmp_path, corpus, tokenizer, interrupt)
    assert multiprocessing.active_children() == []


def test_fault_in_one_shard_stops_the_run_and_keeps_the_others(tmp_path, corpus, tokenizer, write_shard):
    write_shard(corpus / "validation-00000.parquet", [b"fine", b""], 5)
    with pytest.raises(ProxyByteError, match=r"validation-00000\.parquet, row group 0, row 2"):
        prepare(corpus, tokenizer, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()
    write_shard(corpus / "validation-00000.parquet", [b"fine"], 5)
    prepare(corpus, tokenizer, tmp_path / "out", workers=2)
    prepare(corpus, tokenizer, tmp_path / "expected")
    assert content(tmp_path / "out") == content(tmp_path / "expected")
