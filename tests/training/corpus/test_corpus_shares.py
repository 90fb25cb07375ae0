"""``corpus --shard`` and ``--merge``: the corpus of one process, whatever the sources, the shards and their ends."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.locks import hold
from proxybyte.training.corpus import CorpusOptions, collect_corpus, collect_share, merge_corpus
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.machine import Share
from proxybyte.training.texts import records, tables
from proxybyte.training.texts import sources as readers
from proxybyte.training.texts.records import Document, TextRules


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def word(number: int, length: int) -> str:
    return "".join(f"line {n} of é text {number}\n" for n in range(length // 20 + 1))


@pytest.fixture
def sources(tmp_path) -> list[Path]:
    """A package tree, JSON lines with faults, plain and compressed, and a parquet file of many row groups."""
    tree = tmp_path / "tree"
    for package in range(6):
        (tree / f"package{package}").mkdir(parents=True)
        for number in range(4):
            text = word(number % 3 + 10 * package, 300 * (number + 1))  # the last is a duplicate of the first
            (tree / f"package{package}" / f"{number}.py").write_text(text)
    (tree / "package0" / "empty.py").touch()
    (tree / "package0" / "readme.md").write_text("passed over")
    lines = [json.dumps({"text": word(number, 50 * number), "repo": f"r{number % 7}"}) for number in range(40)]
    lines[7], lines[9] = "no json", json.dumps({"text": "", "repo": "r1"})
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:20]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines[15:], "[1"]).encode()))
    table = pa.table({"text": [word(number, 400) for number in range(60)], "repo": [f"p{n % 9}" for n in range(60)]})
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=7)
    return [tree, tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet"]


@pytest.fixture
def small_parts(monkeypatch):
    """So that these small sources are cut too."""
    for module in (records, tables, readers):
        monkeypatch.setattr(module, "PART_BYTES", 3000)


def options_of(sources: list[Path], output: Path, **more) -> CorpusOptions:
    rule = SplitRule(validation_share=0.1, max_bytes=20_000)
    return CorpusOptions(output, tuple(sources), split=rule, shard_bytes=15_000, **more)


@pytest.mark.parametrize("cut", [None, 250], ids=["whole", "cut"])
@pytest.mark.parametrize("key", [None, "repo"])
@pytest.mark.parametrize("of", [3, 50])
def test_any_number_of_shards_gives_the_corpus_of_one_process(tmp_path, sources, small_parts, of, key, cut):
    if key:
        sources = sources[1:]
    how = {"rules": TextRules(key_column=key), "cut_bytes": cut}
    one = collect_corpus(options_of(sources, tmp_path / "one" / "out", **how))
    options = options_of(sources, tmp_path / "many" / "out", **how)
    done = [collect_share(options, Share(index, of)) for index in reversed(range(of))]
    assert sum(each.parts for each in done) > 10
    many = merge_corpus(options)
    assert many == one
    assert one.duplicates.documents > 0 and one.over_cap.documents > 0 and one.validation.documents > 0
    assert content(options.output) == content(tmp_path / "one" / "out")
    verify_folder(options.output)
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["out"]


def test_parts_of_a_source_yield_what_it_yields(sources, small_parts):
    from proxybyte.training.texts.sources import open_path

    for path in sources:
        reader = open_path(path, (".py",), TextRules())
        parts = reader.parts()
        whole = list(reader.read(lambda _: None))
        assert [item for part in parts for item in part.read(lambda _: None)] == whole
        assert len({part.identity() for part in parts}) == len(parts)
        if path.suffix in ("", ".parquet"):
            assert len(parts) > 3
            sizes = [
                sum(len(item.text) for item in part.read(lambda _: None) if isinstance(item, Document))
                for part in parts
            ]
            assert max(sizes) < sum(sizes) / 2


def test_the_corpus_of_the_command_line_is_prepared_by_shards(tmp_path, sources, capsys):
    words = ["corpus", *map(str, sources), "--out", str(tmp_path / "out")]
    assert main(["corpus", *map(str, sources), "--out", str(tmp_path / "one" / "out")]) == 0
    for index in (1, 0):
        assert main([*words, "--shard", f"{index}/2"]) == 0
        assert f"shard {index}/2: " in capsys.readouterr().out
    assert main([*words, "--merge"]) == 0
    assert content(tmp_path / "out") == content(tmp_path / "one" / "out")
    assert read_record(tmp_path / "out") == read_record(tmp_path / "one" / "out")


def test_shards_of_other_numbers_count_and_a_changed_source_is_read_again(tmp_path, sources, small_parts):
    options = options_of(sources, tmp_path / "out")
    collect_share(options, Share(1, 2))
    assert collect_share(options, Share(1, 2)).read == 0
    collect_share(options, Share(0, 5))
    left = [collect_share(options, Share(index, 3)) for index in range(3)]
    assert sum(each.kept for each in left) > sum(each.parts for each in left) / 2
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "another"}))
    with pytest.raises(ProxyByteError, match=r"1 of .* parts of the sources are not read"):
        merge_corpus(options)
    assert sum(collect_share(options, Share(index, 3)).read for index in range(3)) == len("another")
    merge_corpus(options)
    collect_corpus(options_of(sources, tmp_path / "one" / "out"))
    assert content(tmp_path / "out") == content(tmp_path / "one" / "out")


def test_a_killed_shard_is_done_again_and_no_other(tmp_path):
    paths = []
    for number in range(24):
        paths.append(tmp_path / f"{number:02d}.jsonl")
        paths[-1].write_text("".join(json.dumps({"text": f"{number} {n} " * 20}) + "\n" for n in range(1500)))
    words = [sys.executable, "-m", "proxybyte.cli", "corpus", *map(str, paths), "--out", str(tmp_path / "out")]
    work = tmp_path / "out.shards"
    options = CorpusOptions(tmp_path / "out", tuple(paths))
    collect_share(options, Share(0, 2))
    others = {path: path.stat().st_mtime_ns for path in work.glob("*.json")}
    process = subprocess.Popen([*words, "--shard", "1/2"], stdout=subprocess.DEVNULL)
    while len(list(work.glob("*.json"))) < len(others) + 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in work.glob("*.json")}
    assert len(before) < 24
    again = collect_share(options, Share(1, 2))
    assert again.kept == len(before) - len(others)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in work.glob("*.json")}.items()
    merge_corpus(options)
    collect_corpus(CorpusOptions(tmp_path / "one" / "out", tuple(paths)))
    assert content(tmp_path / "out") == content(tmp_path / "one" / "out")


def test_nobody_merges_while_a_shard_is_at_work(tmp_path, sources):
    collect_share(options_of(sources, tmp_path / "out"), Share())
    words = [sys.executable, "-m", "proxybyte.cli", "corpus", *map(str, sources), "--out", str(tmp_path / "out")]
    with hold(tmp_path / "out.shards" / "shard-7-of-9"):
        done = subprocess.run([*words, "--merge"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and f"is being written by process {os.getpid()}" in done.stderr


def test_a_part_that_was_altered_is_noticed(tmp_path, sources):
    options = options_of(sources, tmp_path / "out")
    collect_share(options, Share())
    part = sorted((tmp_path / "out.shards").glob("*.parquet"))[-1]
    table = pq.read_table(part)
    pq.write_table(table.set_column(0, "text", [pa.array([b"x"] * len(table), pa.large_binary())]), part)
    with pytest.raises(ProxyByteError, match="changed meanwhile"):
        merge_corpus(options)
    assert not (tmp_path / "out").exists()
    assert collect_share(options, Share()).read > 0
    merge_corpus(options)
