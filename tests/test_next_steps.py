"""Every command that writes something ends with what it made and with what comes next."""

import argparse
import json
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.cli import build_parser, load_commands, main
from proxybyte.eval.sandbox import Wall, capabilities
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {"model_type": "llama", **SHAPE, "max_position_embeddings": 64}
WIDE = {**LLAMA, "hidden_size": 64, "intermediate_size": 96}  # as wide as blocks of a GGUF file
EVA = {"model_type": "proxybyte_eva", **SHAPE, "window_size": 8, "chunk_size": 4}
YES = "--confirm-run-unsafe-code"
SMALL = ("batch.rows_per_step=2", "batch.rows_per_device=2", "evaluation.every=0", "log.trackers=[]")
ROWS = ("plan.row_length=64", "plan.budget=512")
TINY_LM = ("--width", "16", "--steps", "2", "--batch", "8", "--context", "8", "--device", "cpu")
PLAN = {
    "title": "tiny",
    "corpus": {"folder": "corpus"},
    "compressors": {"bpe": {"fit": "bpe", "options": {"symbols": 280}}},
    "models": {"one": {"backbone_config": LLAMA}},
    "arms": {"proxy": {"kind": "proxy", "compressor": "bpe", "raw_share": 0.5}},
    "seeds": [0],
    "match": {"by": "flops", "budget": 2.0e8},
    "train": {
        "precision": "float32",
        "plan": {"row_length": 64},
        "batch": {"rows_per_step": 4, "rows_per_device": 4},
        "learning_rate": {"warmup": 0.1},
        "compute": {"device": "cpu"},
    },
    "evaluation": {"points": 1, "documents": 2, "max_bytes": 200, "final_documents": 2, "final_max_bytes": 200},
}
WRITES = (
    ("corpus", ("texts", "--validation-share", "0.3", "--out", "corpus"), "corpus"),
    ("compressor fit bpe", ("--corpus", "corpus", "--symbols", "300", "--out", "bpe"), "bpe"),
    ("compressor fit token-bytes", ("--tokenizer", "base/tokenizer.json", "--out", "token-bytes"), "token-bytes"),
    ("compressor fit neural", ("--corpus", "corpus", *TINY_LM, "--out", "neural"), "neural"),
    ("compressor compile", ("neural", "--symbols", "300", "--out", "codebook"), "codebook"),
    ("compressor report", ("bpe", "--corpus", "corpus", "--samples", "0", "--out", "compared"), "compared"),
    ("prepare", ("corpus", "--compressor", "bpe", "--out", "prepared"), "prepared"),
    ("train", ("--config", "quickstart", "data=prepared", "output=run", *ROWS, *SMALL), "run/model"),
    ("consolidate", ("run", "--out", "whole"), "whole"),
    ("report", ("run", "--max-mb", "0.002"), "run/report.html"),
    ("export", ("run", "--format", "native", "--out", "native"), "native"),
    ("export", ("run", "--format", "full", "--out", "full"), "full"),
    ("export", ("wide", "--format", "gguf", "--out", "gguf"), "gguf"),
    ("byteify", ("base", "--out", "byteified"), "byteified"),
    ("prepare", ("corpus", "--compressor", "byteified/compressor", "--out", "tokens"), "tokens"),
    ("train", ("--config", "byteify-lora", "model.checkpoint=byteified", "data=tokens", "output=lora", *ROWS, *SMALL),
     "lora/model"),
    ("adapter merge", ("byteified", "lora/adapter", "--out", "merged"), "merged"),
    ("adapter graft", ("byteified", "--base", "base", "--instruct", "base", "--out", "grafted"), "grafted"),
    ("eval noise", ("native", "--data", "corpus", "--limit", "2", "--shares", "0.1", "--seeds", "1", "--out", "noise"),
     "noise/results.json"),
    ("convert evabyte", ("eva", "--back", "--out", "published"), "published"),
    ("convert evabyte", ("published", "--out", "ours"), "ours"),
    ("experiment run", ("plan.yaml", "--out", "plan"), "plan"),
    ("experiment report", ("plan",), "plan/report"),
    ("eval bpb", ("native", "--data", "corpus", "--limit", "2"), "native"),
    ("eval transfer", ("run", "--data", "corpus", "--limit", "2", "--translate-bytes", "20", "--samples", "said.jsonl"),
     "said.jsonl"),
    ("eval lm", ("--model_args", "pretrained=native", "--tasks", "proxybyte_python", "--limit", "1", "--output_path",
                 "scores"), "scores"),
    ("eval code", ("native", "--data", "problems.jsonl", "--max-new", "4", "--output", "samples", "--generate-only"),
     "samples/samples.jsonl"),
    ("eval code", ("--samples", "samples/samples.jsonl", "--data", "problems.jsonl", "--output", "judged", YES),
     "judged/results.json"),
    ("eval robustness", ("--data", "problems.jsonl", "--families", "syntax", "--output", "robust", YES), "robust"),
)  # fmt: skip
"""Command, its arguments, and what its end must name; each works on what those before it made."""
ELSEWHERE = {"quickstart": "tests/test_readme.py"}
"""Commands whose end another test holds."""


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be typed, with its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for word, sub in groups[0].choices.items() if groups else ():
        yield from leaves(sub, f"{name} {word}".strip())


def makes_something(parser: argparse.ArgumentParser) -> bool:
    """Whether it says so: a place to write to, keys of a recipe, or the words of another program."""
    options = {"--out", "--output", "--samples"} & set(parser._option_string_actions)
    return bool(options) or any(
        action.nargs == argparse.REMAINDER or "=" in str(action.metavar) for action in parser._actions
    )


def write_texts(folder: Path) -> None:
    rng = random.Random(0)
    for number in range(16):
        package = folder / f"package{number}"
        package.mkdir(parents=True)
        lines = [f"def f{rng.randrange(1000)}(x):\n    return x + {rng.randrange(1000)}\n" for _ in range(12)]
        (package / "code.py").write_text("".join(lines))


def write_base(folder: Path) -> None:
    """A model that reads tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    backend.train_from_iterator(["def f(x):\n    return x + 1\n"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**{**LLAMA, "num_key_value_heads": 2}, vocab_size=len(tokenizer))
    LlamaForCausalLM(config).save_pretrained(folder)


def write_model(folder: Path, backbone: dict, **settings) -> None:
    torch.manual_seed(0)
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=0, **settings)
    ProxyByteForCausalLM(config).save_pretrained(folder)
    save_tokenizer(build_tokenizer(), folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """What a person brings; the commands add what they make."""
    folder = tmp_path_factory.mktemp("home")
    write_texts(folder / "texts")
    write_base(folder / "base")
    write_model(folder / "wide", WIDE)
    write_model(folder / "eva", EVA, num_pred_heads=2, tie_word_embeddings=False)
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    problem = {
        "task_id": "Tiny/0",
        "prompt": 'def add_one(x):\n    """Add one to x."""\n',
        "entry_point": "add_one",
        "canonical_solution": "    y = x\n    return y + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    }
    (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    return folder


def test_every_command_that_makes_something_has_its_turn():
    parser = build_parser(load_commands())
    making = {name for name, leaf in leaves(parser) if makes_something(leaf)}
    assert {"train", "eval lm", "corpus", "compressor fit neural"} <= making  # else the finder is blind
    assert making | {"eval bpb"} == {command for command, _, _ in WRITES} | set(ELSEWHERE)


@pytest.mark.parametrize(("command", "words", "made"), WRITES, ids=[f"{name} {made}" for name, _, made in WRITES])
def test_what_was_made_and_what_comes_next_end_it(command, words, made, home, monkeypatch, capfd, caplog):
    if YES in words and capabilities().wall is Wall.LIMITS:
        pytest.skip("this machine has weak walls only")
    monkeypatch.chdir(home)
    caplog.set_level("INFO")  # train tells it by its log
    assert main([*command.split(), *words]) == 0, capfd.readouterr().err
    out, err = capfd.readouterr()
    lines = [line for line in [*out.splitlines(), *err.splitlines(), *caplog.messages] if line.strip()]
    assert (home / made).exists()
    following = next((line for line in lines if line.startswith("next: ")), "")
    assert following, lines
    assert any(re.search(rf"(?<![\w/]){made}\b", line) for line in lines if line != following), lines
    assert following in (out.splitlines() or [""])[-1:] + err.splitlines()[-1:] + caplog.messages[-1:]
    program, *typed = shlex.split(following.removeprefix("next: ").partition(", ")[0])
    if program == "llama-server":
        assert (home / typed[typed.index("-m") + 1]).is_file()
        return
    assert program == "proxybyte"
    assert callable(build_parser(load_commands()).parse_args(typed).run)
    named = [part for word in typed for part in (word, word.rpartition("=")[2])]
    assert any((home / part).exists() for part in named) or {"MODEL", "CORPUS"} & set(typed), following
