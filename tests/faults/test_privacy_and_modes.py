"""Of every kind of folder that we write: no path, user or host name in what can leave, and modes as the umask says."""

import pytest

from proxybyte.cli import main
from proxybyte.privacy import private_words_in

COMMANDS = [
    "corpus",
    "compressor fit bpe",
    "compressor fit neural",
    "compressor compile",
    "prepare",
    "export",
    "byteify",
    "adapter merge",
    "convert evabyte",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_says_nothing_of_the_machine_and_others_may_read_it(command, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    for other in (False, True) if command == "export" else (False,):
        out = tmp_path / f"out-{other}"
        assert main(inputs.words(command, out, other)) == 0
        assert private_words_in(out, [str(inputs.folder), str(tmp_path)]) == []
        assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}


def test_what_a_run_leaves_is_private_and_readable_too(inputs):
    for part in ("model", "compressor"):
        assert private_words_in(inputs.folder / "run" / part, [str(inputs.folder)]) == []
    modes = {path.stat().st_mode & 0o777 for path in (inputs.folder / "run").rglob("*.safetensors")}
    assert modes == {0o644}


def test_the_scan_finds_what_it_looks_for(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-machine-7")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_text('{"_name_or_path": "/data/mary.smith/base"}')
    (tmp_path / "weights.bin").write_bytes(b"\0\xff lab-machine-7 \0")
    (tmp_path / "clean").write_text("rosemary.smithson")
    assert private_words_in(tmp_path, ["/data"]) == [
        "sub/config.json: /data",
        "sub/config.json: mary.smith",
        "weights.bin: lab-machine-7",
    ]
