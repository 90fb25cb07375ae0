"""Sources and outputs on an S3 server of this machine (moto's), through fsspec: what they are on a disk."""

import gzip
import json
import logging
import os
from pathlib import Path

import pytest

pytest.importorskip("moto.server", reason="the tests of s3:// need the extra 'dev'")
pytest.importorskip("s3fs", reason="the tests of s3:// need the extra 'scale'")

import datasets
import fsspec
from moto.server import ThreadedMotoServer

from proxybyte.checksums import verify_folder
from proxybyte.cli import main
from proxybyte.training.prepare import read_manifest


@pytest.fixture(scope="module")
def server():
    """An S3 server, and the environment by which s3fs, here and in started processes, finds it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield moto
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    moto.stop()


@pytest.fixture
def bucket(server, tmp_path):
    """A new bucket, and its file system."""
    system = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    name = f"bucket-{abs(hash(str(tmp_path))):x}"
    system.mkdir(name)
    return system, name


@pytest.fixture
def text(tmp_path) -> Path:
    """A package tree and tables."""
    folder = tmp_path / "text"
    for package in range(5):
        (folder / f"p{package}").mkdir(parents=True)
        for number in range(3):
            (folder / f"p{package}" / f"{number}.py").write_text(f"def f{package}{number}(): return 'é'\n" * 40)
    (folder / "p0" / "notes.md").write_text("passed over")
    lines = "".join(json.dumps({"text": f"row {number} " * 30}) + "\n" for number in range(50))
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.replace("row", "line").encode()))
    table = datasets.Dataset.from_dict({"text": [f"cell {number} " * 30 for number in range(50)]})
    table.to_parquet(str(folder / "c.parquet"))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "prepared.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def got(system, url: str, folder: Path) -> Path:
    system.get(url, str(folder), recursive=True)
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_corpus_of_sources_on_s3_is_that_of_the_same_files_here(bucket, text, tmp_path, capsys):
    system, name = bucket
    system.put(str(text), f"{name}/text", recursive=True)
    here = [text / "p0", text / "a.jsonl", text / "b.jsonl.gz", text / "c.parquet"]
    there = [f"s3://{name}/text/{path.name}" for path in here]
    assert run("corpus", *here, "--out", tmp_path / "here" / "corpus") == 0
    assert run("corpus", *there, "--out", tmp_path / "there" / "corpus") == 0
    assert content(tmp_path / "there") == content(tmp_path / "here")
    said = capsys.readouterr().out
    assert said.count("files: 1 .md") == 2

    assert run("corpus", f"s3://{name}/text/*.jsonl*", "--out", tmp_path / "globbed" / "corpus") == 0
    assert run("corpus", *here[1:3], "--out", tmp_path / "listed" / "corpus") == 0
    assert content(tmp_path / "globbed") == content(tmp_path / "listed")
    for index in range(2):
        assert run("corpus", *there, "--out", tmp_path / "shared" / "corpus", "--shard", f"{index}/2") == 0
    assert run("corpus", *there, "--out", tmp_path / "shared" / "corpus", "--merge") == 0
    assert content(tmp_path / "shared") == content(tmp_path / "here")


def test_corpus_and_prepare_write_to_s3_what_they_write_here(bucket, text, tmp_path, capsys):
    system, name = bucket
    url = f"s3://{name}/lake"
    words = ["corpus", text / "a.jsonl", text / "b.jsonl.gz", "--validation-share", "0.2"]
    assert run(*words, "--out", tmp_path / "corpus") == 0
    assert run(*words, "--out", f"{url}/corpus") == 0
    assert content(got(system, f"{name}/lake/corpus", tmp_path / "got-corpus")) == content(tmp_path / "corpus")
    assert run(*words, "--out", f"{url}/corpus") == 2
    assert "holds a corpus already" in capsys.readouterr().err

    assert (
        run("compressor", "fit", "bpe", "--corpus", tmp_path / "corpus", "--symbols", 300, "--out", tmp_path / "bpe")
        == 0
    )
    system.put(str(tmp_path / "bpe"), f"{name}/lake/bpe", recursive=True)
    assert run("prepare", tmp_path / "corpus", "--compressor", tmp_path / "bpe", "--out", tmp_path / "out") == 0
    from_there = ["prepare", f"{url}/corpus", "--compressor", f"{url}/bpe"]
    assert run(*from_there, "--out", tmp_path / "from-there") == 0
    assert content(tmp_path / "from-there") == content(tmp_path / "out")

    assert run(*from_there, "--out", f"{url}/out", "--shard", "0/2") == 0
    assert run(*from_there, "--out", f"{url}/out", "--merge") == 2
    assert "pieces are not encoded" in capsys.readouterr().err
    assert run(*from_there, "--out", f"{url}/out", "--shard", "1/2") == 0
    assert run(*from_there, "--out", f"{url}/out", "--shard", "0/2") == 0
    assert "0.0 MB encoded" in capsys.readouterr().out
    assert run(*from_there, "--out", f"{url}/out", "--merge") == 0
    out = got(system, f"{name}/lake/out", tmp_path / "got-out")
    assert content(out) == content(tmp_path / "out")
    verify_folder(out)
    assert read_manifest(out).fingerprint == read_manifest(tmp_path / "out").fingerprint
    assert system.find(f"{name}/lake/out.partial") == []

    assert run("prepare", tmp_path / "corpus", "--compressor", "gzip", "--out", tmp_path / "gz") == 0
    assert run("prepare", f"{url}/corpus", "--compressor", "gzip", "--out", f"{url}/out", "--workers", 2) == 0
    replaced = got(system, f"{name}/lake/out", tmp_path / "got-gz")
    assert content(replaced) == content(tmp_path / "gz")


def test_what_is_something_else_on_s3_is_not_replaced(bucket, text, tmp_path, capsys):
    system, name = bucket
    system.pipe(f"{name}/mine/notes.txt", b"keep")
    assert run("corpus", text / "a.jsonl", "--out", f"s3://{name}/mine") == 2
    assert run("corpus", text / "a.jsonl", "--out", tmp_path / "corpus") == 0
    assert run("prepare", tmp_path / "corpus", "--compressor", "gzip", "--out", f"s3://{name}/mine") == 2
    assert capsys.readouterr().err.count("it will not be replaced") == 2
    assert system.cat(f"{name}/mine/notes.txt") == b"keep"


def test_what_is_not_there_is_one_sentence(bucket, tmp_path, capsys):
    _, name = bucket
    assert run("corpus", f"s3://{name}/nothing.jsonl", "--out", tmp_path / "corpus") == 2
    assert run("corpus", f"s3://{name}/*.jsonl", "--out", tmp_path / "corpus") == 2
    assert run("prepare", f"s3://{name}/nothing", "--compressor", "gzip", "--out", tmp_path / "out") == 2
    assert run("corpus", "nonsense://a/b", "--out", tmp_path / "corpus") == 2
    said = capsys.readouterr().err
    for words in ("does not exist", "matches nothing", "is no corpus folder", "is no place"):
        assert words in said
    assert "Traceback" not in said
