"""Conversations packed into rows, by random access: the same shape of dataset as the mixed views."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, IGNORE_INDEX, Special, View

from ..stream.mixed_view import PACKED_COLUMNS, RowBatch
from ..stream.plan import BudgetUnit, PlanConfig
from .encoding import EncodedChat, encode_row


def read_chats(path: Path, tokenizer: PreTrainedTokenizerFast) -> list[EncodedChat]:
    """Conversations of a JSONL file, one ``{"messages": [{"role": ..., "content": ...}, ...]}`` a line.

    A line may hold ``tools`` and ``documents`` too, for the template. A part of a message that the template writes
    nothing of is refused (:func:`encode_row`).

    Raises:
        ProxyByteError: naming the line that is no such conversation.
    """
    chats = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProxyByteError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            chats.append(encode_row(tokenizer, json.loads(line)))
        except ProxyByteError as error:
            raise ProxyByteError(f"{path}:{number}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ProxyByteError(f'{path}:{number}: is no object with a list of messages under "messages"') from error
    if not chats:
        raise ProxyByteError(f"{path}: holds no conversation")
    return chats


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

    Raises:
        ProxyByteError: if the budget is in bytes of text.
    """

    def __init__(self, chats: Sequence[EncodedChat], config: PlanConfig, where: str = "chats") -> None:
        if config.budget_unit is BudgetUnit.TEXT_BYTES:
            raise ProxyByteError("plan.budget_unit=text_bytes is not for chats: give epochs or symbols")
        self.chats, self.config, self.where = chats, config, where
        self.lengths = np.array([min(len(chat.input_ids), config.row_length) for chat in chats])
        self.truncated = sum(len(chat.input_ids) > config.row_length for chat in chats)
        self._rows = self._fill()

    def _fill(self) -> list[list[int]]:
        """Which conversations stand in each row, in order: as many as fit, next to next."""
        by_symbols = self.config.budget_unit is BudgetUnit.SYMBOLS
        wanted = int(self.config.budget) // self.config.row_length if by_symbols else None
        seen = 0 if by_symbols else round(self.config.budget * len(self.chats))
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
        targets = sum(int((chat.labels != IGNORE_INDEX).sum()) for chat in self.chats)
        used = self.lengths[np.concatenate([np.asarray(row, dtype=np.int64) for row in self._rows])].sum()
        return (
            f"{len(self):,} rows of {self.config.row_length} from {len(self.chats):,} conversations "
            f"({targets:,} of {sum(len(chat.input_ids) for chat in self.chats):,} symbols are targets), "
            f"{used / len(self) / self.config.row_length:.0%} full, {self.truncated} conversations cut"
            f"{self._unwritten()}"
        )

    def _unwritten(self) -> str:
        """Keys of messages that the template writes nothing of, for people to judge."""
        total = sum((chat.unwritten for chat in self.chats), Counter())
        return "".join(f", key {key} of {count:,} messages not written" for key, count in sorted(total.items()))
