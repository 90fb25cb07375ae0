"""What is written is there whole, or what was there before still is."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxybyte import folders
from proxybyte.checksums import read_record, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_output, mend, partial_folder, whole_folder, write_json, write_text
from proxybyte.locks import hold


def test_a_folder_is_empty_at_first_and_takes_its_place_at_the_end(tmp_path):
    final = tmp_path / "deep" / "out"
    partial_folder(final).mkdir(parents=True)
    (partial_folder(final) / "left by a killed run").touch()
    with whole_folder(final, "thing") as folder:
        assert not list(folder.iterdir())
        (folder / "a").write_text("new")
        assert not final.exists()
    assert [path.name for path in final.parent.iterdir()] == ["out"]
    assert sorted(path.name for path in final.iterdir()) == ["SHA256SUMS", "a"]


def test_an_error_leaves_the_older_folder_and_nothing_else(tmp_path):
    final = tmp_path / "out"
    with whole_folder(final, "thing") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(final, "thing") as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (final / "a").read_text() == "old"


def test_a_copy_that_somebody_keeps_beside_it_is_not_touched(tmp_path):
    for name in ("out", "out.old"):
        with whole_folder(tmp_path / name, "thing") as folder:
            (folder / name).touch()
    with whole_folder(tmp_path / "out", "thing") as folder:
        (folder / "newer").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "SHA256SUMS",
        "SHA256SUMS",
        "newer",
        "out",
        "out.old",
        "out.old",
    ]


def test_a_disk_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(ProxyByteError, match=r"file/out cannot be written: .*Not a directory")
    with refused, whole_folder(tmp_path / "file" / "out", "thing"):
        pass


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "figures.json"
    write_json(path, {"a": "é"})
    assert path.read_bytes() == b'{\n  "a": "\\u00e9"\n}\n'
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))  # as a disk that is full after two bytes
    try:
        with pytest.raises(OSError, match="too large"):
            write_text(path, "half")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.read_bytes()[:1] for each in tmp_path.iterdir()] == [b"{"]


def make(final: Path, content: str = "old", kind: str = "thing") -> Path:
    with whole_folder(final, kind) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text(content)
    return final


def test_only_an_earlier_output_of_the_same_kind_is_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    make(tmp_path / "ours")
    make(tmp_path / "another", kind="other")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.txt").touch()
    for name in ("absent", "empty", "ours"):
        check_output(tmp_path / name, "thing")
    for name, what in (("file", "a file"), ("another", "of kind 'other'"), ("strange", r"thesis\.txt")):
        with pytest.raises(ProxyByteError, match=rf"{name} exists and is no earlier output .*{what}"):
            make(tmp_path / name)
    assert (tmp_path / "strange" / "thesis.txt").exists()


@pytest.mark.parametrize("name", [".git/config", "notes.txt", "sub/mine", "run/model/weights", "empty/"])
def test_what_the_command_did_not_write_is_named_and_stays(tmp_path, name):
    mine = make(tmp_path / "out") / name
    if name.endswith("/"):
        mine.mkdir()
    else:
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
    with pytest.raises(ProxyByteError, match=rf"holds what this command did not write \({name.split('/')[0]}"):
        make(tmp_path / "out", "new")
    assert mine.exists()
    assert (tmp_path / "out" / "sub" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_comes_in_at_the_last_moment_is_kept(tmp_path, monkeypatch):
    make(tmp_path / "out")
    exchange = folders._exchange

    def late(first, second):
        (second / "mine").write_text("mine")
        return exchange(first, second)

    monkeypatch.setattr(folders, "_exchange", late)
    make(tmp_path / "out", "new")
    assert (tmp_path / "out" / "sub" / "a").read_text() == "new"
    assert [path.read_text() for path in tmp_path.rglob("mine")] == ["mine"]


@pytest.mark.parametrize("exchange", [True, False])
def test_the_older_folder_is_replaced_with_and_without_an_exchange(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda first, second: False)
    make(make(tmp_path / "out"), "new")
    assert (tmp_path / "out" / "sub" / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_reader_always_finds_a_whole_folder(tmp_path):
    """Many looks while the folder is replaced twenty times: each finds one of the contents."""
    final, done, seen = make(tmp_path / "out", "0"), threading.Event(), []

    def look():
        while not done.is_set():
            try:
                seen.append((final / "sub" / "a").read_text())
            except OSError as error:
                seen.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(20):
            make(final, str(number))
    finally:
        done.set()
        reader.join()
    assert set(seen) <= {str(number) for number in range(20)}
    assert len(seen) > 20


KILLED = """
import os, signal, sys
from pathlib import Path
from proxybyte import folders
from proxybyte.folders import whole_folder
final, where = Path(sys.argv[1]), sys.argv[2]
with whole_folder(final, "thing") as folder:
    (folder / "sub").mkdir()
    (folder / "sub" / "a").write_text("new")
    if where == "fall-back":
        folders._exchange = lambda first, second: False
        rename = Path.rename
        def killed(self, target):
            rename(self, target)
            os.kill(os.getpid(), signal.SIGKILL)
        Path.rename = killed
    else:
        folders._remove_output = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("where", "content"), [("exchange", "new"), ("fall-back", "old")])
def test_a_kill_while_publishing_is_mended_by_the_next_command(tmp_path, where, content):
    final = make(tmp_path / "out")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(final), where], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) > 1
    with hold(final):
        mend(final)
    assert (final / "sub" / "a").read_text() == content
    make(final, "newest")
    assert (final / "sub" / "a").read_text() == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_record_is_that_of_sha256sum(tmp_path):
    make(tmp_path / "out", "text")
    record = read_record(tmp_path / "out")
    assert record.kind == "thing"
    assert record.sums == {"sub/a": hashlib.sha256(b"text").hexdigest()}
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=False)
    assert checked.returncode == 0


def test_a_changed_or_missing_file_is_named(tmp_path, monkeypatch):
    final = make(tmp_path / "out")
    verify_folder(final)
    verify_folder(final / "sub")  # by the record above it
    (final / "sub" / "a").write_text("odd")
    for folder in (final, final / "sub"):
        with pytest.raises(ProxyByteError, match=r"sub/a is not what was written"):
            verify_folder(folder)
    verify_folder(final, (".safetensors",))
    monkeypatch.setenv("PROXYBYTE_SKIP_CHECKSUMS", "1")
    verify_folder(final)
    monkeypatch.delenv("PROXYBYTE_SKIP_CHECKSUMS")
    (final / "sub" / "a").unlink()
    with pytest.raises(ProxyByteError, match=r"sub/a cannot be read"):
        verify_folder(final)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "out", "thing") as folder:
            (folder / "a").touch(mode=0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path.name


WRITER = """
import os, sys
from pathlib import Path
from proxybyte.folders import write_bytes
path, word = Path(sys.argv[1]), sys.argv[2].encode()
for number in range(200):
    write_bytes(path, word * 5000)
    assert path.read_bytes() in (b"a" * 5000, b"b" * 5000)
"""


def test_processes_that_write_one_file_at_once_never_mix_it_and_leave_nothing_beside_it(tmp_path):
    words = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    writers = [subprocess.Popen([*words, word]) for word in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_half_written_is_used_up_by_the_next(tmp_path):
    (tmp_path / "file.tmp").write_bytes(b"half of a longer text")
    folders.write_bytes(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
