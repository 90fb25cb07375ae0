"""A table means one thing to every command that takes text."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxybyte.cli import main
from proxybyte.training.compressors import load_compressor
from proxybyte.training.texts import TextRules, TextSource

TEXTS = [f"def name_{number}(value):\n    return value + {number}\n" * 3 for number in range(40)]
ROWS = [{"body": text, "id": number} for number, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


TABLES = {
    f"rows{kind}{archive}": compress(content)
    for kind, content in {".jsonl": LINES, ".ndjson": LINES, ".JSONL": LINES, ".parquet": parquet()}.items()
    for archive, compress in {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}.items()
}


@pytest.fixture(params=["rows.jsonl", "rows.JSONL.gz", "rows.ndjson.zst", "rows.parquet", "rows.parquet.gz"])
def table(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(TABLES[request.param])
    return path


def test_fit_and_report_read_its_rows_and_not_its_syntax(table, tmp_path, capsys):
    out = str(tmp_path / "bpe")
    column = ["--text-column", "body"]
    words = ["compressor", "fit", "bpe", "--corpus", str(table), *column, "--symbols", "400", "--out", out]
    assert main(words) == 0
    total = sum(len(text) for text in TEXTS)
    assert f"from {total:,} bytes" in capsys.readouterr().out
    # The syntax of the rows would be the most frequent text of all.
    assert not any(b'":' in (piece or b"") or b"\\n" in (piece or b"") for piece in load_compressor(out).spelled)
    report = ["compressor", "report", "gzip", "--corpus", str(table), *column, "--samples", "0"]
    assert main(report) == 0
    assert f"{total:,} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("name", TABLES)
def test_every_ending_gives_the_same_documents(name, tmp_path):
    (tmp_path / name).write_bytes(TABLES[name])
    assert list(TextSource([tmp_path / name], rules=TextRules("body")).read()) == [text.encode() for text in TEXTS]


def test_a_corpus_of_it_holds_the_same_documents(table, tmp_path):
    words = ["corpus", str(table), "--text-column", "body", "--validation-share", "0", "--out", str(tmp_path / "c")]
    assert main(words) == 0
    assert list(TextSource([tmp_path / "c"]).read()) == [text.encode() for text in TEXTS]


def test_a_prepared_folder_is_read_as_its_documents(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    words = ["corpus", str(tmp_path / "rows.jsonl"), "--text-column", "body", "--out", str(tmp_path / "c")]
    assert main(words) == 0
    assert main(["prepare", str(tmp_path / "c"), "--compressor", "gzip", "--out", str(tmp_path / "p")]) == 0
    for split in ("train", "validation"):
        expected = list(TextSource([tmp_path / "c"], split=split).read())
        assert list(TextSource([tmp_path / "p"], split=split).read()) == expected


def test_a_limit_in_bytes_and_what_is_left_out_are_the_same_for_all(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n\n{"text": null}\nbroken\n{"text": "' + b"x" * 3000 + b'"}\n')
    words = ["compressor", "report", "gzip", "--samples", "0", "--corpus", str(path), "--max-document-mb", "0.002"]
    with caplog.at_level("INFO"):
        assert main(words) == 0
    said = [" ".join(record.getMessage().split()) for record in caplog.records]
    assert said[:3] == ["left out 1 broken JSON", "left out 1 text is no string", "left out 1 too long"]
