"""Exports in Transformers 4.57, installed beside the tested set for the test alone."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte import encode_bytes
from proxybyte.chat import encode_chat
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

pytestmark = pytest.mark.slow
OLD = ["transformers==4.57.1", "tokenizers==0.22.1", "huggingface_hub==0.36.0"]
TEXT = "<raw>é</raw>"
MESSAGES = [{"role": "user", "content": "<raw> <|eot_id|> é"}]
PROBE = """
import json, sys
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, messages, chat = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4] == "chat"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer("def f(x):", return_tensors="pt")
print(json.dumps({
    "version": transformers.__version__,
    "symbols": tokenizer(text)["input_ids"],
    "side": tokenizer.padding_side,
    "chat": tokenizer.apply_chat_template(messages, tokenize=True) if chat else None,
    "logits": model(**prompt).logits[0, -1].tolist(),
    "generated": model.generate(**prompt, max_new_tokens=8).tolist(),
}))
"""


@pytest.fixture(scope="module")
def old_packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *OLD]
    if subprocess.run(install, check=False).returncode:
        pytest.skip("no package index at hand")
    return folder


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_transformers_4_gives_the_same_symbols_logits_and_bytes(family, chat, old_packages, model_writer, tmp_path):
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}
    model_writer(tmp_path / "model", family, backbone_settings=rope)
    out = export_model(tmp_path / "model", tmp_path / "out", ExportOptions(ExportFormat.NATIVE, chat=chat))
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, str(out), TEXT, json.dumps(MESSAGES), "chat" if chat else "plain"],
        env={
            "PYTHONPATH": str(old_packages),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert probe.returncode == 0, probe.stderr
    seen = json.loads(probe.stdout)
    assert (seen["version"], seen["side"]) == ("4.57.1", "left")
    if chat:
        assert seen["chat"] == encode_chat(MESSAGES).tolist()
    else:
        assert seen["symbols"] == [12, *encode_bytes(TEXT.encode()).tolist()]
    prompt = torch.tensor([[12, *encode_bytes(b"def f(x):").tolist()]])
    model = AutoModelForCausalLM.from_pretrained(out)
    with torch.inference_mode():
        torch.testing.assert_close(torch.tensor(seen["logits"]), model(prompt).logits[0, -1], rtol=0, atol=1e-5)
    assert (
        seen["generated"] == model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8).tolist()
    )
