"""What the commands need to run on: a few kilobytes of everything, made by the commands themselves."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from proxybyte.cli import main

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
ADAPTER = {"adapter": {"kind": "lora", "rank": 2}}


@dataclass(frozen=True)
class Inputs:
    """A folder of inputs, and the command lines that read them.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    def words(self, command: str, out: Path, other: bool = False) -> list[str]:
        """The command line that writes ``out``; ``other`` with another option, so that its output differs."""
        here = self.folder
        bpe = ["--symbols", "300" if other else "280"]
        steps = ["--width", "16", "--steps", "4", "--batch", "8", "--context", "8", "--seed", str(int(other))]
        lines = {
            "corpus": [here / "texts.jsonl", "--validation-share", "0.2" if other else "0.4"],
            "compressor fit bpe": ["--corpus", here / "corpus", *bpe],
            "compressor fit neural": ["--corpus", here / "corpus", *steps],
            "compressor compile": [here / "m1", "--symbols", "300" if other else "280"],
            "prepare": [here / "corpus", "--compressor", "bits-8" if other else here / "bpe", "--workers", "1"],
            "export": [here / "run", "--format", "full" if other else "native"],
            "byteify": [here / "base", "--rows", "mean" if other else "token"],
            "adapter merge": [here / "run" / "model", here / "adapter"],
            "convert evabyte": [here / "eva", "--back"],
        }
        if command == "train":
            recipe = ["--config", str(here / "recipe.yaml"), f"output={out}"]
            return ["train", *recipe, f"optimizer.lr={'2e-3' if other else '1e-3'}"]
        return [*command.split(), *map(str, lines[command]), "--out", str(out)]

    def start(self, words: list[str], **options) -> subprocess.Popen:
        """Start ``proxybyte`` as a process of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        line = [sys.executable, "-m", "proxybyte.cli", *words]
        return subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )


def _texts(folder: Path) -> None:
    rng = random.Random(0)
    words = ["def", "return", "import", "self", "None", "for", "in", "range", "(x)", ":\n", "= 0", "λ"]
    texts = [" ".join(rng.choices(words, k=rng.randint(30, 120))) for _ in range(60)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n")


def _models(folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from proxybyte import ProxyByteConfig, ProxyByteForCausalLM

    torch.manual_seed(0)
    (folder / "eva").mkdir()
    eva = {"model_type": "proxybyte_eva", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    eva |= {"num_attention_heads": 4, "window_size": 8, "chunk_size": 4, "tie_word_embeddings": False}
    from proxybyte import EvaConfig

    eva["model_type"] = EvaConfig.model_type
    ProxyByteForCausalLM(ProxyByteConfig(backbone_config=eva)).save_pretrained(folder / "eva")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<s>", "</s>", *alphabet, "ab", "de"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("d", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder / "base")
    shape = {key: value for key, value in LLAMA.items() if key != "model_type"}
    base = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=1))
    base.save_pretrained(folder / "base")
    model = ProxyByteForCausalLM.from_pretrained(folder / "run" / "model")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder / "adapter")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Inputs:
    """Corpus, compressors, data, a run and models of every kind, in one folder."""
    folder = tmp_path_factory.mktemp("inputs")
    made = Inputs(folder)
    _texts(folder)
    recipe = {
        "output": str(folder / "run"),
        "data": str(folder / "prepared"),
        "precision": "float32",
        "model": {"backbone_config": LLAMA},
        "plan": {"row_length": 64, "budget": 2048, "budget_unit": "symbols"},
        "batch": {"rows_per_step": 4, "rows_per_device": 2},
        "log": {"every": 3, "trackers": [], "plot": False},
        "checkpoint": {"every": 4},
        "evaluation": {"every": 4, "documents": 4, "max_bytes": 100},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    names = {"corpus": "corpus", "compressor fit bpe": "bpe", "compressor fit neural": "m1", "prepare": "prepared"}
    for command, name in names.items():
        assert main(made.words(command, folder / name)) == 0, command
    assert main(made.words("train", folder / "run")) == 0
    _models(folder)
    return made


@pytest.fixture
def ended() -> Callable[[subprocess.Popen], tuple[int, str]]:
    """Waits for a process; its exit code and what it said."""

    def wait(process: subprocess.Popen) -> tuple[int, str]:
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    return wait
