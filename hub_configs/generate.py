"""Continue raw bytes with a model folder, handing on each character as it is finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from proxybyte.artefacts import ModelFolder, find_model
from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.logits_processors import Utf8LogitsProcessor
from proxybyte.model_loading import context_length, load_causal_model, load_config, load_tokenizer, pick_device
from proxybyte.streaming import ByteStreamer
from proxybyte.symbols import NUM_RAW_SYMBOLS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.generation.streamers import BaseStreamer

    from proxybyte.drafting import DraftReport


DEFAULT_NEW_BYTES = 200


@dataclass(frozen=True)
class GenerateOptions:
    """How to generate.

    Attributes:
        max_new_bytes: at most so many; absent, 200 or what the prompt leaves of the model's context.
        temperature: 0 takes the likeliest byte, above 0 draws from the whole distribution.
        seed: of the draws.
        utf8: let nothing but valid UTF-8 come out.
        device: PyTorch's name of one; an accelerator if there is one, else the CPU, if absent.
        draft: ``"heads"`` or ``"compressed"`` to draft several bytes a step; the output stays what it is.
        draft_repeats: draft what the text says again, with or without ``draft``.
        draft_bytes: how many at most.
    """

    max_new_bytes: int | None = None
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


@dataclass(frozen=True)
class ByteModelFolder:
    """A folder whose model reads and writes raw bytes, before its weights are read.

    Attributes:
        found: where it and its compressor lie.
        config: its configuration.
        opening: symbols that begin a document.
    """

    found: ModelFolder
    config: "PreTrainedConfig"
    opening: tuple[int, ...]

    @classmethod
    def open(cls, source: str | Path) -> "ByteModelFolder":
        """Find it.

        Args:
            source: a run, a model folder, an export (full or native), or a name on the Hub.

        Raises:
            ProxyByteError: if there is no such model, or it is no byte model.
        """
        found = find_model(source)
        folder = found.model
        config = load_config(folder)
        rows = config.vocab_size
        if config.model_type != "proxybyte" and rows != NUM_RAW_SYMBOLS:
            raise ProxyByteError(
                f"{folder} is no byte model: it has {rows} symbols, a plain byte model {NUM_RAW_SYMBOLS}"
            )
        if not (folder / "tokenizer.json").is_file():
            raise ProxyByteError(
                f"{folder} holds no tokenizer.json: give a run or an export, or copy in a byte tokenizer"
            )
        return cls(found, config, tuple(load_tokenizer(folder)("")["input_ids"]))

    @property
    def is_ours(self) -> bool:
        """Whether the model is of our class, and no native export."""
        return self.config.model_type == "proxybyte"

    def symbols(self, prompt: bytes) -> torch.Tensor:
        """The opening and ``prompt``, shape ``(1, T)``."""
        return torch.tensor([[*self.opening, *encode_bytes(prompt).tolist()]])

    def limit(self, prompt: bytes, asked: int | None) -> int:
        """Greatest length, in symbols, of ``prompt`` and what is to follow it.

        Raises:
            ProxyByteError: if they exceed the context.
        """
        used = len(self.opening) + len(prompt)
        return used + _new_bytes(context_length(self.config), used, asked)

    def room(self, prompt: bytes, most: int) -> int:
        """How many bytes, of ``most`` or fewer, may follow ``prompt``.

        Raises:
            ProxyByteError: if none may.
        """
        context = context_length(self.config)
        return most if context is None else min(most, _room(context, len(self.opening) + len(prompt)))

    def load(self, device: str | None) -> Any:
        """The model, with ``generate()``, of whatever family."""
        model: Any = load_causal_model(self.found.model)
        return model.to(pick_device(device))


@dataclass(frozen=True)
class Watching:
    """Who looks on while bytes are written.

    Attributes:
        streamer: gets the prompt and then each symbol.
        processors: of the scores, before all others.
        criteria: of where the text ends.
    """

    streamer: "BaseStreamer"
    processors: Sequence[Any] = ()
    criteria: Sequence[Any] = ()


def generate_bytes(
    source: str | Path, prompt: bytes, options: GenerateOptions, sink: Callable[[bytes], object]
) -> "DraftReport | None":
    """Continue ``prompt``; ``sink`` gets the new bytes, whole characters at a time where they are UTF-8.

    Args:
        source: as for :meth:`ByteModelFolder.open`.
        prompt: any bytes, without sentinels.
        options: how.
        sink: called with each piece.

    Returns:
        How drafting went, if it was asked for.

    Raises:
        ProxyByteError: if there is no such model, it is no byte model, it cannot draft as asked, or prompt and answer
            exceed its context.
    """
    folder = ByteModelFolder.open(source)
    folder.limit(prompt, options.max_new_bytes)  # before the weights are read
    model = folder.load(options.device)
    streamer = ByteStreamer(lambda text: sink(text.encode(errors="surrogateescape")), errors="surrogateescape")
    return continue_bytes(folder, model, prompt, options, Watching(streamer))


def continue_bytes(
    folder: ByteModelFolder, model: Any, prompt: bytes, options: GenerateOptions, watching: Watching
) -> "DraftReport | None":
    """Continue ``prompt`` with the loaded ``model`` of ``folder``.

    Returns:
        How drafting went, if it was asked for.

    Raises:
        ProxyByteError: if it cannot draft as asked, or prompt and answer exceed its context.
    """
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    symbols, limit = folder.symbols(prompt).to(model.device), folder.limit(prompt, options.max_new_bytes)
    torch.manual_seed(options.seed)
    drawing = {"do_sample": True, "temperature": options.temperature, "top_k": 0, "top_p": 1.0}
    utf8 = [Utf8LogitsProcessor(limit)] if options.utf8 else []
    written = model.generate(
        symbols,
        attention_mask=torch.ones_like(symbols),
        generation_config=GenerationConfig(
            max_length=limit,
            return_dict_in_generate=options.drafts,
            **(drawing if options.temperature else {}),
        ),
        logits_processor=LogitsProcessorList([*watching.processors, *utf8]),
        stopping_criteria=StoppingCriteriaList(watching.criteria),
        streamer=watching.streamer,
        **_drafting(model, folder.found, options),
    )
    return written.drafts if options.drafts else None


def _new_bytes(context: int | None, used: int, asked: int | None) -> int:
    """How many bytes to write after ``used`` symbols, opening and prompt.

    Raises:
        ProxyByteError: if the prompt leaves no room in the context, or not as much as is asked for.
    """
    if context is None:
        return asked or DEFAULT_NEW_BYTES
    room = _room(context, used)
    if asked is not None and asked > room:
        raise ProxyByteError(
            f"a prompt of {used} symbols and {asked} new bytes exceed the model's context of {context}: shorten the "
            f"prompt, or lower --max-new-bytes to at most {room}"
        )
    return asked or min(DEFAULT_NEW_BYTES, room)


def _room(context: int, used: int) -> int:
    """How many bytes may follow ``used`` symbols.

    Raises:
        ProxyByteError: if none may.
    """
    if used >= context:
        raise ProxyByteError(
            f"a prompt of {used} symbols leaves no room in the model's context of {context}: shorten it to at most "
            f"{context - 1}"
        )
    return context - used


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
    from proxybyte.training import CrossViewDrafter, load_spelling

    return {**asked, "draft": CrossViewDrafter(load_spelling(found.compressor))}
