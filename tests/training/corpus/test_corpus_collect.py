"""The corpus folder: equal content from every kind of source, atomic, and the command line's errors."""

import gzip
import json
import os
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus import CorpusOptions, CorpusReport, collect_corpus, read_report
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.texts.records import MEGABYTE, TextRules
from proxybyte.training.texts.tables import DatasetName

HALF = SplitRule(validation_share=0.5)


def records() -> list[dict[str, str]]:
    draw = random.Random(0)
    texts = [draw.choice("abcé\n") * draw.randint(1, 400) + str(number) for number in range(60)]
    return [{"text": text, "package": f"p{number % 7}"} for number, text in enumerate([*texts, texts[0], texts[0]])]


def read_corpus(folder: Path) -> dict[str, list[bytes]]:
    return {
        split: [text for path in sorted(folder.glob(f"{split}-*")) for text in pq.read_table(path)["text"].to_pylist()]
        for split in ("train", "validation")
    }


def write_folder(root: Path, rows: list[dict[str, str]]) -> Path:
    for number, row in enumerate(rows):
        path = root / "tree" / row["package"] / f"f{number:03}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["text"].encode())
    return root / "tree"


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(content))
    return path


def write_parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(sink.getvalue().to_pybytes()))
    return path


def collect(output: Path, *paths: Path, **options) -> CorpusReport:
    options.setdefault("split", HALF)
    return collect_corpus(CorpusOptions(output, paths, **options))


def test_every_kind_of_source_gives_the_same_corpus(tmp_path):
    rows = records()
    by_key = TextRules(key_column="package")
    collect(tmp_path / "expected", write_folder(tmp_path, rows))
    expected = {split: sorted(texts) for split, texts in read_corpus(tmp_path / "expected").items()}
    assert set(expected["train"]) | set(expected["validation"]) == {row["text"].encode() for row in rows}
    for name in ("a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.parquet.gz", "a.parquet.zst"):
        write = write_parquet if "parquet" in name else write_lines
        collect(tmp_path / f"from-{name}", write(tmp_path / name, rows), rules=by_key)
        assert {split: sorted(texts) for split, texts in read_corpus(tmp_path / f"from-{name}").items()} == expected, (
            name
        )


def test_dataset_by_name_and_saved_dataset_give_the_same_corpus(tmp_path):
    rows = records()
    by_key = TextRules(key_column="package")
    collect(tmp_path / "expected", write_lines(tmp_path / "a.jsonl", rows), rules=by_key)
    (tmp_path / "named").mkdir()
    write_parquet(tmp_path / "named" / "train.parquet", rows)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    for name in ("named", "saved"):
        collect(tmp_path / f"from-{name}", dataset=DatasetName(str(tmp_path / name)), rules=by_key)
        assert read_corpus(tmp_path / f"from-{name}") == read_corpus(tmp_path / "expected")


def test_duplicates_are_dropped_and_counted_across_sources(tmp_path):
    rows = records()
    paths = [write_lines(tmp_path / f"{name}.jsonl", rows) for name in "ab"]
    report = collect(tmp_path / "corpus", *paths)
    texts = [text for split in read_corpus(tmp_path / "corpus").values() for text in split]
    assert len(texts) == len(set(texts)) == 60
    assert report.duplicates.documents == 2 * len(rows) - 60
    assert report.train.documents + report.validation.documents == 60


def test_no_package_is_in_both_splits(tmp_path):
    report = collect(tmp_path / "corpus", write_folder(tmp_path, records()))
    packages = {
        split: {
            source.partition("/")[0]
            for path in (tmp_path / "corpus").glob(f"{split}-*")
            for source in pq.read_table(path)["source"].to_pylist()
        }
        for split in ("train", "validation")
    }
    assert packages["train"] and packages["validation"]
    assert not packages["train"] & packages["validation"]
    assert report.validation_packages == sorted(packages["validation"])
    assert (report.packages, report.packages_held_out) == (7, len(packages["validation"]))


def test_written_shards_follow_the_contract_and_are_bounded(tmp_path):
    (tmp_path / "tree").mkdir()
    for number in range(30):
        (tmp_path / "tree" / f"f{number:02}.py").write_bytes(os.urandom(500_000))
    report = collect(tmp_path / "corpus", tmp_path / "tree", shard_bytes=5 * MEGABYTE, split=SplitRule(0.1))
    shards = sorted(path.name for path in (tmp_path / "corpus").glob("*.parquet"))
    assert shards == ["train-00000.parquet", "train-00001.parquet", "validation-00000.parquet"]
    assert report.train.shards == 2
    for path in (tmp_path / "corpus").glob("*.parquet"):
        table = pq.read_table(path)
        assert table.schema.equals(pa.schema([("text", pa.large_binary()), ("source", pa.string())]))
        assert table["text"].nbytes < 9 * MEGABYTE
    assert read_report(tmp_path / "corpus") == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "tree"]


def test_without_validation_share_there_is_no_validation_shard(tmp_path):
    report = collect(tmp_path / "corpus", write_folder(tmp_path, records()), split=SplitRule(0.0))
    assert report.validation.shards == 0
    assert [path.name for path in (tmp_path / "corpus").glob("*.parquet")] == ["train-00000.parquet"]


def test_same_input_gives_the_same_bytes(tmp_path):
    tree = write_folder(tmp_path, records())
    for name in ("one", "two"):
        collect(tmp_path / name, tree)
    for path in (tmp_path / "one").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_bad_lines_are_counted_and_the_first_ones_listed(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n' + b"broken\n" * 7 + b'{"text": ""}\n{"text": "c"}\n')
    report = collect(tmp_path / "corpus", path, examples=3)
    assert report.left_out == {"broken JSON": 7, "empty text": 1}
    assert report.examples == [
        f"lines.jsonl:{number}: broken JSON (Expecting value at column 1)" for number in (3, 4, 5)
    ]
    assert report.train.documents + report.validation.documents == 3


def test_strict_stops_at_the_first_fault_and_writes_nothing(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n{"text": "\\ud800"}\nbroken\n')
    with pytest.raises(ProxyByteError, match=r"lines\.jsonl:3: lone surrogate"):
        collect(tmp_path / "corpus", path, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl"]


def test_strict_accepts_the_empty_files_of_an_ordinary_source_tree(tmp_path):
    tree = write_folder(tmp_path, records())
    (tree / "p0" / "__init__.py").touch()
    assert collect(tmp_path / "corpus", tree, strict=True).left_out == {"empty file": 1}


def test_earlier_corpus_is_replaced_only_when_asked_and_anything_else_never(tmp_path):
    tree = write_folder(tmp_path, records())
    collect(tmp_path / "corpus", tree)
    with pytest.raises(ProxyByteError, match="--overwrite"):
        collect(tmp_path / "corpus", tree, cut_bytes=100)
    (tmp_path / "corpus" / "train-00007.parquet").touch()
    with pytest.raises(ProxyByteError, match=r"did not write \(train-00007\.parquet\)"):
        collect(tmp_path / "corpus", tree)
    with pytest.raises(ProxyByteError, match=r"did not write \(train-00007\.parquet\)"):
        collect(tmp_path / "corpus", tree, overwrite=True)
    (tmp_path / "corpus" / "train-00007.parquet").unlink()
    collect(tmp_path / "corpus", tree, overwrite=True)
    with pytest.raises(ProxyByteError, match="no earlier output of kind 'corpus'"):
        collect(tree, tree, overwrite=True)
    assert len(list(tree.rglob("*.py"))) == len(records())


def test_the_same_command_with_the_same_text_leaves_the_corpus_as_it_is(tmp_path):
    tree = write_folder(tmp_path, records())
    first = collect(tmp_path / "corpus", tree)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").iterdir()}
    shard = (tmp_path / "corpus" / "train-00000.parquet").read_bytes()
    assert collect(tmp_path / "corpus", tree) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").iterdir()} == before
    (tmp_path / "corpus" / "train-00000.parquet").write_bytes(shard + b"x")
    with pytest.raises(ProxyByteError, match=r"train-00000\.parquet is not what was written"):
        collect(tmp_path / "corpus", tree)
    collect(tmp_path / "corpus", tree, overwrite=True)
    assert (tmp_path / "corpus" / "train-00000.parquet").read_bytes() == shard


@pytest.mark.parametrize("change", ["text", "name", "one more that is left out"])
def test_the_same_command_with_another_text_needs_overwrite(tmp_path, change):
    tree = write_folder(tmp_path, records())
    collect(tmp_path / "corpus", tree)
    file = sorted(tree.rglob("*.py"))[0]
    if change == "text":
        file.write_bytes(file.read_bytes()[::-1])
    elif change == "name":
        file.rename(file.with_name("f.py"))
    else:
        (tree / "p1" / "empty.py").touch()
    with pytest.raises(ProxyByteError, match=r"holds another corpus already.*--overwrite"):
        collect(tmp_path / "corpus", tree)


@pytest.mark.parametrize("change", ["edit the first", "remove the first", "remove the last"])
def test_source_that_changes_between_the_passes_is_noticed(tmp_path, monkeypatch, change):
    from proxybyte.training.corpus import collect as module

    tree = write_folder(tmp_path, records()[:60])
    files = sorted(tree.rglob("*.py"))

    def decide_and_change(*arguments):
        path = files[-1 if "last" in change else 0]
        path.write_text("changed") if "edit" in change else path.unlink()
        return decide(*arguments)

    decide = module.decide
    monkeypatch.setattr(module, "decide", decide_and_change)
    with pytest.raises(ProxyByteError, match="meanwhile: run again"):
        collect(tmp_path / "corpus", tree)
    assert not (tmp_path / "corpus").exists()


def test_working_folder_itself_can_be_the_output(tmp_path, monkeypatch):
    tree = write_folder(tmp_path, records())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    collect(Path(), tree)
    assert read_report(tmp_path / "here").train.documents


def test_cap_keeps_whole_packages(tmp_path):
    tree = write_folder(tmp_path, records())
    whole = collect(tmp_path / "all", tree, split=SplitRule(0.0))
    report = collect(tmp_path / "capped", tree, split=SplitRule(0.0, max_bytes=whole.train.bytes // 2))
    assert 0 < report.train.bytes <= whole.train.bytes // 2
    assert report.train.bytes + report.over_cap.bytes == whole.train.bytes
    kept = set(read_corpus(tmp_path / "capped")["train"])
    for package in tree.iterdir():
        inside = {
            path.read_bytes() in kept
            for path in package.iterdir()
            if path.read_bytes() != records()[0]["text"].encode()
        }
        assert len(inside) == 1


class TestCommandLine:
    def run(self, capsys, *arguments) -> tuple[int, str, str]:
        code = main(["corpus", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    def refused(self, capsys, *arguments) -> str:
        code, _, err = self.run(capsys, *arguments)
        assert code == 2
        (sentence,) = [line for line in err.splitlines() if line.startswith("proxybyte: ")]
        assert "Traceback" not in err
        return sentence

    def test_report_is_printed(self, tmp_path, capsys):
        tree = write_folder(tmp_path, records())
        code, out, _ = self.run(capsys, tree, "--out", tmp_path / "corpus", "--validation-share", "0.3")
        assert code == 0
        assert "exact duplicates             2  documents" in out
        assert (tmp_path / "corpus" / "corpus.json").is_file()

    def test_wrong_path(self, tmp_path, capsys):
        assert "nowhere does not exist" in self.refused(capsys, tmp_path / "nowhere", "--out", tmp_path / "c")

    def test_unknown_kind_of_file(self, tmp_path, capsys):
        (tmp_path / "a.csv").write_text("a")
        assert "neither a folder nor" in self.refused(capsys, tmp_path / "a.csv", "--out", tmp_path / "c")

    def test_no_source(self, tmp_path, capsys):
        assert "nothing to collect" in self.refused(capsys, "--out", tmp_path / "c")

    def test_dataset_that_does_not_exist(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert "cannot be loaded" in self.refused(capsys, "--dataset", tmp_path / "empty", "--out", tmp_path / "c")

    def test_unknown_split_of_a_saved_dataset(self, tmp_path, capsys):
        datasets.DatasetDict({"training": datasets.Dataset.from_list(records())}).save_to_disk(tmp_path / "saved")
        sentence = self.refused(capsys, "--dataset", tmp_path / "saved", "--out", tmp_path / "c")
        assert "no split 'train'; did you mean 'training'?" in sentence

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    def test_unknown_column_gives_the_nearest_name(self, tmp_path, capsys, name):
        path = (write_lines if name == "a.jsonl" else write_parquet)(tmp_path / name, records())
        for option, column in (("--text-column", "texts"), ("--key-column", "packages")):
            sentence = self.refused(capsys, path, option, column, "--out", tmp_path / "c")
            assert f"{path} has no column '{column}'; did you mean '{column[:-1]}'?" in sentence

    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.parquet.gz", "a.parquet.zst"])
    def test_damaged_file(self, tmp_path, capsys, name):
        path = (write_parquet if "parquet" in name else write_lines)(tmp_path / name, records())
        path.write_bytes(path.read_bytes()[:-30])
        sentence = self.refused(capsys, path, "--out", tmp_path / "c")
        assert str(path) in sentence
        assert "cannot be read" in sentence

    def test_strict(self, tmp_path, capsys):
        (tmp_path / "a.jsonl").write_text('{"text": "a"}\nbroken\n')
        sentence = self.refused(capsys, tmp_path / "a.jsonl", "--strict", "--out", tmp_path / "c")
        assert "a.jsonl:2: broken JSON" in sentence

    def test_source_without_a_single_document(self, tmp_path, capsys):
        (tmp_path / "a.jsonl").write_text("broken\n")
        assert "hold no document" in self.refused(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "c")

    def test_key_column_for_a_folder(self, tmp_path, capsys):
        tree = write_folder(tmp_path, records())
        assert "--key-column is for tables" in self.refused(
            capsys, tree, "--key-column", "package", "--out", tmp_path / "c"
        )


@pytest.mark.parametrize("packages", [False, True])
def test_what_is_passed_over_is_counted_by_ending(tmp_path, monkeypatch, capsys, packages):
    tree = write_folder(tmp_path, records())
    for name in ("p0/a.md", "p1/b.md", "p1/LICENSE", "p1/c.tar.gz", "p1/.git/x", "p2/__pycache__/y.pyc"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("x")
    expected = {".md": 2, "without suffix": 1, ".tar.gz": 1, ".git/": 1, "__pycache__/": 1}
    if packages:
        monkeypatch.setattr("proxybyte.training.texts.sources.python_roots", lambda: [tree])
    assert main(["corpus", *(["--python-packages"] if packages else [str(tree)]), "--out", str(tmp_path / "c")]) == 0
    assert read_report(tmp_path / "c").passed_over == expected
    said = capsys.readouterr().out
    assert "passed over                  4  files: 2 .md, 1 .tar.gz, 1 without suffix" in said
    assert "passed over                  2  folders: 1 .git/, 1 __pycache__/" in said


def test_the_share_of_documents_and_both_mean_sizes_are_printed(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{number:04}" * (1 + number % 2)}) + "\n" for number in range(100)))
    assert main(["corpus", str(path), "--validation-share", "0.1", "--out", str(tmp_path / "c")]) == 0
    report = read_report(tmp_path / "c")
    texts = read_corpus(tmp_path / "c")
    means = {split: round(sum(map(len, its)) / len(its)) for split, its in texts.items()}
    said = capsys.readouterr().out
    assert f"{len(texts['validation']) / 100:.2%} of documents" in said
    assert f"mean size         {means['train']:>12,}  bytes in train, {means['validation']:,} in validation" in said
    assert report.validation.documents == len(texts["validation"])


def test_a_table_in_a_folder_is_read_row_by_row(tmp_path):
    rows = records()
    (tmp_path / "tables").mkdir()
    write_lines(tmp_path / "tables" / "a.jsonl.gz", rows[:30])
    write_parquet(tmp_path / "tables" / "b.parquet", rows[30:])
    (tmp_path / "tables" / "c.txt.gz").write_bytes(gzip.compress(b"a text that is no table"))
    collect(tmp_path / "c", tmp_path / "tables", suffixes=(".jsonl.gz", ".parquet", ".txt.gz"))
    texts = [text for its in read_corpus(tmp_path / "c").values() for text in its]
    assert sorted(texts) == sorted({*(row["text"].encode() for row in rows), b"a text that is no table"})


def test_a_text_file_is_one_document_and_an_earlier_corpus_is_no_source(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two"))
    collect(tmp_path / "c", tmp_path / "a.txt", tmp_path / "b.txt.gz", split=SplitRule(0.0))
    assert read_corpus(tmp_path / "c")["train"] == [b"one", b"two"]
    with pytest.raises(ProxyByteError, match="name what it was collected from"):
        collect(tmp_path / "d", tmp_path / "c")
