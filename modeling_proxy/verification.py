r"""Several symbols a step, and exactly what one symbol a step gives.

Each step feeds the last symbol and a draft of the next ones. The model says at each of these positions which symbol
comes next; symbols are chosen there as one-byte generation would choose them (:class:`Chooser`), and all up to and
including the first that differs from the draft are kept. So a forward pass gives one symbol more than was drafted
right, and the position where it ends is where the next draft begins.

*Why it is exact.* Let :math:`x_1, x_2, \dots` be what is kept. Symbol :math:`x_i` is chosen from the distribution
:math:`p(\cdot \mid x_{<i})`, because it is kept only if the draft before it equals :math:`x_{<i}`; with greedy decoding
it is the maximum of that distribution, with sampling a fresh draw from it. Whether it agrees with the draft decides
only how far the forward pass reaches, not what is written. That is speculative sampling (Leviathan et al. 2023,
arXiv 2211.17192) for a draft that is certain of its symbol: accepting :math:`d` with probability :math:`p(d)` and
otherwise drawing from :math:`p` without :math:`d` is to draw from :math:`p`. A draft may come from anywhere, as long as
it does not know what will be drawn.

*Symbols.* Every logits processor and warper that ``generate`` prepared is applied at every position, each time to the
text before that position. Greedy decoding takes the likeliest symbol; sampling draws one from the processed
distribution. *Ends.* Texts end exactly where they would end one symbol at a time (:class:`Stops`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
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
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from .drafting import Draft, DraftedOutput, Drafting, DraftReport, Texts, Verified, alike, worth_verifying
from .errors import ProxyByteError
from .logits_processors import STATE_AFTER, Utf8LogitsProcessor, ViewLogitsProcessor
from .row_cache import CACHE, RowCache, open_rows
from .symbols import NUM_RAW_SYMBOLS, NUM_SPECIALS

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


class Stops:
    """The stopping criteria of ``generate``, asked about every length of every row.

    Args:
        criteria: what ``generate`` prepared.
        texts: the prompts.

    Raises:
        ProxyByteError: without a greatest length; and for a batch that ends by some criterion but has no symbol that
            ends a text, because ``generate`` then writes on in rows that have ended.
    """

    def __init__(self, criteria: StoppingCriteriaList, texts: Texts) -> None:
        limits = [one.max_length for one in criteria if type(one) is MaxLengthCriteria]
        if not limits:
            raise ProxyByteError("drafting needs a greatest length: give max_new_tokens")
        self.max_length = min(limits)
        self._ends = {end for one in criteria if type(one) is EosTokenCriteria for end in one.eos_token_id.tolist()}
        self._others = [one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)]
        if not self._ends and self._others and len(texts.new) > 1:
            raise ProxyByteError("drafting for a batch with stopping criteria needs an eos_token_id")

    def room(self, texts: Texts) -> int:
        """How many symbols the active row with the most room can still get."""
        return self.max_length - min(texts.active_lengths)

    def verify(self, chosen: list[list[int]], draft: list[list[int]], texts: Texts) -> Verified:
        """How far the texts go: to the first symbol that differs from the draft, or ends its row.

        Args:
            chosen: ``1 + n`` symbols for each active row.
            draft: ``n`` for each.
            texts: before them.
        """
        matched, ends = [], []
        for row, symbols, drafted in zip(texts.active, chosen, draft, strict=True):
            match = next((i for i, symbol in enumerate(drafted) if symbol != symbols[i]), len(drafted))
            end = next((i + 1 for i, symbol in enumerate(symbols) if symbol in self._ends), len(symbols) + 1)
            matched.append(match)
            ends.append(min(end, self.max_length - texts.prompt - len(texts.new[row])))
        if self._others:
            ends = self._by_others(matched, ends, chosen, texts)
        counts = [min(1 + match, end) for match, end in zip(matched, ends, strict=True)]
        ended = [count == end for count, end in zip(counts, ends, strict=True)]
        return Verified(counts, [min(pair) for pair in zip(matched, counts, strict=True)], ended)

    def _by_others(self, matched: list[int], ends: list[int], chosen: list[list[int]], texts: Texts) -> list[int]:
        """``ends`` or where any other criterion ends a row before, each asked at each length that is verified."""
        ids, starts, ends = texts.ids(chosen), texts.active_lengths, list(ends)
        reach = [min(1 + match, end) for match, end in zip(matched, ends, strict=True)]
        lengths = {start + step for start, far in zip(starts, reach, strict=True) for step in range(1, far + 1)}
        for length in sorted(lengths):
            ended = self._ended(ids[:, :length])
            for place, row in enumerate(texts.active):
                step = length - starts[place]
                if 1 <= step <= reach[place] and ended[row]:
                    ends[place] = min(ends[place], step)
        return ends

    def _ended(self, ids: torch.Tensor) -> list[bool]:
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for criterion in self._others:
            ended = ended | criterion(ids, None)  # type: ignore[arg-type]
        return ended.tolist()


@dataclass(frozen=True)
class Generation:
    """What ``generate`` has prepared.

    Attributes:
        input_ids: prompts, shape ``(B, T)``.
        processors: of the scores.
        criteria: of where texts end.
        config: its configuration.
        streamer: gets each symbol of the one row, or is absent.
        model_kwargs: for the forward pass, the cache among them.
        rows: most rows of a pass; all where absent.
    """

    input_ids: torch.Tensor
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    config: GenerationConfig
    streamer: Any
    model_kwargs: dict[str, Any]
    rows: int | None = None


@torch.no_grad()
def decode_with_drafts(model: Any, drafting: Drafting, given: Generation) -> torch.Tensor | DraftedOutput:
    """Texts ``(B, T + n)``, or an output that holds them where the configuration asks for one.

    Raises:
        ProxyByteError: if the cache or the stopping criteria do not allow drafts.
    """
    if given.streamer is not None and len(given.input_ids) > 1:
        raise ProxyByteError(f"a streamer follows one row, not a batch of {len(given.input_ids)}")
    pad = getattr(given.config, "_pad_token_tensor", None)
    texts = Texts(given.input_ids, 0 if pad is None else int(pad))
    loop = _Loop(model, drafting, given, texts)
    loop.run()
    if given.streamer is not None:
        given.streamer.end()
    if not given.config.return_dict_in_generate:
        if loop.keeps_cache:
            loop.hand_back()
        return texts.sequences()
    sequences: Any = texts.sequences()
    cache = loop.hand_back() if loop.keeps_cache else None
    return DraftedOutput(sequences=sequences, drafts=loop.report, **{CACHE: cache})


def _select(output: Any, places: list[int] | slice) -> None:
    """Leave only the rows at ``places`` in what a forward pass says."""
    for name in ("logits", "last_hidden_state"):
        if output.get(name) is not None:
            output[name] = output[name][places]


class _Loop:
    """Draft, verify, keep, until all rows have ended.

    Attributes:
        members: rows of the batch that the cache holds, in its order: those that go on, and where the cache is handed
            back also those that have ended.
        keeps_cache: whether it is.
        report: how drafting goes.
    """

    def __init__(self, model: Any, drafting: Drafting, given: Generation, texts: Texts) -> None:
        self._model, self._drafting, self._given, self._texts = model, drafting, given, texts
        self._stops = Stops(given.criteria, texts)
        self._chooser = Chooser(given.processors, given.config.do_sample)
        self.report = DraftReport()
        self.members = list(texts.active)
        cache = given.model_kwargs.get(CACHE)
        self._waiting: list[tuple[int, Any]] = []
        self._width = len(texts.active) if given.rows is None else given.rows
        own_cache = getattr(cache, "_is_user_defined", False)
        self._queued = self._width < len(texts.active)
        self.keeps_cache = not self._queued and (given.config.return_dict_in_generate or own_cache)
        if self._queued:
            self._check_queue(own_cache)
        own = ("attention_mask", "inputs_embeds", "logits_to_keep", CACHE, "position_ids", "use_cache")
        self._options = {name: value for name, value in given.model_kwargs.items() if name not in own}

    def run(self) -> None:
        """Generate."""
        texts, drafting = self._texts, self._drafting
        only_raw = bool(self._options.get("raw_symbols_only"))
        output = self._read_prompts()
        drafts = [Draft([], []) for _ in texts.active]
        while True:
            draft = alike(drafts, texts.pad)
            chosen = self._chooser.choose(output.logits, draft, texts, only_raw)
            step = self._stops.verify(chosen, draft, texts)
            kept = [symbols[:count] for symbols, count in zip(chosen, step.counts, strict=True)]
            for row, symbols in zip(texts.active, kept, strict=True):
                texts.new[row] += symbols
            self._chooser.written(kept)
            self._stream(kept)
            self.report.count(drafts, step)
            self._rows.rewind([self._prompts[row] + len(texts.new[row]) - 1 for row in self.members])
            if any(step.ended):
                going = [place for place, ended in enumerate(step.ended) if not ended]
                if not going and not self._waiting:
                    break
            drafting.see(output, [count - 1 for count in step.counts])
            if any(step.ended):
                self._drop(going)
            if self._queued and self.report.forwards == 1:
                self._hold_back()
            room = self._stops.room(texts) - 1 if texts.active else 0
            drafts = drafting.propose(texts, min(drafting.most, self._rows.reach, room))
            drafts = worth_verifying(drafts + self._let_in())
            output = self._verify(alike(drafts, texts.pad))
        self.report.draft_forwards = drafting.forwards

    def _read_prompts(self) -> Any:
        """What the model says after the prompts; opens the cache by row."""
        model, given = self._model, self._given
        kwargs = given.model_kwargs
        output = model._prefill(given.input_ids, given.config, kwargs, is_first_iteration=True)
        positions = kwargs.get("position_ids")
        following = None if positions is None else positions[..., -1] + 1
        self._columns = output[CACHE].get_seq_length()
        self._rows = open_rows(output[CACHE], kwargs.get("attention_mask"), model.model.config, following)
        self._prompts = list(self._rows.lengths)
        return output

    def _verify(self, draft: list[list[int]]) -> Any:
        """What the model says after the last symbol and after each drafted one."""
        texts = self._texts
        fed = [[last, *symbols] for last, symbols in zip(texts.last(), draft, strict=True)]
        places = None
        if len(self.members) > len(texts.active):
            places = [self.members.index(row) for row in texts.active]
            everyone = [[texts.pad] * len(fed[0]) for _ in self.members]
            for place, symbols in zip(places, fed, strict=True):
                everyone[place] = symbols
            fed = everyone
        input_ids = torch.tensor(fed, device=texts.device)
        options = {**self._options, **self._suffixes(fed)}
        output = self._model(input_ids=input_ids, **self._rows.inputs(len(fed[0])), **options)
        if places is not None:
            _select(output, places)
        return output

    def _suffixes(self, fed: list[list[int]]) -> dict[str, torch.Tensor]:
        """What suffix rows read at the symbols ``fed``, of a model that has them."""
        model, texts = self._model, self._texts
        if not model.reads_suffixes:
            return {}
        reach, lengths = model.suffix_rows.reach, texts.lengths
        text = []
        for row, symbols in zip(self.members, fed, strict=True):
            before = texts.symbols(row, max(0, lengths[row] - 1 - reach))[:-1]
            text.append([texts.pad] * (reach - len(before)) + before + symbols)
        return {"suffix_symbols": model.suffix_rows.following(torch.tensor(text, device=texts.device), len(fed[0]))}

    def _drop(self, going: list[int]) -> None:
        """Let only the active rows at the places ``going`` go on."""
        texts = self._texts
        texts.active = [texts.active[place] for place in going]
        self._drafting.keep(going)
        if not self.keeps_cache:
            self._rows.keep(going)
            self.members = list(texts.active)

    def _check_queue(self, own_cache: bool) -> None:
        rows = self._given.rows
        if own_cache:
            raise ProxyByteError(f"draft_rows={rows} hands no cache back: leave {CACHE} or draft_rows out")
        if not getattr(self._drafting, "takes_rows", False):
            raise ProxyByteError(f"draft_rows={rows} is for drafts of heads and repeats: leave it out")

    def _hold_back(self) -> None:
        """Let all rows but the first ones wait for a place; each has its first symbol."""
        texts, width = self._texts, self._width
        if not isinstance(self._rows, RowCache):
            raise ProxyByteError(f"draft_rows={self._given.rows} needs a cache of keys and values: EVA has another")
        self._drafting.keep(list(range(min(width, len(texts.active)))))
        self._waiting = list(zip(texts.active[width:], self._rows.split_off(width), strict=True))
        texts.active = texts.active[:width]
        self.members = list(texts.active)

    def _let_in(self) -> list[Draft]:
        """Give the places that are free to rows that wait; their drafts, which are empty."""
        count = self._width - len(self._texts.active)
        coming, self._waiting = self._waiting[:count], self._waiting[count:]
        if coming:
            assert isinstance(self._rows, RowCache)
            self._rows.take_in([rows for _, rows in coming])
            self._texts.active += [row for row, _ in coming]
            self.members = list(self._texts.active)
            self._rows.rewind([self._prompts[row] + len(self._texts.new[row]) - 1 for row in self.members])
        return [Draft([], []) for _ in coming]

    def _stream(self, kept: list[list[int]]) -> None:
        if self._given.streamer is not None:
            for symbol in kept[0]:
                self._given.streamer.put(torch.tensor([symbol]))

    def hand_back(self) -> Any:
        """The cache as one-byte generation would leave it: all but each text's last symbol."""
        return self._rows.hand_back(self._columns + max(map(len, self._texts.new)) - 1)
