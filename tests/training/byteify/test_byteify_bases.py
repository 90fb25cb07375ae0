"""Where a base may lie: a name on the Hub, a GGUF file, a folder that holds one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import COMPRESSED_OFFSET
from proxybyte.training.byteify import byteify
from proxybyte.training.byteify.base import open_base

WIDTH, LAYERS, HEADS = 32, 2, 4
TWICE = """
import sys
from proxybyte.cli import main
print(*(main(["byteify", f"someone/{name}", "--out", sys.argv[1]]) for name in ("absent", "tiny")))
"""


def test_a_name_on_the_hub_is_a_base(make_base, tmp_path):
    """From the Hub's cache, as it lies on a disk after a download."""
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(make_base("llama"), cached / "snapshots" / "c0ffee")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c0ffee")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(tmp_path / "out")], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "2 0", done.stderr
    assert done.stderr.count("proxybyte: someone/absent: cannot be opened as a model of Transformers") == 1
    assert "Traceback" not in done.stderr
    assert ProxyByteForCausalLM.from_pretrained(tmp_path / "out").config.num_compressed_symbols == 405


def write_gguf(path: Path, tokenizer: Tokenizer) -> None:
    """A tiny random Llama with this byte-level tokenizer, in the layout of llama.cpp."""
    import gguf

    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(vocab))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocab)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 2 else 1 for token in vocab])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (len(vocab), WIDTH), "output": (len(vocab), WIDTH)}
    for layer in range(LAYERS):
        square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
        wide = {"ffn_gate": (48, WIDTH), "ffn_up": (48, WIDTH), "ffn_down": (WIDTH, 48)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in (square | wide).items()}
        shapes |= {f"blk.{layer}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in {**shapes, "output_norm": (WIDTH,)}.items():
        writer.add_tensor(f"{name}.weight", draw.normal(size=shape, scale=0.2).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_file(make_base, tmp_path_factory) -> Path:
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, Tokenizer.from_file(str(make_base("llama") / "tokenizer.json")))
    return path


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_gguf_file_is_a_base_and_the_compressed_view_is_it(gguf_file, tmp_path, named):
    report = byteify(str(gguf_file if named == "file" else gguf_file.parent), tmp_path / "out")
    assert report["dtype"] == "float32"
    assert report["padding_rows"] == 0  # Transformers gives this file's tokenizer <unk> and <|endoftext|> of its own
    assert report["specials"]["<eos>"] == "</s>"
    tokens = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)("def f(x)")["input_ids"]
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
        expected = base(torch.tensor([tokens])).logits
        model = ProxyByteForCausalLM.from_pretrained(tmp_path / "out")
        got = model(torch.tensor([tokens]) + COMPRESSED_OFFSET).logits[..., COMPRESSED_OFFSET:]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs gguf")
def test_a_file_that_only_has_the_name_of_one_is_refused(tmp_path):
    (tmp_path / "fake.gguf").write_bytes(b"nothing")
    with pytest.raises(ProxyByteError, match=r"fake\.gguf: cannot be opened as a model of Transformers") as error:
        open_base(str(tmp_path / "fake.gguf"))
    assert "\n" not in str(error.value)
