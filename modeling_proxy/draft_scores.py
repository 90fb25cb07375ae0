"""Which symbol comes at each position of a draft, chosen exactly as one-byte generation would choose it.

Every logits processor and warper that ``generate`` prepared is applied at every position, each time to the text before
that position. Greedy decoding takes the likeliest symbol; sampling draws one from the processed distribution.
"""

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from .draft_text import Texts
from .symbols import NUM_RAW_SYMBOLS, NUM_SPECIALS
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
_STATELESS = _OF_SCORES_ALONE | {
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    TopHLogitsWarper,
    Utf8LogitsProcessor,
    ViewLogitsProcessor,
}
"""Those of Transformers and our own that answer from text and scores alone."""
_TAIL = 3


def is_stateless(processor: object) -> bool:
    """Whether a processor's answer is known to depend on nothing but the text and the scores that it is given."""
    return type(processor) in _STATELESS or bool(getattr(processor, "keeps_no_state", False))


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
        kinds = {type(processor) for processor in processors}
        self._sets = RepetitionPenaltyLogitsProcessor in kinds
        self._tails = Utf8LogitsProcessor in kinds
        self._at_once = all(map(_any_length, processors))
        # What some processors number by, beyond the raw symbols, may be anywhere.
        self._any_width = SuppressTokensLogitsProcessor not in kinds and not self._sets
        self._openings: list[int] = []

    def choose(self, logits: torch.Tensor, draft: list[list[int]], texts: Texts, only_raw: bool) -> list[list[int]]:
        """A symbol for each position of a step.

        Args:
            logits: after the last symbol and after each drafted one, shape ``(A, 1 + n, V)``.
            draft: ``n`` symbols for each active row.
            texts: before the draft.
            only_raw: whether minus infinity is all there is beyond the raw symbols.

        Returns:
            ``1 + n`` symbols for each active row. What is behind a row's first symbol that differs from the draft
            means nothing.
        """
        if not self._at_once:
            return self._by_length(logits.to(torch.float32), draft, texts)
        if only_raw and self._any_width:
            logits = logits[..., :NUM_RAW_SYMBOLS]
        # As ``generate`` does, in float32 whatever the model computes in.
        scores = logits.to(torch.float32).flatten(0, 1)
        scores = self.processors(self._contexts(draft, texts), scores)  # type: ignore[arg-type]
        return self._pick(scores).view(logits.shape[:2]).tolist()

    def _contexts(self, draft: list[list[int]], texts: Texts) -> torch.Tensor:
        """A text for each position that the processors cannot tell from the whole one, shape ``(A * (1 + n), any)``."""
        width = len(draft[0]) + 1
        if not self._openings:
            self._openings = _last_sentinels(texts)
        whole = self._sets or any(symbol < NUM_SPECIALS for symbols in draft for symbol in symbols)
        openings = torch.tensor([self._openings[row] for row in texts.active], device=texts.device)
        openings = openings.repeat_interleave(width)[:, None]
        ids = texts.ids(draft)
        if not ids.shape[1] or not (whole or self._tails):
            return openings
        lengths = torch.tensor(texts.active_lengths, device=texts.device)[:, None]
        lengths = lengths + torch.arange(width, device=texts.device)
        size = max(texts.active_lengths) + width - 1 if whole else _TAIL
        # A text that is too short begins with its first symbol several times over.
        columns = (lengths[..., None] - size + torch.arange(size, device=texts.device)).clamp(min=0)
        rows = torch.tensor(texts.active, device=texts.device)[:, None, None]
        tails = ids[rows, columns].flatten(0, 1)
        return tails if whole else torch.cat([openings, tails], dim=1)

    def written(self, symbols: list[list[int]]) -> None:
        """Take note of the symbols that stay."""
        if any(symbol < NUM_SPECIALS for row in symbols for symbol in row):
            self._openings = []

    def _by_length(self, logits: torch.Tensor, draft: list[list[int]], texts: Texts) -> list[list[int]]:
        ids, lengths = texts.ids(draft), texts.active_lengths
        chosen = [[texts.pad] * logits.shape[1] for _ in draft]
        going = list(range(len(draft)))
        for position in range(logits.shape[1]):
            for length in sorted({lengths[place] for place in going}):
                places = [place for place in going if lengths[place] == length]
                rows = [texts.active[place] for place in places]
                scores = logits.new_zeros(len(ids), logits.shape[2])
                scores[rows] = logits[places, position]
                processed = self.processors(ids[:, : length + position], scores)  # type: ignore[arg-type]
                for place, symbol in zip(places, self._pick(processed[rows]).tolist(), strict=True):
                    chosen[place][position] = symbol
            if position < len(draft[0]):
                going = [place for place in going if chosen[place][position] == draft[place][position]]
        return chosen

    def _pick(self, scores: torch.Tensor) -> torch.Tensor:
        """One symbol a row of ``scores`` ``(N, V)``."""
        if not self.do_sample:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)


def _last_sentinels(texts: Texts) -> list[int]:
    """The last sentinel of each row, or padding."""
    ids = texts.ids()
    if not ids.shape[1]:  # the prompt is embeddings alone
        return [texts.pad] * len(ids)
    found = torch.isin(ids, torch.tensor([int(sentinel) for sentinel in STATE_AFTER], device=ids.device))
    columns = torch.arange(ids.shape[1], device=ids.device)
    found &= columns < torch.tensor(texts.lengths, device=ids.device)[:, None]
    at = torch.where(found, columns, -1).amax(dim=1)
    last = ids.gather(1, at.clamp(min=0)[:, None]).squeeze(1)
    return last.where(at >= 0, texts.pad).tolist()


def _any_length(processor: object) -> bool:
    """Whether a processor looks neither at how long a text is nor at which row of the batch it is."""
    if type(processor) is RepetitionPenaltyLogitsProcessor:
        return getattr(processor, "prompt_ignore_length", None) is None
    if type(processor) is Utf8LogitsProcessor:
        return processor.max_length is None
    return type(processor) in _OF_SCORES_ALONE or type(processor) is ViewLogitsProcessor
