"""The texts of a batch while it is generated, each row as long as it has got."""

import torch
from torch.nn import functional as F


class Texts:
    """Prompts and what came after them, in the columns that one-byte generation would use.

    New symbols are numbers of Python until somebody asks for a tensor: a step handles a few of them, and each operation
    on a tensor costs as much as a hundred on numbers.

    Args:
        input_ids: prompts, shape ``(B, T)``.
        pad: what follows a row that has ended.

    Attributes:
        prompt: columns of the prompts, padding included.
        new: symbols of each row behind its prompt.
        active: rows that go on, in order; their count is called ``A``.
        pad: what follows a row that has ended.
        device: of the prompts.
    """

    def __init__(self, input_ids: torch.Tensor, pad: int) -> None:
        batch, self.prompt = input_ids.shape
        self.pad, self.device = pad, input_ids.device
        self.new: list[list[int]] = [[] for _ in range(batch)]
        self.active = list(range(batch))
        self._ids = input_ids
        self._written = [0] * batch

    @property
    def lengths(self) -> list[int]:
        """Columns of each row so far."""
        return [self.prompt + len(symbols) for symbols in self.new]

    @property
    def active_lengths(self) -> list[int]:
        """Columns of each active row."""
        return [self.prompt + len(self.new[row]) for row in self.active]

    def last(self) -> list[int]:
        """The last symbol of each active row, which is a new one."""
        return [self.new[row][-1] for row in self.active]

    def symbols(self, row: int, start: int) -> list[int]:
        """Columns of a row from ``start`` on."""
        if start >= self.prompt:
            return self.new[row][start - self.prompt :]
        return self._ids[row, start : self.prompt].tolist() + self.new[row]

    def ids(self, ahead: list[list[int]] | None = None) -> torch.Tensor:
        """All rows as a tensor, shape ``(B, C)``; what is in it beyond a row's length means nothing.

        Args:
            ahead: symbols to put behind the active rows, as many for each.
        """
        longest = max(self.lengths) + (len(ahead[0]) if ahead else 0)
        if (missing := longest - self._ids.shape[1]) > 0:
            self._ids = F.pad(self._ids, (0, max(missing, self._ids.shape[1] // 2, 64)), value=self.pad)
        for row, symbols in enumerate(self.new):
            self._write(row, self._written[row], symbols[self._written[row] :])
            self._written[row] = len(symbols)
        for row, symbols in zip(self.active, ahead or [[]] * len(self.active), strict=True):
            self._write(row, len(self.new[row]), symbols)
        return self._ids

    def _write(self, row: int, place: int, symbols: list[int]) -> None:
        if symbols:
            start = self.prompt + place
            self._ids[row, start : start + len(symbols)] = torch.tensor(symbols, device=self.device)

    def sequences(self) -> torch.Tensor:
        """All rows, padded at their ends to the longest, shape ``(B, C)``."""
        width = max(map(len, self.new))
        new = [symbols + [self.pad] * (width - len(symbols)) for symbols in self.new]
        behind = torch.tensor(new, dtype=self._ids.dtype, device=self.device).view(len(new), width)
        return torch.cat([self._ids[:, : self.prompt], behind], dim=1)
