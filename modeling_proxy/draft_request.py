"""What a caller of ``generate`` may ask of drafting, and what it cannot be combined with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import GenerationMode

from .draft_cross_view import CrossViewDrafter
from .draft_heads import HeadsDrafter
from .draft_repeats import RepeatsDrafter
from .draft_scores import is_stateless
from .errors import ProxyByteError
from .spelling import Spelling

_UNSUPPORTED = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


class DraftKind(StrEnum):
    """Who drafts."""

    HEADS = "heads"
    """The model's multi-byte heads."""
    COMPRESSED = "compressed"
    """The model itself, in the compressed view."""


@dataclass(frozen=True)
class DraftRequest:
    """Drafting as a caller asked for it, by argument of ``generate`` or in its generation configuration.

    Attributes:
        kind: who drafts; nobody but repeats if absent.
        repeats: whether what the text says again is copied first.
        bytes: most bytes drafted at once; as many as the drafter thinks best where absent.
        spelling: of the compressed symbols, where they draft.
    """

    kind: DraftKind | None
    repeats: bool = False
    bytes: int | None = None
    spelling: Spelling | None = None

    @classmethod
    def of(cls, config: GenerationConfig) -> "DraftRequest | None":
        """What ``draft``, ``draft_repeats``, ``draft_bytes`` and ``draft_spelling`` of ``config`` ask for.

        Raises:
            ProxyByteError: if they make no sense.
        """
        kind, count = getattr(config, "draft", None), getattr(config, "draft_bytes", None)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ProxyByteError(f"draft_bytes is {count!r}: give a whole number of at least 1, or leave it out")
        repeats = getattr(config, "draft_repeats", None) or False
        if not isinstance(repeats, bool):
            raise ProxyByteError(f"draft_repeats is {repeats!r}: give True, or leave it out")
        if kind is None and not repeats:
            return None
        if kind is not None and kind not in list(DraftKind):
            names = " or ".join(repr(one.value) for one in DraftKind)
            raise ProxyByteError(f"draft is {kind!r}: give {names}, or leave it out")
        spelling = getattr(config, "draft_spelling", None)
        if (kind == DraftKind.COMPRESSED) != (spelling is not None):
            raise ProxyByteError(
                "draft='compressed' and draft_spelling go together: load_spelling of proxybyte.training "
                "makes one from the folder compressor/ of the model"
            )
        return cls(None if kind is None else DraftKind(kind), repeats, count, spelling)

    @property
    def _name(self) -> str:
        """How it was asked for."""
        return "draft_repeats=True" if self.kind is None else f"draft={self.kind.value!r}"

    def drafter(self, model: Any) -> Any:
        """Who drafts for ``model``.

        Raises:
            ProxyByteError: if the model has nothing to draft with.
        """
        drafter: Any = None
        if self.kind is DraftKind.HEADS:
            drafter = HeadsDrafter(model, self.bytes)
        elif self.spelling is not None:
            drafter = CrossViewDrafter(model, self.spelling, self.bytes)
        return RepeatsDrafter(drafter, self.bytes) if self.repeats else drafter

    def check_processors(self, processors: LogitsProcessorList, batch: int) -> None:
        """Refuse a batch under a logits processor that may keep a state from call to call.

        One-byte decoding calls it once a position, with the whole batch; where rows of a batch are at lengths of
        their own there is no such call to make. A single row is called as one-byte decoding calls it.

        Raises:
            ProxyByteError: with the processor's name.
        """
        for processor in processors if batch > 1 else ():
            if not is_stateless(processor):
                raise ProxyByteError(
                    f"{self._name} cannot be combined with {type(processor).__name__} in a batch of {batch}, because "
                    "a processor may keep a state from call to call: generate one row at a time, or, if it keeps "
                    "none, set keeps_no_state = True on it"
                )

    def check(self, mode: GenerationMode, config: GenerationConfig, others: dict[str, Any]) -> None:
        """Refuse what drafts cannot be combined with.

        Raises:
            ProxyByteError: with what stands in the way.
        """
        if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            raise ProxyByteError(
                f"{self._name} cannot be combined with {mode.value.replace('_', ' ')}: "
                "it is for greedy decoding and sampling"
            )
        if not config.use_cache:
            raise ProxyByteError(f"{self._name} needs a cache: leave use_cache=False out")
        for name in _UNSUPPORTED:
            if getattr(config, name, None):
                raise ProxyByteError(f"{self._name} cannot be combined with {name}: leave one of them out")
        if others.get("synced_gpus"):
            raise ProxyByteError(f"{self._name} does not run on a model that is sharded over processes")
