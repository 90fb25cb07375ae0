"""``proxybyte compressor fit`` and ``report``, and the text that both read, as a user meets them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import FAMILIES, encode_one, load_compressor
from proxybyte.training.compressors.bpe_train import Split
from proxybyte.training.compressors.token_bytes import Order, TokenBytesCompressor
from proxybyte.training.texts import TextSource


@pytest.fixture
def corpus(tmp_path, sources, held_out) -> Path:
    """A corpus folder as docs/architecture.md describes it."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    schema = pa.schema([("text", pa.large_binary()), ("source", pa.string())])
    for name, documents in [
        ("train-00000", sources[:20]),
        ("train-00001", [*sources[20:25], b"\xff\xfe"]),
        ("validation-00000", held_out),
    ]:
        table = pa.table({"text": documents, "source": [name] * len(documents)}, schema=schema)
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def test_a_corpus_folder_is_read_by_split_in_order(corpus, sources, held_out):
    assert list(TextSource([corpus]).read()) == [*sources[:25], b"\xff\xfe"]
    assert list(TextSource([corpus], split="validation").read()) == held_out
    assert list(TextSource([corpus / "train-00001.parquet"]).read()) == [*sources[20:25], b"\xff\xfe"]


def test_reading_stops_after_the_document_that_passes_the_limit(corpus, sources):
    read = list(TextSource([corpus], max_bytes=len(sources[0]) + 1).read())
    assert read == sources[:2]


def test_a_folder_of_files_is_read_without_hidden_empty_and_compiled_ones(tmp_path):
    for name, content in [("b.py", b"b"), ("a/c.txt", b"c"), (".git/x", b"x"), ("__pycache__/y", b"y"), ("e", b"")]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert list(TextSource([tmp_path], suffixes=(".py", ".txt", "e")).read()) == [b"b", b"c"]


def test_paths_that_hold_no_text_are_refused_by_name(tmp_path, corpus):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not")
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "nothing").mkdir()
    for path, message in [
        (tmp_path / "absent", "absent does not exist: no such file"),
        (tmp_path / "broken.parquet", r"broken\.parquet cannot be read"),
        (tmp_path / "other.parquet", "no column 'text'; there are: content"),
        (tmp_path / "nothing", "nothing .* holds no file with text"),
    ]:
        with pytest.raises(ProxyByteError, match=message):
            list(TextSource([path]).read())
    with pytest.raises(ProxyByteError, match=r"no test-\*\.parquet"):
        list(TextSource([corpus], split="test").read())


def test_fit_token_bytes_and_report_from_the_command_line(corpus, tmp_path, capsys, held_out):
    fitted, gray = str(tmp_path / "bpe"), str(tmp_path / "gray")
    assert main(["compressor", "fit", "bpe", "--corpus", str(corpus), "--symbols", "700", "--out", fitted]) == 0
    assert "bpe-700-code: 700 symbols" in (said := capsys.readouterr().out) and "1 documents are not UTF-8" in said
    assert main(["compressor", "fit", "token-bytes", "--tokenizer", fitted, "--order", "gray", "--out", gray]) == 0
    assert "700 tokens as 2 bytes each" in capsys.readouterr().out
    one, other = encode_one(load_compressor(fitted), held_out[0]), encode_one(load_compressor(gray), held_out[0])
    assert len(other) == 2 * len(one)
    command = ["compressor", "report", "gzip", fitted, gray, "--corpus", str(corpus)]
    assert main([*command, "--samples", "20", "--characters", "80", "--out", str(tmp_path / "report")]) == 0
    table = capsys.readouterr().out
    assert all(f"\n{name} " in table for name in ("gzip", "bpe-700-code", "bpe-700-code-bytes-gray"))
    saved = json.loads((tmp_path / "report" / "report.json").read_text())
    assert saved["n_bytes"] == sum(map(len, held_out))


def test_the_report_tells_compressors_of_one_name_apart(corpus, tmp_path, capsys, trained):
    folders = [str(tmp_path / name) for name in ("one", "other")]
    for folder in folders:
        trained[Split.GPT2].save(Path(folder))
    assert main(["compressor", "report", *folders, "gzip", "--corpus", str(corpus), "--samples", "0"]) == 0
    table = capsys.readouterr().out
    assert all(f"\n{name} " in table for name in (*(f"bpe-1500-gpt2 ({folder})" for folder in folders), "gzip"))


def test_prepare_takes_every_family(corpus, tmp_path, trained):
    bpe = trained[Split.CODE]
    bpe.save(tmp_path / "bpe")
    TokenBytesCompressor(bpe, Order.GRAY).save(tmp_path / "token-bytes")
    for name in ("gzip", "bits-4", "bits-16", str(tmp_path / "bpe"), str(tmp_path / "token-bytes")):
        out = tmp_path / f"prepared-{Path(name).name}"
        assert main(["prepare", str(corpus), "--compressor", name, "--out", str(out), "--workers", "1"]) == 0
        carried = load_compressor(out / "compressor")
        assert carried.name == load_compressor(name).name
        rows = datasets.load_from_disk(str(out / "validation"))
        assert all(carried.decode(np.array(row["symbols"], dtype=np.int64)) == row["text"] for row in rows)


def test_the_limit_of_fit_is_in_megabytes_and_changes_what_is_learnt(corpus, tmp_path):
    ids = []
    for limit in ("0.01", "1"):
        out = str(tmp_path / limit)
        command = ["compressor", "fit", "bpe", "--corpus", str(corpus), "--symbols", "600", "--split", "gpt2"]
        assert main([*command, "--max-mb", limit, "--out", out]) == 0
        ids.append(encode_one(load_compressor(out), b"import asyncio, collections"))
    assert not np.array_equal(*ids)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["fit", "bpe", "--corpus", "CORPUS", "--symbols", "100", "--out", "OUT"], "at least 256 symbols"),
        (["fit", "bpe", "--corpus", "/no/such", "--out", "OUT"], "/no/such does not exist: no such file or folder"),
        (["fit", "token-bytes", "--tokenizer", "gzip", "--out", "OUT"], "gzip: is a gzip compressor"),
        (["fit", "token-bytes", "--tokenizer", "gzipp", "--out", "OUT"], "nearest name is 'gzip'"),
        (["report", "bits-3", "--corpus", "CORPUS"], "nearest name is 'bits-"),
        (["report", "gzip", "--corpus", "CORPUS", "--max-mb", "0"], "--max-mb must be above 0, not 0"),
        (["report", "gzip", "--corpus", "CORPUS", "--split", "tset"], "no tset-*.parquet"),
    ],
)
def test_mistakes_end_with_one_sentence_and_code_2(corpus, tmp_path, capsys, command, message):
    words = [{"CORPUS": str(corpus), "OUT": str(tmp_path / "out")}.get(word, word) for word in command]
    assert main(["compressor", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("proxybyte:")]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_help_lists_every_family_that_has_something_to_fit(capsys):
    with pytest.raises(SystemExit):
        main(["compressor", "fit", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name, family in FAMILIES.items() if family.fitter)
