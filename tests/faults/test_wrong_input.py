"""Wrong input: every option of every command with every kind of bad value, and files that are not what they should be.

Each ends with exit code 2, one sentence that names the option or the file, no traceback, and nothing written.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte.cli import build_parser, load_commands, main
from proxybyte.symbols import View

FREE_TEXT = {"--prompt", "--picture-from", "--device", "--launch", "--set", "overrides", "groups", "arguments", "name"}
"""What no type can judge: text itself, and what PyTorch, a shell or the settings read with a message of their own."""
NOT_NUMBERS = ["", " ", "abc", "1,5", "0x10", "nan", "inf", "-inf", "1e400"]
WHOLE = [*NOT_NUMBERS, "-1", "1.5", "9" * 5000, str(2**64)]
REAL = [*NOT_NUMBERS, "-1"]
NAMES = ["", " ", "a\0b", "caf\udce9"]


def leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command that takes options, with the words that call it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, sub in action.choices.items():
            yield from leaves(sub, (*words, name))
    if not below:
        yield words, parser


OPTIONS = [
    (words, action)
    for words, parser in leaves(build_parser(load_commands()))
    for action in parser._actions
    if action.nargs != 0 and action.choices is None
]


def label(action: argparse.Action) -> str:
    return next(iter(reversed(action.option_strings)), action.dest)


def accepts(action: argparse.Action, text: str) -> bool:
    try:
        action.type(text)
    except argparse.ArgumentTypeError:
        return False
    return True


def bad_values(action: argparse.Action) -> list[str]:
    if any(accepts(action, name) for name in ("some_name", "abc", "some/name")):
        return NAMES
    return REAL if accepts(action, "0.5") else WHOLE


def test_every_option_has_a_type_that_bounds_it():
    untyped = {label(action) for _, action in OPTIONS if action.type in (None, int, float, str, Path, View)}
    assert untyped <= FREE_TEXT
    assert len(OPTIONS) > 100


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, *words: str) -> str:
    """The one sentence with which the command line ends."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    (sentence,) = [line for line in err.splitlines() if line.startswith("proxybyte: ")]
    assert "Traceback" not in out + err
    sentence.encode("utf-8")
    return sentence


@pytest.mark.parametrize("words", sorted({words for words, _ in OPTIONS}), ids=" ".join)
def test_every_kind_of_bad_value_is_one_sentence_that_names_the_option(words, empty_folder, capsys, monkeypatch):
    # The parser is built once: what is tested is what it does with a value.
    parser = build_parser(load_commands())
    monkeypatch.setattr("proxybyte.cli.load_commands", dict)
    monkeypatch.setattr("proxybyte.cli.build_parser", lambda _: parser)
    before: list[str] = []
    for action in [action for its, action in OPTIONS if its == words and action.type is not None]:
        name = label(action) if action.option_strings else action.metavar or action.dest
        for value in bad_values(action):
            if label(action).startswith("--"):
                given = [f"{label(action)}={value}"]
            elif value.startswith("-"):
                continue  # argparse takes it for an option
            else:
                given = [*action.option_strings, value]
            sentence = refused(capsys, *words, *before, *given)
            assert name in sentence and " must " in sentence, (words, given, sentence)
        if not action.option_strings:
            before.append("x" if accepts(action, "x") else "x/x")
    assert not any(empty_folder.iterdir())


SIZES = ["0", "1e-9", "1e300"]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("corpus . --out o --max-mb", SIZES),
        ("corpus . --out o --shard-mb", SIZES),
        ("corpus . --out o --max-document-mb", SIZES),
        ("corpus . --out o --validation-share", ["1", "1.5"]),
        ("corpus . --out o --cut-bytes", ["0"]),
        ("corpus . --out o --suffixes", [",", "."]),
        ("compressor fit bpe --corpus . --out o --symbols", ["0", "1000000000", "4194305"]),
        ("compressor fit bpe --corpus . --out o --max-mb", SIZES),
        ("compressor compile m1 --out o --symbols", ["0", "1000000000"]),
        ("compressor fit neural --corpus . --out o --learning-rate", ["0"]),
        ("compressor fit neural --corpus . --out o --width", ["0", "1000000000"]),
        ("compressor report gzip --corpus . --max-mb", SIZES),
        ("eval bpb m --data d --limit", ["0"]),
        ("eval code m --temperature", ["1e308", "1e-45"]),
        ("eval code m --top-p", ["0", "1.5"]),
        ("eval code m --timeout", ["0", "1e300"]),
        ("eval code m --memory", ["0", str(2**62)]),
        ("eval transfer m --data d --max-bytes", ["0"]),
        ("generate m --temperature", ["1e308", "1e-45"]),
        ("generate m --max-new-bytes", ["0"]),
        ("prepare c --compressor gzip --out o --workers", ["1000000"]),
        ("info tiny-llama --heads", ["0", "100000"]),
        ("quickstart --out o --max-mb", SIZES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_out_of_bounds(words, values, empty_folder, capsys):
    for value in values:
        assert f"{words.split()[-1]} must " in refused(capsys, *words.split(), value)
    assert not any(empty_folder.iterdir())


DEEP = '{"text": ' + "[" * 10_000 + "]" * 10_000 + "}"


def write_files(folder: Path) -> None:
    """Files that hold no document, by what is wrong with them."""
    for name, content in {
        "deep.jsonl": DEEP,
        "null.jsonl": '{"text": null}',
        "broken.jsonl": '{"text": "a',
        "empty.jsonl": "",
        "blank.jsonl": "\n \n",
        "other.jsonl": '{"content": "a"}',
        "rows.csv": "text\na\n",
        "rows.json": '[{"text": "a"}]',
        "empty.txt": "",
        "cut.jsonl.gz": "\x1f\x8b",
        "empty.jsonl.zst": "",
        "broken.parquet": "PAR1",
    }.items():
        (folder / name).write_bytes(content.encode("latin-1"))
    pq.write_table(pa.table({"text": pa.nulls(3)}), folder / "null.parquet")
    pq.write_table(pa.table({"text": [["a"]]}), folder / "list.parquet")
    (folder / "folder").mkdir()
    (folder / "folder" / "a.md").write_text("text")
    (folder / "model").mkdir()  # looks like a model: texts are refused before one is loaded
    (folder / "model" / "config.json").write_text("{}")
    os.mkfifo(folder / "pipe.jsonl")


FILES = [
    "absent.jsonl", "deep.jsonl", "null.jsonl", "broken.jsonl", "empty.jsonl", "blank.jsonl", "other.jsonl", "rows.csv",
    "rows.json", "empty.txt", "cut.jsonl.gz", "empty.jsonl.zst", "broken.parquet", "null.parquet", "list.parquet",
    "folder", "pipe.jsonl",
]  # fmt: skip
READERS = {
    "corpus": ["corpus", "FILE", "--out", "out"],
    "fit bpe": ["compressor", "fit", "bpe", "--corpus", "FILE", "--out", "out"],
    "fit neural": ["compressor", "fit", "neural", "--corpus", "FILE", "--out", "out"],
    "report": ["compressor", "report", "gzip", "--corpus", "FILE", "--out", "out"],
    "eval bpb": ["eval", "bpb", "model", "--data", "FILE"],
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_without_a_document_is_one_sentence_that_names_it(reader, name, empty_folder, capsys):
    """The same sentence from every command that takes text."""
    write_files(empty_folder)
    before = sorted(path.name for path in empty_folder.iterdir())
    command = [name if word == "FILE" else word for word in READERS[reader]]
    sentence = refused(capsys, *command)
    assert name in sentence
    assert sorted(path.name for path in empty_folder.iterdir()) == before


@pytest.mark.parametrize("name", FILES)
def test_every_reader_gives_the_same_reason(name, empty_folder, capsys):
    write_files(empty_folder)
    sentences = {
        refused(capsys, *[name if word == "FILE" else word for word in READERS[reader]])
        for reader in ("fit bpe", "fit neural")
    }
    assert len(sentences) == 1


def test_json_that_is_nested_too_deep_where_settings_and_manifests_are_read(empty_folder, capsys):
    deep = "[" * 3_000 + "]" * 3_000
    (empty_folder / "compressor").mkdir()
    (empty_folder / "compressor" / "compressor.json").write_text(deep)
    (empty_folder / "deep.yaml").write_text(deep)
    (empty_folder / "tokenizer.json").write_text(deep)
    for words, name in {
        "compressor report compressor --corpus deep.yaml": "compressor.json",
        "compressor report tokenizer.json --corpus deep.yaml": "tokenizer.json",
        "train --config deep.yaml": "deep.yaml",
        "experiment run deep.yaml --out out": "deep.yaml",
    }.items():
        assert name in refused(capsys, *words.split())
    assert not (empty_folder / "out").exists()


def test_a_folder_with_a_file_whose_name_is_not_utf8_is_collected(empty_folder, capsys):
    source = os.fsencode(empty_folder) + b"/source"
    os.mkdir(source)  # noqa: PTH102
    for name in (b"caf\xe9.py", b"other.py", b"x.\xff"):
        with open(source + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(name)
    assert main(["corpus", "source", "--out", "out", "--validation-share", "0"]) == 0
    report = json.loads(Path("out/corpus.json").read_bytes())
    assert report["train"]["documents"] == 2
    assert report["passed_over"] == {".\N{REPLACEMENT CHARACTER}": 1}
