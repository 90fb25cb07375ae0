"""Of every kind of folder that we write: no path, user or host name in what can leave, and modes as the umask says."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.privacy import Kind, private_words_in, scan


def test_a_folder_says_nothing_of_the_machine_and_others_may_read_it(command, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    for form in ("export", "export full", "export gguf") if command == "export" else (command,):
        out = tmp_path / form
        assert main(inputs.words(form, out)) == 0
        assert private_words_in(out, [str(inputs.folder), str(tmp_path)]) == []
        assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}


STAYS = {"config.yaml", "checkpoints/*/state.json"}
"""Of a run: what names its data and its output, and is not made to leave the machine."""


@pytest.fixture(scope="module")
def adapted(inputs, tmp_path_factory) -> Path:
    """A run that trained an adapter of a byteified model."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    base = inputs.folder / "byteified"
    assert main(inputs.words("byteify", base)) == 0
    data = inputs.folder / "byteified-prepared"
    prepare = ["prepare", str(inputs.folder / "corpus"), "--compressor", str(base / "compressor"), "--workers", "1"]
    assert main([*prepare, "--out", str(data)]) == 0
    changes = ["trainable.adapter.kind=lora", "trainable.adapter.rank=2", f"data={data}", f"output={out}"]
    model = ["model.backbone_config=null", f"model.checkpoint={base}", "plan.budget=512"]
    assert main(["train", "--config", str(inputs.folder / "recipe.yaml"), *changes, *model]) == 0
    return out


@pytest.mark.parametrize("kind", ["plain", "adapter"])
def test_of_a_run_only_what_stays_names_a_place(kind, inputs, adapted):
    run = inputs.folder / "run" if kind == "plain" else adapted
    parts = {"model", "checkpoints/step-*/model", "compressor"} | ({"adapter"} if kind == "adapter" else set())
    for pattern in parts:
        folders = sorted(run.glob(pattern))
        assert folders, pattern
        for folder in folders:
            assert private_words_in(folder, [str(inputs.folder), str(run)]) == []
    named = {found.partition(": ")[0] for found in private_words_in(run, [str(inputs.folder), str(run)])}
    assert named == {path.relative_to(run).as_posix() for pattern in STAYS for path in run.glob(pattern)}
    assert named, "the scan sees what stays"
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file()}
    assert modes == {0o644}


@pytest.mark.parametrize("kind", ["compressor report", "report", "eval code"])
def test_what_reports_and_evaluations_write_names_no_place(kind, inputs, tmp_path):
    assert main(inputs.words(kind, tmp_path / "out")) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files
    assert private_words_in(tmp_path / "out", [str(inputs.folder), str(tmp_path)]) == []
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


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


@pytest.fixture
def mary(monkeypatch):
    """Whoever runs this has a name, and the machine too."""
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-machine-7")


KINDS = [
    "corpus",
    "prepared",
    "bpe",
    "run/model",
    "run/compressor",
    "base",
    "byteified",
    "adapter",
    "full",
    "native",
    "gguf",
]


@pytest.fixture(scope="module")
def kinds(inputs, adapted, tmp_path_factory) -> dict[str, Path]:
    """A folder of every kind that may leave."""
    home = tmp_path_factory.mktemp("leaving")
    for form in ("export", "export full", "export gguf"):
        assert main(inputs.words(form, home / form)) == 0
    exports = {"native": home / "export", "full": home / "export full", "gguf": home / "export gguf"}
    return {name: exports.get(name, inputs.folder / name) for name in KINDS} | {"adapter": adapted / "adapter"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_folder_is_clean_and_a_word_put_into_any_file_of_it_is_found(kind, kinds, inputs, mary, tmp_path):
    folder = kinds[kind]
    assert scan(folder, [str(inputs.folder)]) == []
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert files
    for number, path in enumerate(files):
        name, whole = path.relative_to(copy).as_posix(), path.read_bytes()
        word = ["mary.smith", "lab-machine-7", str(inputs.folder), "hf_" + "aB3" * 12][number % 4]
        if path.suffix == ".parquet":
            table = pyarrow.table({"text": [f"x {word} y".encode()]})
            pyarrow.parquet.write_table(table, path, compression="zstd")
        else:
            path.write_bytes(whole + b"\0" + word.encode() + b"\0")
        found = scan(copy, [str(inputs.folder)])
        assert [each.file for each in found] == [name], word
        assert found[0].word in (word, f"{word[:6]}...")
        path.write_bytes(whole)


SECRETS = {
    "hf_" + "a1" * 17: Kind.TOKEN,
    "ghp_" + "a1" * 18: Kind.TOKEN,
    "github_pat_" + "A1_" * 20: Kind.TOKEN,
    "glpat-" + "a1B2" * 5: Kind.TOKEN,
    "sk-proj-" + "a1B2" * 10: Kind.TOKEN,
    "xoxb-" + "1a2b" * 6: Kind.TOKEN,
    "AKIA" + "A1B2" * 4: Kind.TOKEN,
    "AIza" + "a1B2_" * 7: Kind.TOKEN,
    "-----BEGIN RSA PRIVATE KEY-----": Kind.TOKEN,
    "/home/maria/x": Kind.PATH,
    "/Users/maria/x": Kind.PATH,
    "C:\\Users\\maria\\x": Kind.PATH,
}


@pytest.mark.parametrize("secret", SECRETS, ids=lambda text: text[:8].replace("/", "_"))
@pytest.mark.parametrize("packed", ["plain", "json", "gz", "zst"])
def test_each_kind_of_secret_is_found_and_a_token_is_not_handed_on(secret, packed, tmp_path):
    text = json.dumps({"key": secret}).encode() if packed == "json" else b"a " + secret.encode() + b" b"
    content = {"gz": gzip.compress, "zst": zstandard.compress}.get(packed, bytes)(text)
    (tmp_path / f"file.{packed}").write_bytes(content)
    (found,) = scan(tmp_path)
    assert found.kind is SECRETS[secret]
    assert found.kind is not Kind.TOKEN or len(found.word) < 10


@pytest.mark.parametrize(
    "text", ["/home/", "/usr/bin/env", "hf_hub_download", "sk-learn", "/homework/is/x", "task-force/home/x"]
)
def test_what_stands_in_any_text_is_no_secret(text, tmp_path):
    (tmp_path / "file").write_text(f"a {text} b")
    assert scan(tmp_path) == []


def test_a_name_of_a_file_is_read_too_and_a_letter_beyond_ascii_as_json_spells_it(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "zoë.smith")
    (tmp_path / "of-zoë.smith.txt").write_text("x")
    (tmp_path / "a.json").write_text(json.dumps("by zoë.smith"))
    assert [(each.file, each.kind) for each in scan(tmp_path)] == [
        ("a.json", Kind.NAME),
        ("of-zoë.smith.txt", Kind.NAME),
    ]


def test_a_packed_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"text")[:-9])
    with pytest.raises(ProxyByteError, match=r"x\.gz cannot be unpacked"):
        scan(tmp_path)
