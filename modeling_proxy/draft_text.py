"""The texts of a batch while it is generated, each row as long as it has got."""

from dataclasses import dataclass, field

import torch


@dataclass
class Texts:
    """Prompts and what came after them, in the columns that one-byte generation would use.

    Attributes:
        ids: shape ``(B, C)``; beyond a row's length lies padding, or a draft that is being verified.
        prompt: columns of the prompts, padding included.
        lengths: columns of each row so far.
        active: rows that go on, in order; their count is called ``A``.
        pad: what follows a row that has ended.
    """

    ids: torch.Tensor
    prompt: int
    pad: int
    lengths: list[int] = field(default_factory=list)
    active: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, input_ids: torch.Tensor, pad: int) -> "Texts":
        """Prompts ``(B, T)`` and nothing else."""
        batch, columns = input_ids.shape
        return cls(input_ids, columns, pad, [columns] * batch, list(range(batch)))

    @property
    def active_lengths(self) -> list[int]:
        """Columns of each active row."""
        return [self.lengths[row] for row in self.active]

    def write(self, symbols: torch.Tensor, counts: list[int] | None = None) -> None:
        """Put symbols behind the active rows.

        Args:
            symbols: shape ``(A, n)``.
            counts: how many of a row's symbols stay, the others becoming padding; without it they are a draft: all
                are written and no row gets longer.
        """
        lengths, width = self.active_lengths, symbols.shape[1]
        if (missing := max(lengths) + width - self.ids.shape[1]) > 0:
            more = max(missing, self.ids.shape[1] // 2, 64)
            self.ids = torch.nn.functional.pad(self.ids, (0, more), value=self.pad)
        device = self.ids.device
        steps = torch.arange(width, device=device)
        if counts is not None:
            symbols = symbols.where(steps < torch.tensor(counts, device=device)[:, None], self.pad)
            for row, count in zip(self.active, counts, strict=True):
                self.lengths[row] += count
        rows = torch.tensor(self.active, device=device)[:, None]
        self.ids[rows, torch.tensor(lengths, device=device)[:, None] + steps] = symbols

    def last(self) -> torch.Tensor:
        """The last symbol of each active row, shape ``(A, 1)``."""
        device = self.ids.device
        columns = torch.tensor(self.active_lengths, device=device) - 1
        return self.ids[torch.tensor(self.active, device=device), columns][:, None]

    def sequences(self) -> torch.Tensor:
        """All rows, padded at their ends to the longest."""
        return self.ids[:, : max(self.lengths)]
