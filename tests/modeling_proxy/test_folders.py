"""What is written is there whole, or what was there before still is."""

import resource

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_output, partial_folder, whole_folder, write_json, write_text


def test_a_folder_is_empty_at_first_and_takes_its_place_at_the_end(tmp_path):
    final = tmp_path / "deep" / "out"
    partial_folder(final).mkdir(parents=True)
    (partial_folder(final) / "left by a killed run").touch()
    with whole_folder(final) as folder:
        assert not list(folder.iterdir())
        (folder / "a").write_text("new")
        assert not final.exists()
    assert [path.name for path in final.parent.iterdir()] == ["out"]
    assert [path.name for path in final.iterdir()] == ["a"]


def test_an_error_leaves_the_older_folder_and_nothing_else(tmp_path):
    final = tmp_path / "out"
    with whole_folder(final) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(final) as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (final / "a").read_text() == "old"


def test_a_copy_that_somebody_keeps_beside_it_is_not_touched(tmp_path):
    for name in ("out", "out.old"):
        with whole_folder(tmp_path / name) as folder:
            (folder / name).touch()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "newer").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["newer", "out", "out.old", "out.old"]


def test_a_disk_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(ProxyByteError, match=r"file/out cannot be written: .*Not a directory")
    with refused, whole_folder(tmp_path / "file" / "out"):
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


def test_only_an_earlier_output_is_replaced(tmp_path):
    for name, fine in (("absent", True), ("empty", True), ("ours", True), ("other", False), ("file", False)):
        path = tmp_path / name
        if name in ("empty", "ours", "other"):
            path.mkdir()
        if name == "ours":
            (path / "report.json").touch()
        if name == "other":
            (path / "thesis.txt").touch()
        if name == "file":
            path.touch()
        if fine:
            check_output(path, "report.json")
        else:
            with pytest.raises(ProxyByteError, match=rf"{name} exists and holds no report\.json"):
                check_output(path, "report.json")
    assert (tmp_path / "other" / "thesis.txt").exists()
