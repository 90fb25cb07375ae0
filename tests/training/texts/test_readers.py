"""Readers: every bad line is named, nothing good is lost, damaged files stop with one sentence."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxybyte.errors import ProxyByteError
from proxybyte.training.texts.jsonl import JsonLinesReader
from proxybyte.training.texts.records import Document, Reader, Reason, Skip, TextRules
from proxybyte.training.texts.sources import TreeReader, folder_reader, package_of, python_packages_reader, python_roots
from proxybyte.training.texts.tables import ParquetReader

GOOD = b'{"text": "good"}'


def read(reader: Reader) -> tuple[list[Document], list[Skip]]:
    items = list(reader.read(lambda _: None))
    return [item for item in items if isinstance(item, Document)], [item for item in items if isinstance(item, Skip)]


def jsonl(folder: Path, *lines: bytes, rules: TextRules | None = None) -> JsonLinesReader:
    path = folder / "lines.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return JsonLinesReader(path, rules or TextRules())


BAD_LINES = {
    "broken": (b'{"text": "a"', Reason.BROKEN_JSON),
    "half a string": (b'{"text": "a', Reason.BROKEN_JSON),
    "two objects": (b'{"text": "a"} {"text": "b"}', Reason.BROKEN_JSON),
    "nested too deep": (b"[" * 100_000, Reason.BROKEN_JSON),
    "endless integer": (b'{"text": ' + b"9" * 5_000 + b"}", Reason.BROKEN_JSON),
    "NUL bytes": (b"\0\0\0\0", Reason.BROKEN_JSON),
    "not UTF-8": (b'{"text": "\xff"}', Reason.NOT_UTF8),
    "a list": (b'["text"]', Reason.NOT_AN_OBJECT),
    "a string": (b'"text"', Reason.NOT_AN_OBJECT),
    "missing column": (b'{"body": "a"}', Reason.MISSING_COLUMN),
    "null": (b'{"text": null}', Reason.NOT_TEXT),
    "number": (b'{"text": 5}', Reason.NOT_TEXT),
    "list as text": (b'{"text": ["a"]}', Reason.NOT_TEXT),
    "lone surrogate": (b'{"text": "a\\ud800b"}', Reason.LONE_SURROGATE),
    "empty text": (b'{"text": ""}', Reason.EMPTY_TEXT),
    "too long": (b'{"text": "' + b"a" * 200_000 + b'"}', Reason.TOO_LONG),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line_is_named_and_its_neighbours_are_kept(tmp_path, line, reason):
    documents, skips = read(jsonl(tmp_path, GOOD, line, GOOD, rules=TextRules(max_bytes=150_000)))
    assert [(document.text, document.source) for document in documents] == [
        (b"good", "lines.jsonl:1"),
        (b"good", "lines.jsonl:3"),
    ]
    assert [(skip.source, skip.reason) for skip in skips] == [("lines.jsonl:2", reason)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_line_of_50_mb_is_skipped_without_holding_it(tmp_path, suffix):
    path = tmp_path / f"lines.jsonl{suffix}"
    content = GOOD + b'\n{"text": "' + b"a" * 50_000_000 + b'"}\n' + GOOD
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix](content))
    del content
    tracemalloc.start()
    documents, skips = read(JsonLinesReader(path, TextRules(max_bytes=1_000_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [skip.reason for skip in skips] == [Reason.TOO_LONG]
    assert [document.source for document in documents] == [f"{path.name}:1", f"{path.name}:3"]
    assert peak < 10_000_000


def test_every_character_survives_json(tmp_path):
    text = "".join(map(chr, [*range(1, 0xD800, 7), *range(0xE000, 0x11000), 0x1F600, 0x10FFFF]))
    lines = [json.dumps({"text": text}).encode(), json.dumps({"text": text}, ensure_ascii=False).encode("utf-8")]
    documents, skips = read(jsonl(tmp_path, *lines))
    assert skips == []
    assert [document.text for document in documents] == [text.encode("utf-8")] * 2


@pytest.mark.parametrize("reader", [JsonLinesReader, ParquetReader])
def test_table_that_cannot_be_opened_is_an_error_that_names_it(tmp_path, reader):
    with pytest.raises(ProxyByteError, match=r"gone\.table cannot be read: .*No such file"):
        read(reader(tmp_path / "gone.table", TextRules()))


def test_blank_lines_byte_order_mark_and_windows_line_ends_are_no_faults(tmp_path):
    documents, skips = read(jsonl(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r", b"", b"  \r", GOOD))
    assert skips == []
    assert [document.source for document in documents] == ["lines.jsonl:1", "lines.jsonl:4"]


def test_last_line_needs_no_line_break_and_limit_is_exact(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD)
    assert len(read(JsonLinesReader(path, TextRules(max_bytes=len(GOOD))))[0]) == 2
    assert len(read(JsonLinesReader(path, TextRules(max_bytes=len(GOOD) - 1)))[0]) == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"}', Reason.MISSING_COLUMN),
        (b'{"text": "a", "repo": null}', Reason.BAD_KEY),
        (b'{"text": "a", "repo": true}', Reason.BAD_KEY),
        (b'{"text": "a", "repo": "\\udc00"}', Reason.LONE_SURROGATE),
    ],
)
def test_key_that_cannot_group_is_a_fault(tmp_path, line, reason):
    fine = b'{"text": "a", "repo": 7}'
    documents, skips = read(jsonl(tmp_path, fine, line, rules=TextRules(key_column="repo")))
    assert [document.key for document in documents] == ["7"]
    assert [skip.reason for skip in skips] == [reason]


@pytest.mark.parametrize("lines", [3, 1000])
def test_column_that_no_line_has_is_an_error_with_the_nearest_name(tmp_path, lines):
    reader = jsonl(tmp_path, *[b'{"content": "a", "id": 1}'] * lines, rules=TextRules(text_column="contents"))
    with pytest.raises(ProxyByteError, match=r"no column 'contents'; did you mean 'content'\?"):
        read(reader)


def test_file_without_json_is_left_out_line_by_line(tmp_path):
    documents, skips = read(jsonl(tmp_path, b"plain", b"text"))
    assert documents == []
    assert [skip.reason for skip in skips] == [Reason.BROKEN_JSON] * 2


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_archive_is_an_error_that_names_the_file(tmp_path, suffix, damage):
    content = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix](os.urandom(100_000).hex().encode())
    path = tmp_path / f"lines.jsonl{suffix}"
    path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"x" * 1000, "empty": b""}[damage])
    with pytest.raises(ProxyByteError, match=rf"lines\.jsonl\{suffix}.*again"):
        read(JsonLinesReader(path, TextRules()))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_concatenated_archives_are_read_to_the_end(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"lines.jsonl{suffix}"
    path.write_bytes(compress(GOOD + b"\n") + compress(GOOD + b"\n"))
    assert len(read(JsonLinesReader(path, TextRules()))[0]) == 2


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_text_of_every_kind_is_read(tmp_path, kind):
    texts = pa.array(["a", None, "", "b" * 20]).cast(kind)
    pq.write_table(pa.table({"text": texts, "n": [1, 2, 3, 4]}), tmp_path / "rows.parquet")
    documents, skips = read(ParquetReader(tmp_path / "rows.parquet", TextRules(key_column="n", max_bytes=19)))
    assert documents == [Document(b"a", "rows.parquet:1", "1")]
    assert [(skip.source, skip.reason) for skip in skips] == [
        ("rows.parquet:2", Reason.NOT_TEXT),
        ("rows.parquet:3", Reason.EMPTY_TEXT),
        ("rows.parquet:4", Reason.TOO_LONG),
    ]


def test_parquet_bytes_that_are_not_utf8_are_kept_as_they_are(tmp_path):
    pq.write_table(pa.table({"text": [b"\xff\x00\xfe"]}), tmp_path / "rows.parquet")
    assert [document.text for document in read(ParquetReader(tmp_path / "rows.parquet", TextRules()))[0]] == [
        b"\xff\x00\xfe"
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"txt": ["a"]}, r"no column 'text'; did you mean 'txt'\?"),
        ({"text": [1]}, "holds int64, not text"),
        ({"text": [["a"]]}, "holds list.*not text"),
    ],
)
def test_parquet_without_a_text_column_is_an_error(tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(ProxyByteError, match=message):
        read(ParquetReader(tmp_path / "rows.parquet", TextRules()))


def test_damaged_parquet_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"text": [os.urandom(1000) for _ in range(5)]})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    for damaged in (bytes(content), bytes(content[:-20]), b"PAR1", b""):
        path.write_bytes(damaged)
        with pytest.raises(ProxyByteError, match=r"rows\.parquet cannot be read"):
            read(ParquetReader(path, TextRules()))


def test_folder_gives_matching_files_in_order_with_their_package(tmp_path):
    for name in (
        "b/x.py",
        "b/sub/y.py",
        "a.py",
        "b/readme.md",
        ".git/z.py",
        "b/__pycache__/z.py",
        "c/site-packages/z.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    documents, skips = read(folder_reader(tmp_path, (".py",), TextRules()))
    assert [(document.source, document.key) for document in documents] == [
        ("a.py", "a"),
        ("b/x.py", "b"),
        ("b/sub/y.py", "b"),
    ]
    assert all(skip.reason is Reason.PASSED_OVER and not skip.reason.is_fault for skip in skips)
    assert {skip.detail: skip.count for skip in skips} == {".md": 1, ".git/": 1, "__pycache__/": 1, "site-packages/": 1}


def test_unreadable_files_are_listed_and_ordinary_absences_are_no_faults(tmp_path):
    (tmp_path / "fine.py").write_bytes(b"\xff fine")
    (tmp_path / "empty.py").touch()
    (tmp_path / "long.py").write_bytes(b"a" * 100)
    (tmp_path / "broken_link.py").symlink_to("nowhere")
    (tmp_path / "linked_folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    documents, skips = read(folder_reader(tmp_path, (".py",), TextRules(max_bytes=50)))
    assert [document.text for document in documents] == [b"\xff fine"]
    assert {skip.source: skip.reason for skip in skips} == {
        "empty.py": Reason.EMPTY_FILE,
        "long.py": Reason.TOO_LONG,
        "broken_link.py": Reason.UNREADABLE,
        "linked_folder": Reason.LINKED_FOLDER,
        "pipe.py": Reason.UNREADABLE,
    }
    assert sorted(skip.source for skip in skips if not skip.reason.is_fault) == ["empty.py", "linked_folder"]


def test_file_that_vanishes_after_the_walk_is_unreadable(tmp_path):
    (tmp_path / "gone.py").write_text("a")
    reader = TreeReader([tmp_path], (".py",), TextRules())
    (tmp_path / "gone.py").unlink()
    assert [skip.reason for skip in read(reader)[1]] == [Reason.UNREADABLE]


def test_file_name_that_is_not_utf8_gives_a_printable_source(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.py", "wb") as file:  # noqa: PTH123
        file.write(b"a")
    (document,) = read(folder_reader(tmp_path, (".py",), TextRules()))[0]
    assert document.source == "caf\N{REPLACEMENT CHARACTER}.py"


def test_folder_without_matching_files_says_what_it_holds(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"a")
    with pytest.raises(ProxyByteError, match=r"ends in \.py \(it holds: 1 \.jsonl\.gz\)"):
        folder_reader(tmp_path, (".py",), TextRules())


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("six.py", "six"),
        ("numpy/linalg/linalg.py", "numpy"),
        ("pip/_vendor/rich/text.py", "rich"),
        ("pip/_vendor/typing_extensions.py", "typing_extensions"),
        ("a/_vendor/b/_vendor/c/d.py", "c"),
        ("pip/_vendor.py", "pip"),
        ("pip/_vendor/__init__.py", "pip"),
    ],
)
def test_package_is_the_top_level_one_and_a_vendored_copy_belongs_to_its_library(path, package):
    assert package_of(path) == package


def test_python_packages_hold_the_standard_library_and_this_environment():
    roots = python_roots()
    assert any((root / "json" / "decoder.py").is_file() for root in roots)
    assert any((root / "pytest" / "__init__.py").is_file() for root in roots)
    reader = python_packages_reader(TextRules())
    document = next(item for item in reader.read(lambda _: None) if isinstance(item, Document))
    assert document.text
    assert reader.stored_bytes() > 10_000_000
