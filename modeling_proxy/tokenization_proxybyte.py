"""The byte tokenizer as a plain fast tokenizer: ``AutoTokenizer`` loads its folder with no code of ours.

Two kinds, because one string cannot both be text and spell a control token:

* the plain kind never parses a sentinel, so ``tokenizer(text)["input_ids"] == [12, *encode_bytes(text.encode())]``
  for every text, also one that holds ``<raw>``. Its ``tokenizer.json`` has no added tokens, which every program would
  look for in the text: the specials stand in the vocabulary, where no merge leads to them. Transformers adds those
  that ``tokenizer_config.json`` lists, and keeps text apart by the ``split_special_tokens`` saved there.
* the chat kind parses sentinels, because Transformers renders a chat to one string before it encodes it. Its template
  escapes the control tokens in what people wrote, and its normalizer takes the escapes out again, so that
  ``apply_chat_template`` is exact for every message (:func:`proxybyte.chat.encode_chat` is the same without a string).
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .chat import ESCAPE, chat_template
from .errors import ProxyByteError
from .symbols import BYTE_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS, NUM_SPECIALS, DocumentOpening, Special, special_spelling


class ByteTokenizer(PreTrainedTokenizerFast):
    """Transformers' own fast tokenizer, which takes no new tokens and saves itself as :func:`save_tokenizer` does.

    Nothing else is added, because ``AutoTokenizer`` loads what it saves as its base class.
    """

    def _add_tokens(self, new_tokens: Sequence[Any], special_tokens: bool = False) -> int:
        new_tokens = list(new_tokens)
        known = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        if unknown := [str(token) for token in new_tokens if str(token) not in known]:
            raise ProxyByteError(_no_new_token(unknown[0]))
        return super()._add_tokens(new_tokens, special_tokens=special_tokens)

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As Transformers, in a form that other versions and programs read alike."""
        names = super().save_pretrained(save_directory, *args, **kwargs)
        _write_for_every_program(Path(save_directory))
        return names


def build_tokenizer(
    *, opening: str = DocumentOpening.RAW, chat: bool = False, model_max_length: int | None = None
) -> ByteTokenizer:
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
    tokenizer = ByteTokenizer(
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
    if chat:
        tokenizer.chat_template = chat_template(opening)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | PathLike[str]) -> None:
    """Save into ``folder`` (made if absent) so that Transformers 4.57 and 5 and other programs load it alike.

    Args:
        tokenizer: one of :func:`build_tokenizer`, or what ``AutoTokenizer`` made of its folder.
        folder: where.

    Raises:
        ProxyByteError: if it holds more tokens than the 320 raw symbols.
    """
    if len(tokenizer) > NUM_RAW_SYMBOLS:
        raise ProxyByteError(_no_new_token(str(tokenizer.convert_ids_to_tokens(NUM_RAW_SYMBOLS))))
    tokenizer.save_pretrained(folder)
    _write_for_every_program(Path(folder))


def _no_new_token(token: str) -> str:
    return (
        f"the byte tokenizer takes no new token: {token!r} would get id {NUM_RAW_SYMBOLS}, a compressed symbol's; "
        "use a spare one, such as <extra_id_19> to <extra_id_63>"
    )


def _write_for_every_program(folder: Path) -> None:
    """Say what ``save_pretrained`` of Transformers 5 wrote in words that 4.57 and other programs know too.

    It names a class that 4.57 lacks, lists the specials under a key that 4.57 takes for a mapping, and writes them
    back among the added tokens.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("extra_special_tokens", "added_tokens_decoder", "is_local", "local_files_only"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = [special_spelling(symbol) for symbol in range(NUM_SPECIALS)]
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if settings.get("split_special_tokens"):
        path = folder / "tokenizer.json"
        backend = json.loads(path.read_text(encoding="utf-8")) | {"added_tokens": []}
        path.write_text(json.dumps(backend, indent=2, ensure_ascii=False), encoding="utf-8")


def _vocabulary() -> dict[str, int]:
    """Every symbol below 320 by its spelling in ``tokenizer.json``.

    Specials stand here too, not only among the added tokens: an added token takes the id that the vocabulary gives
    it, and would otherwise be numbered from 256.
    """
    specials = {special_spelling(symbol): symbol for symbol in range(NUM_SPECIALS)}
    return specials | {byte_level_letter(byte): BYTE_OFFSET + byte for byte in range(NUM_BYTES)}


def byte_level_letter(byte: int) -> str:
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
