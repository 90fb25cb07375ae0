"""Which token of the base each of our specials takes its first row from."""

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from proxybyte.symbols import NUM_SPECIALS, Special, special_spelling

TURN_STARTS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|turn>")
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<turn|>", "[/INST]", "<|eom_id|>")
"""Tokens that end a turn, the usual one of a base first."""
_TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
_SPELLINGS: Mapping[Special, Sequence[str]] = {
    Special.HEADER_START: TURN_STARTS,
    Special.HEADER_END: ("<|end_header_id|>", "\u010a", "<0x0A>", "\n"),
    Special.END_OF_TURN: TURN_ENDS,
    Special.REPO_NAME: ("<repo_name>", "<|repo_name|>", "<reponame>"),
    Special.FILE_SEP: ("<file_sep>", "<|file_sep|>", "<|file_separator|>"),
    Special.FIM_PREFIX: ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<PRE>"),
    Special.FIM_MIDDLE: ("<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<MID>"),
    Special.FIM_SUFFIX: ("<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "<SUF>"),
}


def text_end(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Token that ends a text: ``eos``, unless that ends a chat's turn and the vocabulary has one for texts."""
    eos = tokenizer.eos_token_id
    if tokenizer.eos_token in TURN_ENDS:
        return _first(tokenizer.get_vocab(), _TEXT_ENDS, eos)
    return eos


def text_start(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Token that begins a text: ``bos``, unless that begins a chat's turn or is absent; then what ends one."""
    if tokenizer.bos_token_id is None or tokenizer.bos_token in TURN_STARTS:
        return text_end(tokenizer)
    return tokenizer.bos_token_id


def map_specials(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Token of the base for each special, -1 where none fits; int64, shape ``(64,)``.

    The opening sentinels take the token that begins a text, so that ``<comp>`` and codes give the base's logits after
    its own beginning; the closing ones take the token that ends a text.
    """
    vocab = tokenizer.get_vocab()
    start, end = text_start(tokenizer), text_end(tokenizer)
    chosen: dict[Special, int | None] = {
        Special.PAD: tokenizer.pad_token_id,
        Special.BOS: start,
        Special.EOS: end,
        Special.UNK: tokenizer.unk_token_id,
        Special.SEP: getattr(tokenizer, "sep_token_id", None),
        Special.RAW_OPEN: start,
        Special.COMPRESSED_OPEN: start,
        Special.RAW_CLOSE: end,
        Special.COMPRESSED_CLOSE: end,
    }
    for special, spellings in _SPELLINGS.items():
        chosen[special] = _first(vocab, spellings, {Special.END_OF_TURN: end, Special.HEADER_START: start}.get(special))
    table = np.full(NUM_SPECIALS, -1, dtype=np.int64)
    for special, token in chosen.items():
        if token is not None:
            table[special] = token
    return table


def describe(table: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Our spelling and the base's of each special that has one, for the report."""
    return {
        special_spelling(symbol): str(tokenizer.convert_ids_to_tokens(int(token)))
        for symbol, token in enumerate(table)
        if token >= 0
    }


def _first(vocab: Mapping[str, int], spellings: Sequence[str], otherwise: int | None) -> int | None:
    return next((vocab[spelling] for spelling in spellings if spelling in vocab), otherwise)
