"""Continue raw bytes with a model folder, handing on each character as it is finished."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.model_folder import context_length, find_model, load_causal_model
from proxybyte.streaming import ByteStreamer
from proxybyte.symbols import NUM_RAW_SYMBOLS
from proxybyte.utf8 import Utf8LogitsProcessor


@dataclass(frozen=True)
class GenerateOptions:
    """How to generate.

    Attributes:
        max_new_bytes: at most so many.
        temperature: 0 takes the likeliest byte, above 0 draws from the whole distribution.
        seed: of the draws.
        utf8: let nothing but valid UTF-8 come out.
        device: PyTorch's name of one; an accelerator if there is one, else the CPU, if absent.
    """

    max_new_bytes: int
    temperature: float = 0.0
    seed: int = 0
    utf8: bool = False
    device: str | None = None


def generate_bytes(source: Path, prompt: bytes, options: GenerateOptions, sink: Callable[[bytes], object]) -> None:
    """Continue ``prompt``; ``sink`` gets the new bytes, whole characters at a time where they are UTF-8.

    Args:
        source: a run or a model folder, full or native.
        prompt: any bytes, without sentinels.
        options: how.
        sink: called with each piece.

    Raises:
        ProxyByteError: if there is no such model, it is no byte model, or prompt and answer exceed its context.
    """
    from transformers import AutoTokenizer, GenerationConfig, LogitsProcessorList

    folder = find_model(source).model
    model: Any = load_causal_model(folder)  # of whatever family, with generate()
    rows = model.get_input_embeddings().num_embeddings
    if model.config.model_type != "proxybyte" and rows != NUM_RAW_SYMBOLS:
        raise ProxyByteError(f"{folder} is no byte model: it has {rows} symbols, a plain byte model {NUM_RAW_SYMBOLS}")
    opening = AutoTokenizer.from_pretrained(folder)("")["input_ids"]
    symbols = torch.tensor([[*opening, *encode_bytes(prompt).tolist()]])
    limit = symbols.shape[1] + options.max_new_bytes
    context = context_length(model.config)
    if context is not None and limit > context:
        raise ProxyByteError(
            f"a prompt of {len(prompt)} bytes and {options.max_new_bytes} new ones exceed the model's context of "
            f"{context}: shorten the prompt or lower --max-new-bytes"
        )
    device = _device(options.device)
    torch.manual_seed(options.seed)
    drawing = {"do_sample": True, "temperature": options.temperature, "top_k": 0, "top_p": 1.0}
    model.to(device).generate(
        symbols.to(device),
        attention_mask=torch.ones_like(symbols).to(device),
        generation_config=GenerationConfig(max_length=limit, **(drawing if options.temperature else {})),
        logits_processor=LogitsProcessorList([Utf8LogitsProcessor(limit)] if options.utf8 else []),
        streamer=ByteStreamer(lambda text: sink(text.encode(errors="surrogateescape")), errors="surrogateescape"),
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProxyByteError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
