"""What the demo asks of a model: to write while one looks on, what bytes cost, and how compressors cut a text."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from queue import Queue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from proxybyte.byte_codec import decode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval import byte_bits
from proxybyte.symbols import NUM_RAW_SYMBOLS, NUM_SPECIALS
from proxybyte.training import CannotEncode, Compressor, load_compressor, spelling_of

from ..generate import ByteModelFolder, GenerateOptions, Watching, continue_bytes

if TYPE_CHECKING:
    from proxybyte.drafting import DraftReport

SECONDS_BETWEEN_PICTURES = 0.08
"""Between two states that :meth:`DemoModel.write` hands out, the first byte's aside: a picture is drawn of each."""


class Drafting(StrEnum):
    """How several bytes a step are drafted; the values are what a person reads."""

    NONE = "one byte a step"
    REPEATS = "repeats"
    HEADS = "heads"
    HEADS_AND_REPEATS = "heads and repeats"
    COMPRESSED = "compressed view"


_OPTIONS: dict[Drafting, dict[str, Any]] = {
    Drafting.NONE: {},
    Drafting.REPEATS: {"draft_repeats": True},
    Drafting.HEADS: {"draft": "heads"},
    Drafting.HEADS_AND_REPEATS: {"draft": "heads", "draft_repeats": True},
    Drafting.COMPRESSED: {"draft": "compressed"},
}


@dataclass(frozen=True)
class Writing:
    """How to write.

    Attributes:
        new_bytes: at most so many; fewer where the context ends before.
        temperature: 0 takes the likeliest byte.
        seed: of the draws.
        drafting: how several bytes a step are drafted.
    """

    new_bytes: int
    temperature: float = 0.0
    seed: int = 0
    drafting: Drafting = Drafting.NONE


@dataclass(frozen=True)
class Written:
    """A text while it is written.

    Attributes:
        prompt: what it began with.
        prompt_bits: what each byte of that costs, float64 of shape ``(len(prompt),)``.
        text: the new bytes so far.
        bits: what each of them costs, at temperature 1, float64 of shape ``(len(text),)``.
        seconds: since the start.
        done: whether it is the last state.
        report: how drafting went, where several bytes a step were asked for and it is done.
    """

    prompt: bytes
    prompt_bits: np.ndarray
    text: bytes
    bits: np.ndarray
    seconds: float
    done: bool = False
    report: "DraftReport | None" = None


@dataclass(frozen=True)
class CompressedText:
    """A text as one compressor writes it.

    Attributes:
        compressor: its name.
        num_symbols: different symbols that it has.
        codes: the text's; empty where it has none.
        ends: byte offset at the end of each symbol, ``None`` where symbols have no borders.
        refusal: why the text has no code, ``None`` where it has.
    """

    compressor: str
    num_symbols: int
    codes: np.ndarray
    ends: np.ndarray | None
    refusal: str | None


class DemoModel:
    """A loaded model and the compressors that its texts are shown through.

    Args:
        folder: where the model lies.
        compressors: beside the one that it was trained with; none is shown twice.
        device: PyTorch's name of one; the CPU if absent.

    Raises:
        ProxyByteError: if the model does not load.
    """

    def __init__(self, folder: ByteModelFolder, compressors: Sequence[Compressor] = (), device: str = "cpu") -> None:
        self.folder = folder
        self.model = folder.load(device)
        own = None if folder.found.compressor is None else load_compressor(folder.found.compressor)
        by_name = {one.name: one for one in (*([own] if own is not None else []), *compressors)}
        self.compressors = tuple(by_name.values())
        self.draftings = self._draftings(own)
        self._lock = Lock()

    @classmethod
    def load(cls, source: str | Path, compressors: Sequence[str] = ()) -> "DemoModel":
        """By the names that a person gives.

        Args:
            source: a run, an export, or a name on the Hub.
            compressors: short names or folders.

        Raises:
            ProxyByteError: if one of them is not there.
        """
        return cls(ByteModelFolder.open(source), [load_compressor(name) for name in compressors])

    def bits(self, text: bytes) -> np.ndarray:
        """What each byte costs, float64 of shape ``(len(text),)``.

        Raises:
            ProxyByteError: if the text exceeds the context.
        """
        if not text:
            return np.zeros(0)
        with self._lock:
            return byte_bits(self.model, text)

    def compressed(self, text: bytes) -> list[CompressedText]:
        """``text`` through each compressor."""
        return [_compressed(one, text) for one in self.compressors]

    def write(self, prompt: bytes, writing: Writing) -> Iterator[Written]:
        """Continue ``prompt``; hands out the first byte at once, then a state now and then, then the last one.

        Who stops asking stops the writing.

        Raises:
            ProxyByteError: if the prompt leaves no room, or the model cannot draft so.
        """
        began = time.perf_counter()
        options = GenerateOptions(
            max_new_bytes=self.folder.room(prompt, writing.new_bytes),
            temperature=writing.temperature,
            seed=writing.seed,
            **_OPTIONS[writing.drafting],
        )
        prompt_bits = self.bits(prompt)
        watcher = _Watcher()
        thread = Thread(target=self._write, args=(prompt, options, watcher), daemon=True)
        thread.start()
        bits: list[float] = []
        text = bytearray()
        shown = -math.inf
        try:
            for byte, cost in watcher:
                text.append(byte)
                bits.append(cost)
                if time.perf_counter() - shown > SECONDS_BETWEEN_PICTURES:
                    shown = time.perf_counter()
                    yield Written(prompt, prompt_bits, bytes(text), np.array(bits), shown - began)
            thread.join()
            if watcher.fault is not None:
                raise watcher.fault
            seconds = time.perf_counter() - began
            yield Written(prompt, prompt_bits, bytes(text), np.array(bits), seconds, True, watcher.report)
        finally:
            watcher.stopped.set()
            thread.join()

    def _write(self, prompt: bytes, options: GenerateOptions, watcher: "_Watcher") -> None:
        try:
            with self._lock, self._noting(watcher) as processors:
                watching = Watching(watcher, processors, [_Stopped(watcher)])
                watcher.report = continue_bytes(self.folder, self.model, prompt, options, watching)
        except Exception as error:  # whoever asked raises it
            watcher.fault = error
        finally:
            watcher.end()

    @contextmanager
    def _noting(self, watcher: "_Watcher") -> Iterator[list[LogitsProcessor]]:
        """Let the watcher see scores before anything changes them; gives the processors that it needs."""
        if self.folder.is_ours:  # whose processors begin with those that are given
            yield [_Noting(watcher)]
            return
        # Transformers puts its own first, which take the sentinels away; one byte a step makes one pass a byte.
        hook = self.model.register_forward_hook(lambda _module, _given, output: watcher.note_next(output.logits[0, -1]))
        try:
            yield []
        finally:
            hook.remove()

    def _draftings(self, own: Compressor | None) -> tuple[Drafting, ...]:
        """What this model can."""
        if not self.folder.is_ours:
            return (Drafting.NONE,)
        config = self.model.config
        has_heads = config.num_pred_heads - 1 + config.num_raw_pred_heads > 0
        found = [Drafting.NONE, Drafting.REPEATS]
        found += [Drafting.HEADS, Drafting.HEADS_AND_REPEATS] if has_heads else []
        with suppress(ProxyByteError):
            if own is not None and spelling_of(own):
                found.append(Drafting.COMPRESSED)
        return tuple(found)


@dataclass
class _Watcher(BaseStreamer):
    """Bytes and what they cost, handed from the thread that writes to the one that shows.

    Attributes:
        stopped: set when nobody asks any more.
        report: how drafting went.
        fault: what ended the writing before its time.
    """

    stopped: Event = field(default_factory=Event)
    report: "DraftReport | None" = None
    fault: Exception | None = None
    _queue: "Queue[tuple[int, float] | None]" = field(default_factory=Queue)
    _logs: dict[int, torch.Tensor] = field(default_factory=dict)
    _length: int | None = None

    def note(self, length: int, scores: torch.Tensor) -> None:
        """Take what the model says after ``length`` symbols, shape ``(V,)``.

        Behind a draft that turns out wrong it is said again, and the later word counts.
        """
        self._logs[length] = scores[:NUM_RAW_SYMBOLS].double().log_softmax(-1)

    def note_next(self, scores: torch.Tensor) -> None:
        """The same after all symbols so far."""
        assert self._length is not None
        self.note(self._length, scores)

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt (first call), or new symbols; sentinels are no bytes and are passed over."""
        if self._length is None:
            self._length = value.numel()
            return
        for symbol in value.flatten().tolist():
            log = self._logs.pop(self._length)
            self._length += 1
            if NUM_SPECIALS <= symbol < NUM_RAW_SYMBOLS:
                self._queue.put((decode_bytes([symbol])[0], -float(log[symbol]) / math.log(2)))

    def end(self) -> None:
        """Nothing follows."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        while (item := self._queue.get()) is not None:
            yield item


class _Noting(LogitsProcessor):
    """Lets the watcher see the scores and leaves them as they are."""

    def __init__(self, watcher: _Watcher) -> None:
        self._watcher = watcher

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self._watcher.note(input_ids.shape[1], scores[0])
        return scores


class _Stopped(StoppingCriteria):
    """Ends the text once nobody asks for it."""

    def __init__(self, watcher: _Watcher) -> None:
        self._watcher = watcher

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        ended = self._watcher.stopped.is_set()
        return torch.full((len(input_ids),), ended, dtype=torch.bool, device=input_ids.device)


def _compressed(compressor: Compressor, text: bytes) -> CompressedText:
    (codes,) = compressor.encode_batch([text])
    about = (compressor.name, compressor.num_symbols)
    if isinstance(codes, CannotEncode):
        return CompressedText(*about, np.zeros(0, np.uint8), None, str(codes))
    return CompressedText(*about, codes, compressor.borders(codes), None)
