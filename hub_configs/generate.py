"""Continue raw bytes with a model folder, handing on each character as it is finished."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading
from proxybyte.hub_configs.model_folder import ModelFolder, context_length, find_model, load_causal_model
from proxybyte.streaming import ByteStreamer
from proxybyte.symbols import NUM_RAW_SYMBOLS
from proxybyte.utf8 import Utf8LogitsProcessor

if TYPE_CHECKING:
    from proxybyte.draft_report import DraftReport


@dataclass(frozen=True)
class GenerateOptions:
    """How to generate.

    Attributes:
        max_new_bytes: at most so many.
        temperature: 0 takes the likeliest byte, above 0 draws from the whole distribution.
        seed: of the draws.
        utf8: let nothing but valid UTF-8 come out.
        device: PyTorch's name of one; an accelerator if there is one, else the CPU, if absent.
        draft: ``"heads"`` or ``"compressed"`` to draft several bytes a step; the output stays what it is.
        draft_repeats: draft what the text says again, with or without ``draft``.
        draft_bytes: how many at most.
    """

    max_new_bytes: int
    temperature: float = 0.0
    seed: int = 0
    utf8: bool = False
    device: str | None = None
    draft: str | None = None
    draft_repeats: bool = False
    draft_bytes: int | None = None

    @property
    def drafts(self) -> bool:
        """Whether several bytes a step are asked for."""
        return self.draft is not None or self.draft_repeats


def generate_bytes(
    source: Path, prompt: bytes, options: GenerateOptions, sink: Callable[[bytes], object]
) -> "DraftReport | None":
    """Continue ``prompt``; ``sink`` gets the new bytes, whole characters at a time where they are UTF-8.

    Args:
        source: a run or a model folder, full or native.
        prompt: any bytes, without sentinels.
        options: how.
        sink: called with each piece.

    Returns:
        How drafting went, if it was asked for.

    Raises:
        ProxyByteError: if there is no such model, it is no byte model, it cannot draft as asked, or prompt and answer
            exceed its context.
    """
    from transformers import AutoTokenizer, GenerationConfig, LogitsProcessorList

    found = find_model(source)
    folder = found.model
    model: Any = load_causal_model(folder)  # of whatever family, with generate()
    rows = model.get_input_embeddings().num_embeddings
    if model.config.model_type != "proxybyte" and rows != NUM_RAW_SYMBOLS:
        raise ProxyByteError(f"{folder} is no byte model: it has {rows} symbols, a plain byte model {NUM_RAW_SYMBOLS}")
    if not (folder / "tokenizer.json").is_file():
        raise ProxyByteError(f"{folder} holds no tokenizer.json: give a run or an export, or copy in a byte tokenizer")
    with loading(folder, "tokenizer"):
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
    written = model.to(device).generate(
        symbols.to(device),
        attention_mask=torch.ones_like(symbols).to(device),
        generation_config=GenerationConfig(
            max_length=limit,
            return_dict_in_generate=options.drafts,
            **(drawing if options.temperature else {}),
        ),
        logits_processor=LogitsProcessorList([Utf8LogitsProcessor(limit)] if options.utf8 else []),
        streamer=ByteStreamer(lambda text: sink(text.encode(errors="surrogateescape")), errors="surrogateescape"),
        **_drafting(model, found, options),
    )
    return written.drafts if options.drafts else None


def _drafting(model: Any, found: ModelFolder, options: GenerateOptions) -> dict[str, Any]:
    """What ``generate`` is to be given for drafts."""
    if not options.drafts:
        return {}
    if model.config.model_type != "proxybyte":
        raise ProxyByteError(f"{found.model} is a native export, which cannot draft: give a run or a full export")
    names = ("draft", "draft_repeats", "draft_bytes")
    asked = {name: getattr(options, name) for name in names}
    if options.draft != "compressed":
        return asked
    if found.compressor is None:
        raise ProxyByteError(f"{found.model} has no compressor beside it: --draft compressed needs one")
    from proxybyte.training import load_spelling

    return {**asked, "draft_spelling": load_spelling(found.compressor)}


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProxyByteError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
