"""What was pushed, loaded by people without this package: from the Hub, offline, and from a read-only folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

PROBE = """
import importlib.util, json, sys
for name in ("proxybyte", "modeling_proxy"):
    assert importlib.util.find_spec(name) is None, f"{name} is here"
from transformers import AutoModelForCausalLM, AutoTokenizer
named, more = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(named, **more)
model = AutoModelForCausalLM.from_pretrained(named, **more)
prompt = tokenizer("def f(x):", return_tensors="pt")
print(json.dumps([type(model).__name__, model.generate(**prompt, max_new_tokens=12, do_sample=False).tolist()]))
"""


def seen(python: Path, named: str | Path, more: dict, environment: dict[str, str]) -> list:
    """Class and greedy symbols, in a process that has everything but this package."""
    words = [python, "-c", PROBE, str(named), json.dumps(more)]
    home = environment["HF_HOME"]
    Path(home).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(words, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["native", "full"])
def test_a_stranger_loads_it_from_the_hub_then_offline_then_read_only(form, stranger, hub, llama_run, tmp_path):
    done = hub.push(llama_run, "me/model", "--format", form, "--license", "mit")
    assert done.returncode == 0, done.stderr
    repo = hub.repo("me/model")
    code = repo["commits"][repo["branches"]["main"]]["parent"] if form == "full" else repo["branches"]["main"]
    more = {"trust_remote_code": True, "revision": code} if form == "full" else {}
    model = AutoModelForCausalLM.from_pretrained(llama_run / "model")
    prompt = AutoTokenizer.from_pretrained(llama_run / "model")("def f(x):", return_tensors="pt")
    symbols = model.generate(**prompt, max_new_tokens=12, do_sample=False).tolist()
    name = "ProxyByteForCausalLM" if form == "full" else "LlamaForCausalLM"
    environment = hub.environment(HF_HOME=str(tmp_path / "elsewhere"))
    assert seen(stranger, "me/model", more, environment) == [name, symbols]

    before = len(hub.requests())
    assert seen(stranger, "me/model", {**more, "local_files_only": True}, environment) == [name, symbols]
    assert len(hub.requests()) == before, "nothing is asked"

    snapshot = next((tmp_path / "elsewhere" / "hub").glob("models--me--model/snapshots/*"))
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in snapshot.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    more.pop("revision", None)
    assert seen(stranger, folder, {**more, "local_files_only": True}, environment) == [name, symbols]
    folder.chmod(0o755)


PUSH_TO_HUB = """
import sys
from proxybyte import ProxyByteForCausalLM
ProxyByteForCausalLM.from_pretrained(sys.argv[1]).push_to_hub("me/model", private=True, tags=["mine"])
"""


def test_push_to_hub_of_the_class_keeps_card_and_compressor(hub, llama_run, tmp_path):
    from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

    folder = export_model(llama_run, tmp_path / "full", ExportOptions(ExportFormat.FULL, license="mit"))
    words = [sys.executable, "-c", PUSH_TO_HUB, str(folder)]
    done = subprocess.run(words, env=hub.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'proxybyte push FOLDER me/model'" in done.stderr
    there = hub.files("me/model")
    assert there["compressor/compressor.json"] == b'{"family": "bpe"}'
    card = there["README.md"].decode()
    assert "raw UTF-8 bytes" in card
    assert "- mine\n" in card
    assert "license: mit" in card
    assert {"LICENSE", "NOTICE", "export.json", "model.safetensors", "modeling_proxybyte.py"} <= there.keys()
    assert str(tmp_path) not in there["config.json"].decode()


def test_push_to_hub_takes_the_compressor_of_the_run_and_leaves_a_card_that_is_there(hub, llama_run):
    mine = "---\nlicense: mit\n---\n# mine\n"
    words = (
        "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('me/model', private=True); "
        f"api.upload_file(repo_id='me/model', path_in_repo='README.md', path_or_fileobj={mine.encode()!r})"
    )
    subprocess.run([sys.executable, "-c", words], env=hub.environment(), check=True, capture_output=True)
    words = [sys.executable, "-c", PUSH_TO_HUB.replace(', tags=["mine"]', ""), str(llama_run / "model")]
    done = subprocess.run(words, env=hub.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = hub.files("me/model")
    assert "compressor/compressor.json" in there
    assert "# mine" in there["README.md"].decode()
