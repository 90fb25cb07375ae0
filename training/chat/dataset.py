"""Conversations packed into rows, by random access: the same shape of dataset as the mixed views."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, IGNORE_INDEX, Special, View

from ..machine import host_memory, refuse_beyond
from ..stream.mixed_view import PACKED_COLUMNS, RowBatch
from ..stream.plan import BudgetUnit, PlanConfig
from ..texts import numbered_lines
from .encoding import EncodedChat, encode_row

log = logging.getLogger(__name__)

_BYTES_A_CHAT = 72
"""Memory of a conversation's place in the list of rows."""
_LONGEST_LINE = 100_000_000


def read_chats(path: Path, tokenizer: PreTrainedTokenizerFast) -> list[EncodedChat]:
    """Conversations of a JSONL file, one ``{"messages": [{"role": ..., "content": ...}, ...]}`` a line.

    A line may hold ``tools`` and ``documents`` too, for the template. A part of a message that the template writes
    nothing of is refused (:func:`encode_row`).

    Raises:
        ProxyByteError: naming the line that is no such conversation.
    """
    chats = []
    for number, line in _lines(path):
        try:
            chats.append(encode_row(tokenizer, json.loads(line)))
        except ProxyByteError as error:
            raise ProxyByteError(f"{path}:{number}: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProxyByteError(f'{path}:{number}: is no object with a list of messages under "messages"') from error
    if not chats:
        raise ProxyByteError(f"{path}: holds no conversation")
    return chats


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of the file that are not blank, each with its number.

    Raises:
        ProxyByteError: if the file cannot be read, or a line is too long or not UTF-8.
    """
    try:
        for number, line in numbered_lines(path, _LONGEST_LINE):
            if line is None:
                raise ProxyByteError(f"{path}:{number}: has more than {_LONGEST_LINE:,} bytes")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ProxyByteError(f"{path}:{number}: byte {error.start} of the line is not UTF-8") from error
    except OSError as error:
        raise ProxyByteError(f"{path} cannot be read: {error.strerror or error}") from error


class ChatDataset(Dataset):
    """Row ``i`` of a run over conversations; each row holds whole ones, in a fresh random order each epoch.

    A conversation longer than a row is cut at its end. Positions restart at each conversation, so that none sees
    another.

    Args:
        chats: the conversations.
        config: row length, budget and seed; schedules are of no use here.
        where: the file, for messages.

    Attributes:
        truncated: conversations that are longer than a row.
        without_target: of those, the ones whose first answer begins beyond the row: they teach nothing.

    Raises:
        ProxyByteError: if the budget is in bytes of text, holds no conversation or is more than memory can hold, or if
            no conversation has a target within a row.
    """

    def __init__(self, chats: Sequence[EncodedChat], config: PlanConfig, where: str = "chats") -> None:
        if config.budget_unit is BudgetUnit.TEXT_BYTES:
            raise ProxyByteError("plan.budget_unit=text_bytes is not for chats: give epochs or symbols")
        self.chats, self.config, self.where = chats, config, where
        self.lengths = np.array([min(len(chat.input_ids), config.row_length) for chat in chats])
        self.truncated = sum(len(chat.input_ids) > config.row_length for chat in chats)
        self._targets = [int((chat.labels[1 : config.row_length] != IGNORE_INDEX).sum()) for chat in chats]
        self.without_target = self._targets.count(0)
        if self.without_target == len(chats):
            raise ProxyByteError(
                f"{where}: no answer of the assistant begins within a row of {config.row_length} symbols, so there is "
                "nothing to learn: raise plan.row_length"
            )
        if self.without_target:
            log.warning(
                "%s: %d of %d conversations teach nothing, their first answer begins beyond a row of %d symbols: raise "
                "plan.row_length, or leave them out",
                where,
                self.without_target,
                len(chats),
                config.row_length,
            )
        self._rows = self._fill()

    def _fill(self) -> list[list[int]]:
        """Which conversations stand in each row, in order: as many as fit, next to next."""
        budget, by_symbols = self.config.budget, self.config.budget_unit is BudgetUnit.SYMBOLS
        wanted = int(budget) // self.config.row_length if by_symbols else None
        seen = 0 if by_symbols else round(budget * len(self.chats))
        placed = budget / self.lengths.mean() if by_symbols else seen
        fix = "lower plan.budget"
        refuse_beyond(host_memory(), placed * _BYTES_A_CHAT, f"the plan of plan.budget={budget:g}", fix)
        if wanted is None and seen == 0:
            raise ProxyByteError(
                f"plan.budget={budget:g} epochs of {len(self.chats)} conversation(s) hold not one of them: raise it"
            )
        rows: list[list[int]] = [[]]
        room, epoch = self.config.row_length, 0
        while (len(rows) <= wanted) if wanted is not None else seen > 0:
            order = self._order(epoch)
            for chat in (order if wanted is not None else order[:seen]).tolist():
                if self.lengths[chat] > room:
                    rows.append([])
                    room = self.config.row_length
                rows[-1].append(chat)
                room -= int(self.lengths[chat])
            seen, epoch = seen - len(order), epoch + 1
        return rows[:wanted]

    def _order(self, epoch: int) -> np.ndarray:
        bits = np.random.Philox(np.random.SeedSequence([self.config.seed, epoch])).random_raw(len(self.chats))
        return np.argsort(bits, kind="stable")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """One row: ``input_ids``, ``position_ids``, ``labels``, each of shape ``(row_length,)``."""
        batch = self.batch([row])
        return {name: getattr(batch, name)[0] for name in PACKED_COLUMNS}

    def batch(self, rows: Sequence[int]) -> RowBatch:
        """Rows ``rows``, in that order.

        Raises:
            IndexError: if a row is not in the run.
        """
        shape = (len(rows), self.config.row_length)
        ids, labels = np.full(shape, int(Special.PAD)), np.full(shape, IGNORE_INDEX)
        positions = np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} is not in 0 .. {len(self) - 1}")
            start = 0
            for chat in self._rows[row]:
                end = start + int(self.lengths[chat])
                ids[place, start:end] = self.chats[chat].input_ids[: end - start]
                labels[place, start + 1 : end] = self.chats[chat].labels[1 : end - start]
                positions[place, start:end] = np.arange(end - start)
                start = end
            positions[place, start:] = np.arange(self.config.row_length - start)
        text = float(((ids >= BYTE_OFFSET) & (ids < COMPRESSED_OFFSET)).sum())
        return RowBatch(tuple(int(row) for row in rows), ids, positions, labels, {View.RAW: text, View.COMPRESSED: 0.0})

    def describe(self) -> str:
        """What the run will show."""
        used = self.lengths[np.concatenate([np.asarray(row, dtype=np.int64) for row in self._rows])].sum()
        return (
            f"{len(self):,} rows of {self.config.row_length} from {len(self.chats):,} conversations "
            f"({sum(self._targets):,} of {self.lengths.sum():,} symbols that fit are targets), "
            f"{used / len(self) / self.config.row_length:.0%} full, {self.truncated} conversations cut, "
            f"{self.without_target} of them without a target{self._unwritten()}"
        )

    def _unwritten(self) -> str:
        """Keys of messages that the template writes nothing of, for people to judge."""
        total = sum((chat.unwritten for chat in self.chats), Counter())
        return "".join(f", key {key} of {count:,} messages not written" for key, count in sorted(total.items()))
