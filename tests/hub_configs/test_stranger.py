"""Exports in an environment that has Transformers and everything else, but not this package."""

import json
import os
import subprocess
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

PROBE = """
import importlib.util, json, sys
for name in ("proxybyte", "modeling_proxy"):
    assert importlib.util.find_spec(name) is None, f"{name} is here"
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
folder, trust = sys.argv[1], sys.argv[2] == "full"
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust)
batch = tokenizer(["def f(x):", "\\u00e9 <raw>"], padding=True, return_tensors="pt")
print(json.dumps({
    "class": type(model).__name__,
    "body": type(AutoModel.from_pretrained(folder, trust_remote_code=trust)).__name__,
    "logits": model(**batch).logits[:, -1, :320].tolist(),
    "generated": model.generate(**batch, max_new_tokens=12).tolist(),
}))
"""


def assert_a_stranger_sees_the_same(python: Path, folder: Path, classes: tuple[str, str], home: Path) -> None:
    """Logits and generated symbols of the model in ``folder``, run by ``python``, are ours."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    trusted = "full" if classes[0] == "ProxyByteForCausalLM" else "native"
    probe = subprocess.run(
        [python, "-c", PROBE, str(folder), trusted],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert probe.returncode == 0, probe.stderr
    seen = json.loads(probe.stdout)
    assert (seen["class"], seen["body"]) == classes
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    batch = tokenizer(["def f(x):", "é <raw>"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits[:, -1, :320]
    torch.testing.assert_close(torch.tensor(seen["logits"]), logits, rtol=0, atol=1e-5)
    assert seen["generated"] == model.generate(**batch, max_new_tokens=12).tolist()


def test_a_stranger_gets_the_same_logits_and_bytes(exported, stranger, tmp_path):
    full = exported.name.startswith("full")
    classes = ("ProxyByteForCausalLM", "ProxyByteForCausalLM") if full else ("LlamaForCausalLM", "LlamaModel")
    assert_a_stranger_sees_the_same(stranger, exported, classes, tmp_path)


def test_a_stranger_gets_the_eva_backbone_with_the_code(stranger, model_writer, tmp_path):
    settings = {"num_key_value_heads": None, "window_size": 8, "chunk_size": 2}
    model_writer(tmp_path / "run" / "model", "proxybyte_eva", backbone_settings=settings)
    folder = export_model(tmp_path / "run", tmp_path / "hub", ExportOptions(ExportFormat.FULL))
    home = tmp_path / "home"
    home.mkdir()
    assert_a_stranger_sees_the_same(stranger, folder, ("ProxyByteForCausalLM", "ProxyByteForCausalLM"), home)


DRAFTING = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
batch = tokenizer(["def f(x):", "\\u00e9 <raw>"], padding=True, return_tensors="pt")
asked = model.generate(**batch, max_new_tokens=12, draft="heads", return_dict_in_generate=True)
model.generation_config.draft = "heads"
print(json.dumps({
    "asked": asked.sequences.tolist(),
    "forwards": asked.drafts.forwards,
    "configured": model.generate(**batch, max_new_tokens=12).tolist(),
    "repeats": model.generate(**batch, max_new_tokens=12, draft_repeats=True).tolist(),
    "given": model.generate(**batch, generation_config=GenerationConfig(max_new_tokens=12, draft="heads")).tolist(),
}))
"""


def test_a_stranger_drafts_by_argument_and_by_generation_configuration(stranger, model_writer, tmp_path):
    model = model_writer(tmp_path / "run" / "model", "llama", num_raw_pred_heads=3)
    folder = export_model(tmp_path / "run", tmp_path / "full", ExportOptions(ExportFormat.FULL))
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    probe = subprocess.run(
        [stranger, "-c", DRAFTING, str(folder)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert probe.returncode == 0, probe.stderr
    seen = json.loads(probe.stdout)
    batch = AutoTokenizer.from_pretrained(folder)(["def f(x):", "é <raw>"], padding=True, return_tensors="pt")
    expected = model.generate(**batch, max_new_tokens=12).tolist()
    assert seen["asked"] == seen["configured"] == seen["given"] == seen["repeats"] == expected
    assert seen["forwards"] <= 12
