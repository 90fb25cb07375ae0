"""Streamers for ``generate(streamer=...)`` that hand on whole characters only.

Transformers' own text streamers decode the tail again at each step and show half a character as U+FFFD.
"""

import codecs
import sys
from collections.abc import Callable, Iterator
from queue import Queue

import torch
from transformers.generation.streamers import BaseStreamer

from .byte_codec import decode_bytes


class ByteStreamer(BaseStreamer):
    """Streams one generated row as text, each character as soon as its last byte is there.

    Bytes that are no UTF-8 come out as U+FFFD (at the end also a character that was never finished); sentinels and
    padding are left out. ``generate`` streams one row at a time.

    Args:
        sink: called with each piece of text; by default it is written to stdout.
        skip_prompt: leave out the prompt.
        errors: Python's name of what to do with invalid bytes: ``"surrogateescape"`` lets the sink get the bytes
            back with ``text.encode(errors="surrogateescape")``.
    """

    def __init__(
        self, sink: Callable[[str], object] | None = None, *, skip_prompt: bool = True, errors: str = "replace"
    ):
        self.sink = sink or _print
        self.skip_prompt = skip_prompt
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._at_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt (first call) or new symbols.

        Raises:
            ValueError: if ``value`` holds more than one row.
        """
        if value.ndim > 1 and len(value) > 1:
            raise ValueError(f"a streamer follows one row, not a batch of {len(value)}")
        is_prompt, self._at_prompt = self._at_prompt, False
        if not (is_prompt and self.skip_prompt):
            self._hand_on(self._decoder.decode(decode_bytes(value.cpu().numpy())))

    def end(self) -> None:
        """Hand on what is left; the streamer can then be used again."""
        self._hand_on(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        self._at_prompt = True

    def _hand_on(self, text: str) -> None:
        if text:
            self.sink(text)


class ByteIteratorStreamer(ByteStreamer):
    """The same as an iterator over pieces of text, for ``generate`` in another thread.

    Args:
        timeout: seconds to wait for the next piece before :class:`queue.Empty` is raised; no limit if absent.
        skip_prompt: as in :class:`ByteStreamer`.
        errors: as in :class:`ByteStreamer`.
    """

    def __init__(self, *, timeout: float | None = None, skip_prompt: bool = True, errors: str = "replace"):
        self._pieces: Queue[str | None] = Queue()
        self.timeout = timeout
        super().__init__(self._pieces.put, skip_prompt=skip_prompt, errors=errors)

    def end(self) -> None:
        """Hand on what is left and stop the iterator."""
        super().end()
        self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._pieces.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
