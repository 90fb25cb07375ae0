"""The model in the box: there, small, a plain Llama, and writing before anything is trained."""

import json
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte.artefacts import BOX, BOX_FOLDER, find_model
from proxybyte.cli import main
from proxybyte.eval import bits_per_byte

PROMPT = "# Copyright 2025 The"
TEXT = (
    b"        self.num_hidden_layers = num_hidden_layers\n        self.num_attention_heads = num_attention_heads\n"
    b"        self.hidden_act = hidden_act\n        self.intermediate_size = intermediate_size\n"
)


def test_it_fits_in_four_megabytes_and_is_safe():
    files = [path for path in BOX_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", "", ".jinja"}
    card = (BOX_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "Fill in" not in card


def test_it_knows_its_domain_better_than_a_compressor_does():
    """Uniform over bytes is 8 bits; gzip has 2.6 on such text (docs/quickstart.md)."""
    model = AutoModelForCausalLM.from_pretrained(BOX_FOLDER)
    assert bits_per_byte(model, [TEXT]).bits_per_byte < 1.5


def test_generate_without_a_model_runs_it(capfdbinary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--prompt", PROMPT, "--max-new-bytes", "40"]) == 0
    written = capfdbinary.readouterr().out
    assert main(["generate", BOX, "--prompt", PROMPT, "--max-new-bytes", "40"]) == 0
    assert capfdbinary.readouterr().out == written
    assert written.decode().startswith(" HuggingFace")


def test_a_folder_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(BOX).model == BOX_FOLDER
    (tmp_path / BOX).mkdir()
    (tmp_path / BOX / "config.json").write_text("{}")
    assert find_model(BOX).model == tmp_path / BOX


def test_it_loads_where_this_package_is_not(tmp_path):
    """In a process that cannot import the package, from a copy of the folder."""
    script = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'proxybyte': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Wall())\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (each.from_pretrained(sys.argv[1]) for each in (AutoModelForCausalLM, AutoTokenizer))\n"
        "symbols = model.generate(**tokenizer(sys.argv[2], return_tensors='pt'), max_new_tokens=20, do_sample=False)\n"
        "print(symbols[0].tolist())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(BOX_FOLDER), PROMPT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    model, tokenizer = (each.from_pretrained(BOX_FOLDER) for each in (AutoModelForCausalLM, AutoTokenizer))
    with torch.no_grad():
        expected = model.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=20, do_sample=False)
    assert json.loads(ran.stdout.splitlines()[-1]) == expected[0].tolist()
