"""What quantization costs a small trained native export: bits per byte, and whether greedy text stays the same.

The export is that of ``native_export``. Bits per byte are of the first 240 bytes of held-out documents, each read alone
behind ``<raw>``, over all 320 symbols; greedy text is 100 bytes after the first 120 of such documents. Baseline: the
same weights in float32. bitsandbytes and torchao are measured where they are installed, llama.cpp where xllamacpp is.
"""

import importlib.util
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figures import Figure
from native_export import gguf, held_out, tour
from servers import LlamaServer
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from proxybyte import encode_bytes
from proxybyte.hub_configs.gguf_file import GgufType
from proxybyte.symbols import Special

SCORED, SCORED_BYTES = 24, 240
PROMPTS, PROMPT_BYTES, NEW_BYTES = 16, 120, 100
ENDS = (int(Special.EOS), int(Special.RAW_CLOSE))


@dataclass(frozen=True)
class Quality:
    """How one way reads and writes.

    Attributes:
        bits: per byte.
        texts: greedy symbols after each prompt, without ends.
    """

    bits: float
    texts: list[list[int]]


@dataclass(frozen=True)
class Text:
    """What all ways read: symbols behind ``<raw>``."""

    scored: list[list[int]]
    prompts: list[list[int]]


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``quantized_*``: bits per byte beside float32's."""
    transformers_logging.disable_progress_bar()
    folder = tour()
    text = Text(_symbols(held_out(folder, SCORED, SCORED_BYTES)), _symbols(held_out(folder, PROMPTS, PROMPT_BYTES)))
    plain = by_transformers(_load(folder), text)
    for name, load in _ways().items():
        yield _row(name, by_transformers(load(folder), text), plain)
    if importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf"):
        for kind in (GgufType.F16, GgufType.Q8_0):
            with tempfile.TemporaryDirectory() as out:
                server = LlamaServer(gguf(folder, Path(out), kind))
                yield _row(f"gguf_{kind}", by_llama_cpp(server, text), plain)
                del server


def _symbols(texts: list[bytes]) -> list[list[int]]:
    return [[int(Special.RAW_OPEN), *encode_bytes(text).tolist()] for text in texts]


def _load(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "native", **options).eval()


def _ways() -> dict[str, Callable[[Path], Any]]:
    """How to load the export, by name of the row; those whose package is not here are left out."""
    ways: dict[str, Callable[[Path], Any]] = {
        "bfloat16": lambda folder: _load(folder, dtype=torch.bfloat16),
        "torch_dynamic_int8": lambda folder: torch.ao.quantization.quantize_dynamic(
            _load(folder), {nn.Linear}, dtype=torch.qint8
        ),
    }
    if importlib.util.find_spec("torchao"):
        ways |= {"torchao_int8": lambda folder: _torchao(folder, "Int8WeightOnlyConfig")}
        ways |= {"torchao_dynamic_int8": lambda folder: _torchao(folder, "Int8DynamicActivationInt8WeightConfig")}
    if importlib.util.find_spec("bitsandbytes"):
        eight = BitsAndBytesConfig(load_in_8bit=True)
        four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        ways |= {"bitsandbytes_int8": lambda folder: _load(folder, quantization_config=eight)}
        ways |= {"bitsandbytes_nf4": lambda folder: _load(folder, quantization_config=four)}
    return ways


def _torchao(folder: Path, kind: str) -> Any:
    from torchao import quantization

    model = _load(folder)
    quantization.quantize_(model, getattr(quantization, kind)())
    return model


@torch.inference_mode()
def by_transformers(model: Any, text: Text) -> Quality:
    """By a model of Transformers, one text at a time."""
    nats = 0.0
    for symbols in text.scored:
        ids = torch.tensor([symbols])
        likely = model(ids).logits[0, :-1].double().log_softmax(-1)
        nats -= float(likely.gather(1, ids[0, 1:, None]).sum())
    texts = []
    for symbols in text.prompts:
        ids = torch.tensor([symbols])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=NEW_BYTES, do_sample=False)
        texts.append(out[0, len(symbols) :].tolist())
    return _quality(nats, text, texts)


def by_llama_cpp(server: LlamaServer, text: Text) -> Quality:
    """By llama.cpp, whose server says the probabilities after a text: one request a byte."""
    nats = 0.0
    for symbols in text.scored:
        for place in range(1, len(symbols)):
            nats -= float(server.logprobs(symbols[:place])[symbols[place] - 64])
    return _quality(nats, text, [server.greedy(symbols, NEW_BYTES)["tokens"] for symbols in text.prompts])


def _quality(nats: float, text: Text, texts: list[list[int]]) -> Quality:
    count = sum(len(symbols) - 1 for symbols in text.scored)
    return Quality(nats / math.log(2) / count, [[s for s in one if s not in ENDS] for one in texts])


def _row(name: str, found: Quality, plain: Quality) -> Figure:
    equal = sum(a == b for a, b in zip(found.texts, plain.texts, strict=True))
    return {
        "name": f"quantized_{name}",
        "value": found.bits,
        "unit": f"bits per byte; greedy {equal} of {len(plain.texts)} texts equal; baseline: float32",
        "baseline": plain.bits,
        "ratio": found.bits / plain.bits,
    }
