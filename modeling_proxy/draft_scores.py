"""Which symbol comes at each position of a draft, chosen exactly as one-byte generation would choose it.

Every logits processor and warper that ``generate`` prepared is applied at every position, each time to the text before
that position. Greedy decoding takes the likeliest symbol; sampling draws one from the processed distribution.
"""

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from .draft_text import Texts
from .symbols import NUM_SPECIALS
from .utf8 import Utf8LogitsProcessor
from .view_rule import STATE_AFTER, ViewLogitsProcessor

_OF_SCORES_ALONE = frozenset(
    {
        EpsilonLogitsWarper,
        EtaLogitsWarper,
        InfNanRemoveLogitsProcessor,
        LogitNormalization,
        MinPLogitsWarper,
        SuppressTokensLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    }
)
_TAIL = 3


class Chooser:
    """Chooses symbols at all positions of a step.

    Processors that look at scores, at the last sentinel, at the last three symbols or at the set of symbols see all
    positions of all rows as rows of one batch. With any other, one call is made for each length that is about to be
    verified, with the texts of the whole batch cut to that length, so that each row is where it would be.

    Args:
        processors: what ``generate`` prepared.
        do_sample: draw rather than take the likeliest.
    """

    def __init__(self, processors: LogitsProcessorList, do_sample: bool) -> None:
        self.processors = processors
        self.do_sample = do_sample
        self._sets = any(type(processor) is RepetitionPenaltyLogitsProcessor for processor in processors)
        self._at_once = all(map(_any_length, processors))
        self._opening: torch.Tensor | None = None
        self._sentinels = torch.tensor([int(sentinel) for sentinel in STATE_AFTER])

    def choose(self, logits: torch.Tensor, draft: torch.Tensor, texts: Texts) -> torch.Tensor:
        """A symbol for each position of a step.

        Args:
            logits: after the last symbol and after each drafted one, shape ``(A, 1 + n, V)``.
            draft: shape ``(A, n)``.
            texts: before the draft, which is written behind them.

        Returns:
            Shape ``(A, 1 + n)``. What is behind a row's first symbol that differs from the draft means nothing.
        """
        texts.write(draft)
        # As ``generate`` does, in float32 whatever the model computes in.
        logits = logits.to(torch.float32)
        return self._all_at_once(logits, draft, texts) if self._at_once else self._by_length(logits, draft, texts)

    def _all_at_once(self, logits: torch.Tensor, draft: torch.Tensor, texts: Texts) -> torch.Tensor:
        contexts = self._contexts(draft, texts)
        scores = self.processors(contexts, logits.flatten(0, 1))  # type: ignore[arg-type]
        return self._pick(scores).view(logits.shape[:2])

    def _contexts(self, draft: torch.Tensor, texts: Texts) -> torch.Tensor:
        """A text for each position that the processors cannot tell from the whole one, shape ``(A * (1 + n), any)``."""
        device, width = texts.ids.device, draft.shape[1] + 1
        lengths = torch.tensor(texts.active_lengths, device=device)[:, None] + torch.arange(width, device=device)
        rows = torch.tensor(texts.active, device=device)[:, None, None]
        whole = self._sets or bool((draft < NUM_SPECIALS).any())
        size = max(texts.active_lengths) + width - 1 if whole else _TAIL
        # A text that is too short begins with its first symbol several times over.
        columns = (lengths[..., None] - size + torch.arange(size, device=device)).clamp(min=0)
        tails = texts.ids[rows, columns].flatten(0, 1)
        if whole:
            return tails
        opening = self._openings(texts)[torch.tensor(texts.active, device=device)]
        return torch.cat([opening.repeat_interleave(width)[:, None], tails], dim=1)

    def _openings(self, texts: Texts) -> torch.Tensor:
        """The last sentinel of each row, or padding, shape ``(B,)``."""
        if self._opening is None:
            found = torch.isin(texts.ids, self._sentinels.to(texts.ids.device))
            at = torch.where(found, torch.arange(texts.ids.shape[1], device=found.device), -1).amax(dim=1)
            last = texts.ids.gather(1, at.clamp(min=0)[:, None]).squeeze(1)
            self._opening = last.where(at >= 0, texts.pad)
        return self._opening

    def written(self, symbols: torch.Tensor) -> None:
        """Take note of what was chosen and stays, any shape."""
        if bool((symbols < NUM_SPECIALS).any()):
            self._opening = None

    def _by_length(self, logits: torch.Tensor, draft: torch.Tensor, texts: Texts) -> torch.Tensor:
        chosen = torch.full(logits.shape[:2], texts.pad, device=draft.device)
        going, lengths = list(range(len(logits))), texts.active_lengths
        for position in range(logits.shape[1]):
            for length in sorted({lengths[place] for place in going}):
                places = [place for place in going if lengths[place] == length]
                rows = [texts.active[place] for place in places]
                scores = logits.new_zeros(len(texts.ids), logits.shape[2])
                scores[rows] = logits[places, position]
                processed = self.processors(texts.ids[:, : length + position], scores)  # type: ignore[arg-type]
                chosen[places, position] = self._pick(processed[rows])
            if position < draft.shape[1]:
                matches = (chosen[:, position] == draft[:, position]).tolist()
                going = [place for place in going if matches[place]]
        return chosen

    def _pick(self, scores: torch.Tensor) -> torch.Tensor:
        """One symbol a row of ``scores`` ``(N, V)``."""
        if not self.do_sample:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)


def _any_length(processor: object) -> bool:
    """Whether a processor looks neither at how long a text is nor at which row of the batch it is."""
    if type(processor) is RepetitionPenaltyLogitsProcessor:
        return getattr(processor, "prompt_ignore_length", None) is None
    if type(processor) is Utf8LogitsProcessor:
        return processor.max_length is None
    return type(processor) in _OF_SCORES_ALONE or type(processor) is ViewLogitsProcessor
