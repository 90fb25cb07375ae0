"""The byte tokenizer as a plain fast tokenizer: ``AutoTokenizer`` loads its folder with no code of ours.

Two kinds, because one string cannot both be text and spell a control token:

* the plain kind never parses a sentinel, so ``tokenizer(text)["input_ids"] == [12, *encode_bytes(text.encode())]``
  for every text, also one that holds ``<raw>``. It saves ``split_special_tokens=True``.
* the chat kind parses sentinels, because Transformers renders a chat to one string before it encodes it. Its template
  escapes the control tokens in what people wrote, and its normalizer takes the escapes out again, so that
  ``apply_chat_template`` is exact for every message (:func:`proxybyte.chat.encode_chat` is the same without a string).
"""

import json
from collections.abc import Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .chat import ESCAPE, chat_template
from .errors import ProxyByteError
from .symbols import BYTE_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS, NUM_SPECIALS, DocumentOpening, Special, special_spelling


def build_tokenizer(
    *, opening: str = DocumentOpening.RAW, chat: bool = False, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Byte tokenizer with one symbol for each UTF-8 byte; prompts begin with ``<raw>``, its ``bos_token``.

    Args:
        opening: how a document opens, as the model's ``config.document_opening`` says; with ``<bos>`` alone that is
            the ``bos_token``.
        chat: the chat kind (see the module's text), with a chat template; otherwise the plain kind, without.
        model_max_length: longest input in symbols, for tools that ask the tokenizer; unlimited if absent.
    """
    symbols = DocumentOpening(opening).symbols()
    backend = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = _prompt_opener(symbols)
    if chat:
        # Only the escape is matched, so that the offsets of the "<" before it stay right.
        backend.normalizer = normalizers.Replace(Regex(f"(?<=<){ESCAPE}"), "")
    backend.add_special_tokens(
        [AddedToken(special_spelling(symbol), special=True, normalized=False) for symbol in range(NUM_SPECIALS)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special_spelling(symbols[-1]),
        eos_token=special_spelling(Special.EOS),
        pad_token=special_spelling(Special.PAD),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=not chat,
        model_input_names=["input_ids", "attention_mask"],
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
    )
    tokenizer._add_tokens = partial(_add_known_tokens, tokenizer)  # type: ignore[method-assign]
    if chat:
        tokenizer.chat_template = chat_template(opening)
    return tokenizer


def _add_known_tokens(
    tokenizer: PreTrainedTokenizerFast, new_tokens: Iterable[Any], special_tokens: bool = False
) -> int:
    """What ``add_tokens`` does: a new token's id would be 320, which is the first compressed symbol."""
    new_tokens = list(new_tokens)
    known = tokenizer.get_vocab()
    if unknown := [str(token) for token in new_tokens if str(token) not in known]:
        raise ProxyByteError(
            f"the token {unknown[0]!r} would get id {NUM_RAW_SYMBOLS}, which is a compressed symbol: ids are owned by "
            "the symbol layout; use a spare one, such as <extra_id_19> to <extra_id_63>"
        )
    return PreTrainedTokenizerFast._add_tokens(tokenizer, new_tokens, special_tokens=special_tokens)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | PathLike[str]) -> None:
    """Save into ``folder`` (made if absent) so that Transformers 4.57 and 5 both load it.

    ``save_pretrained`` of Transformers 5 names a class that 4.57 does not have; both know the name written here.
    """
    tokenizer.save_pretrained(folder)
    path = Path(folder) / "tokenizer_config.json"
    settings = json.loads(path.read_bytes()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _vocabulary() -> dict[str, int]:
    """Every symbol below 320 by its spelling in ``tokenizer.json``.

    Specials stand here too, not only among the added tokens: an added token takes the id that the vocabulary gives
    it, and would otherwise be numbered from 256.
    """
    specials = {special_spelling(symbol): symbol for symbol in range(NUM_SPECIALS)}
    return specials | {_byte_level_letter(byte): BYTE_OFFSET + byte for byte in range(NUM_BYTES)}


def _byte_level_letter(byte: int) -> str:
    """The printable character that stands for ``byte`` in ByteLevel vocabularies (the map of GPT-2).

    Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(other not in printable for other in range(byte)))


def _prompt_opener(opening: tuple[int, ...]) -> processors.TemplateProcessing:
    """Post-processor that puts ``opening`` before each text."""
    names = [special_spelling(symbol) for symbol in opening]
    return processors.TemplateProcessing(
        single=[*names, "$A"],
        pair=[*names, "$A", *names, "$B"],
        special_tokens=[(name, int(symbol)) for name, symbol in zip(names, opening, strict=True)],
    )
