"""Little that becomes much: archives, nesting, aliases. A limit with a message, and no memory taken meanwhile."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxybyte.cli import main

MEGABYTE = 1 << 20
UNPACKED = 512 * MEGABYTE
MAY_GROW = 384 * MEGABYTE
"""Address space beyond what a command has at its start: less than any of these become."""


def packed_zeros(kind: str, path: Path) -> None:
    """One letter again and again: a line without an end."""
    block = b"x" * (64 * MEGABYTE)
    if kind == "gz":
        path.write_bytes(gzip.compress(block) * (UNPACKED // len(block)))  # members that follow each other
    else:
        with zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=3)) as file:
            for _ in range(UNPACKED // len(block)):
                file.write(block)


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", ["lines.jsonl", "document.txt"])
def test_an_archive_of_a_few_kilobytes_that_becomes_much_is_a_counted_skip(kind, name, server, tmp_path):
    bomb = tmp_path / "in" / f"{name}.{kind}"
    bomb.parent.mkdir()
    packed_zeros(kind, bomb)
    assert bomb.stat().st_size < 4 * MEGABYTE
    (tmp_path / "in" / "good.jsonl").write_text('{"text": "good"}\n')
    words = ["corpus", str(bomb.parent), "--suffixes", f".{kind},.jsonl", "--out", str(tmp_path / "out")]
    code, said = server.run([*words, "--validation-share", "0"], memory_bytes=MAY_GROW)
    assert code == 0, said
    report = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert report["train"]["documents"] == 1
    assert report["left_out"] == {"too long": 1}


def test_a_parquet_page_that_says_it_is_huge_is_refused_or_left_out(server, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["x" * (100 * MEGABYTE), "good"]}), path, compression="zstd")
    assert path.stat().st_size < MEGABYTE
    words = ["corpus", str(path), "--out", str(tmp_path / "out"), "--validation-share", "0"]
    code, said = server.run(words)
    assert code == 0, said
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["left_out"] == {"too long": 1}


ALIASES = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
ALIASES += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
"""Of YAML: 10^12 values in a kilobyte."""


@pytest.mark.parametrize("words", [["train", "--config"], ["experiment", "run"]], ids=" ".join)
def test_aliases_that_become_billions_of_values_are_refused(words, server, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join(ALIASES))
    code, said = server.run([*words, str(path), *(["--out", str(tmp_path / "out")] if words[0] != "train" else [])])
    assert code == 2, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("proxybyte: ")]
    assert path.name in sentence
    assert len(sentence) < 1000


DEEP = ['{"a":' * 50_000, "[" * 50_000, "- " * 5_000, "a: {" * 5_000]


@pytest.mark.parametrize("text", DEEP, ids=lambda text: text[:3])
@pytest.mark.parametrize("words", [["train", "--config"], ["experiment", "run"]], ids=" ".join)
def test_settings_that_are_nested_too_deep_are_refused(words, text, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert main([*words, str(path), *(["--out", str(tmp_path / "out")] if words[0] != "train" else [])]) == 2
    assert path.name in capsys.readouterr().err


def test_a_header_of_safetensors_that_says_it_is_huge_is_refused(inputs, tmp_path, capsys):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(inputs.folder / "run" / "model", model)
    (model / "SHA256SUMS").unlink()
    for length in (2**63, 2**40, 2**31):
        (model / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
        assert main(["export", str(model), "--format", "native", "--out", str(tmp_path / "out")]) == 2
        assert str(model) in capsys.readouterr().err
