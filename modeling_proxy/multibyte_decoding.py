r"""Several symbols a step, and exactly what one symbol a step gives.

Each step feeds the last symbol and a draft of the next ones. The model says at each of these positions which symbol
comes next; symbols are chosen there as one-byte generation would choose them (:mod:`.draft_scores`), and all up to and
including the first that differs from the draft are kept. So a forward pass gives one symbol more than was drafted
right, and the position where it ends is where the next draft begins.

*Why it is exact.* Let :math:`x_1, x_2, \dots` be what is kept. Symbol :math:`x_i` is chosen from the distribution
:math:`p(\cdot \mid x_{<i})`, because it is kept only if the draft before it equals :math:`x_{<i}`; with greedy decoding
it is the maximum of that distribution, with sampling a fresh draw from it. Whether it agrees with the draft decides
only how far the forward pass reaches, not what is written. That is speculative sampling (Leviathan et al. 2023,
arXiv 2211.17192) for a draft that is certain of its symbol: accepting :math:`d` with probability :math:`p(d)` and
otherwise drawing from :math:`p` without :math:`d` is to draw from :math:`p`. A draft may come from anywhere, as long as
it does not know what will be drawn.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from .cache_name import CACHE
from .draft_offer import Draft, alike, worth_verifying
from .draft_report import DraftedOutput, DraftReport
from .draft_scores import Chooser
from .draft_stopping import Stops
from .draft_text import Texts
from .errors import ProxyByteError
from .row_cache import open_rows


class Drafter(Protocol):
    """Says what might come next.

    Attributes:
        most: most symbols of a draft.
        forwards: forward passes of its own so far.
    """

    most: int
    forwards: int

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""

    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        ...


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
    """

    input_ids: torch.Tensor
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    config: GenerationConfig
    streamer: Any
    model_kwargs: dict[str, Any]


@torch.no_grad()
def decode_with_drafts(model: Any, drafter: Drafter, given: Generation) -> torch.Tensor | DraftedOutput:
    """Texts ``(B, T + n)``, or an output that holds them where the configuration asks for one.

    Raises:
        ProxyByteError: if the cache or the stopping criteria do not allow drafts.
    """
    if given.streamer is not None and len(given.input_ids) > 1:
        raise ProxyByteError(f"a streamer follows one row, not a batch of {len(given.input_ids)}")
    pad = getattr(given.config, "_pad_token_tensor", None)
    texts = Texts(given.input_ids, 0 if pad is None else int(pad))
    loop = _Loop(model, drafter, given, texts)
    loop.run()
    if given.streamer is not None:
        given.streamer.end()
    if not given.config.return_dict_in_generate:
        if loop.keeps_cache:
            loop.hand_back()
        return texts.sequences()
    sequences: Any = texts.sequences()
    return DraftedOutput(sequences=sequences, drafts=loop.report, **{CACHE: loop.hand_back()})


class _Loop:
    """Draft, verify, keep, until all rows have ended.

    Attributes:
        members: rows of the batch that the cache holds, in its order: those that go on, and where the cache is handed
            back also those that have ended.
        keeps_cache: whether it is.
        report: how drafting goes.
    """

    def __init__(self, model: Any, drafter: Drafter, given: Generation, texts: Texts) -> None:
        self._model, self._drafter, self._given, self._texts = model, drafter, given, texts
        self._stops = Stops(given.criteria, texts)
        self._chooser = Chooser(given.processors, given.config.do_sample)
        self.report = DraftReport()
        self.members = list(texts.active)
        cache = given.model_kwargs.get(CACHE)
        self.keeps_cache = given.config.return_dict_in_generate or getattr(cache, "_is_user_defined", False)
        own = ("attention_mask", "inputs_embeds", "logits_to_keep", CACHE, "position_ids", "use_cache")
        self._options = {name: value for name, value in given.model_kwargs.items() if name not in own}

    def run(self) -> None:
        """Generate."""
        texts, drafter = self._texts, self._drafter
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
                if not going:
                    break
            drafter.see(output, [count - 1 for count in step.counts])
            if any(step.ended):
                self._drop(going)
            most = min(drafter.most, self._rows.reach, self._stops.room(texts) - 1)
            drafts = worth_verifying(drafter.propose(texts, most))
            output = self._verify(alike(drafts, texts.pad))
        self.report.draft_forwards = drafter.forwards

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
            for name in ("logits", "last_hidden_state"):
                if output.get(name) is not None:
                    output[name] = output[name][places]
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
        self._drafter.keep(going)
        if not self.keeps_cache:
            self._rows.keep(going)
            self.members = list(texts.active)

    def _stream(self, kept: list[list[int]]) -> None:
        if self._given.streamer is not None:
            for symbol in kept[0]:
                self._given.streamer.put(torch.tensor([symbol]))

    def hand_back(self) -> Any:
        """The cache as one-byte generation would leave it: all but each text's last symbol."""
        return self._rows.hand_back(self._columns + max(map(len, self._texts.new)) - 1)
