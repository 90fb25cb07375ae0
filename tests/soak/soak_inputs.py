"""What the commands need to run on: a few kilobytes of everything, made by the commands themselves."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

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
COMMANDS = [
    "corpus",
    "compressor fit bpe",
    "compressor fit neural",
    "compressor fit token-bytes",
    "compressor compile",
    "prepare",
    "export",
    "byteify",
    "adapter merge",
    "convert evabyte",
]
"""Those that write a folder with ``--out``."""


@dataclass(frozen=True)
class Inputs:
    """A folder of inputs, and the command lines that read them.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    def words(self, command: str, out: Path, other: bool = False) -> list[str]:
        """The command line that writes ``out``; ``other`` with another option, so that its output differs."""
        here, digit = self.folder, str(int(other))
        steps = ["--width", "16", "--steps", "4", "--batch", "8", "--context", "8", "--seed", digit]
        asked = ["--data", here / "problems.jsonl", "--generate-only", "--max-new", "4", "-n", "40", "-k", "1"]
        asked += ["--temperature", "1"]
        lines: dict[str, list[str | Path]] = {
            "corpus": [here / "texts.jsonl", "--validation-share", "0.2" if other else "0.4"],
            "compressor fit bpe": ["--corpus", here / "corpus", "--symbols", "300" if other else "280"],
            "compressor fit neural": ["--corpus", here / "corpus", *steps],
            "compressor fit token-bytes": ["--tokenizer", here / "base", "--order", "gray" if other else "plain"],
            "compressor compile": [here / "m1", "--symbols", "300" if other else "280"],
            "compressor report": [here / "bpe", "--corpus", here / "corpus", "--samples", "0"],
            "prepare": [here / "corpus", "--compressor", "bits-8" if other else here / "bpe", "--workers", "1"],
            "export": [here / "run", "--format", "full" if other else "native"],
            "export full": [here / "run", "--format", "full"],
            "export gguf": [here / "run", "--format", "gguf"],
            "byteify": [here / "base", "--rows", "mean" if other else "token"],
            "adapter merge": [here / "run" / "model", here / "adapter"],
            "convert evabyte": [here / "eva", "--back"],
            "eval code": [here / "run" / "model", *asked, "--seed", digit],
            "experiment run": [here / "plan.yaml", "--workers", "1"],
            "report": [here / "run", "--max-mb", "0.0001"],
        }
        if command == "train":
            recipe = ["--config", str(here / "recipe.yaml"), f"output={out}"]
            return ["train", *recipe, f"optimizer.lr={'2e-3' if other else '1e-3'}"]
        name = command.removesuffix(" full").removesuffix(" gguf")
        place = ["--output" if command == "eval code" else "--out", out / "page.html" if command == "report" else out]
        return [*name.split(), *map(str, [*lines[command], *place])]


def _texts(folder: Path) -> None:
    rng = random.Random(0)
    words = ["def", "return", "import", "self", "None", "for", "in", "range", "(x)", ":\n", "= 0", "λ"]
    texts = [" ".join(rng.choices(words, k=rng.randint(30, 120))) for _ in range(60)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n")


def _problems(folder: Path) -> None:
    row = {"prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n"}
    row["test"] = "def check(f):\n    assert f() == 1\n"
    lines = [json.dumps({"task_id": f"t/{number}", **row}) for number in range(2)]
    (folder / "problems.jsonl").write_text("\n".join(lines) + "\n")


def _plan(folder: Path) -> None:
    plan = {
        "title": "tiny",
        "corpus": {"folder": str(folder / "corpus")},
        "compressors": {"bpe": {"fit": "bpe", "options": {"symbols": 280}}},
        "models": {"one": {"backbone_config": LLAMA}},
        "arms": {"proxy": {"kind": "proxy", "compressor": "bpe"}},
        "seeds": [0],
        "match": {"by": "data", "budget": 4000},
        "train": {
            "precision": "float32",
            "plan": {"row_length": 64},
            "batch": {"rows_per_step": 4, "rows_per_device": 4},
            "compute": {"device": "cpu"},
        },
        "evaluation": {"points": 1, "documents": 2, "max_bytes": 50, "final_documents": 2, "final_max_bytes": 50},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))


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


def make_inputs(folder: Path) -> Inputs:
    """Corpus, compressors, data, a run and models of every kind, in one folder."""
    made = Inputs(folder)
    _texts(folder)
    _problems(folder)
    _plan(folder)
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
