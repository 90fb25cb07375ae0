"""The chat tokenizer that a model folder carries."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from proxybyte.faults import loading

CHAT_FOLDER = "chat"
"""Beside the plain tokenizer of a model folder, which reads every text as text and so can have no template."""


def chat_tokenizer_in(folder: Path) -> PreTrainedTokenizerFast | None:
    """The chat kind of byte tokenizer in ``folder/chat``, ``None`` where there is none.

    Raises:
        ProxyByteError: if it cannot be loaded.
    """
    place = folder / CHAT_FOLDER
    if not (place / "tokenizer.json").is_file():
        return None
    with loading(place, "chat tokenizer"):
        return AutoTokenizer.from_pretrained(place)  # type: ignore[return-value]
