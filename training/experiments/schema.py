"""What an experiment plan says: every key with its type, default and meaning; and its reading from YAML."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from proxybyte.errors import ProxyByteError
from proxybyte.eval import Noise

from .. import settings
from ..corpus.split import SplitRule
from ..settings import NameOrPath, Section, find_settings, nested, parse_override, parse_settings, read_yaml

Scalar = bool | int | float | str
"""A value of an option or of a training key."""


class ArmKind(StrEnum):
    """What an arm trains on."""

    BYTES = "bytes"
    """Raw bytes alone, a model of 320 rows."""
    COMPRESSED = "compressed"
    """Compressed views alone; with a BPE this is the tokenizer baseline. Scored in that view, per byte of text."""
    PROXY = "proxy"
    """A mix of both; scored on raw bytes."""


class PairMode(StrEnum):
    """When documents come in both views, and how the two stand to each other."""

    NONE = "none"
    WARMUP = "warmup"
    """Translation pairs (one document, either order) during warm-up only."""
    ALWAYS = "always"
    """Translation pairs all along."""
    WARMUP_PARALLEL = "warmup_parallel"
    """Pairs of two documents that do not see each other, during warm-up only."""
    ALWAYS_PARALLEL = "always_parallel"


class MatchBy(StrEnum):
    """What is equal between the cells of a plan."""

    FLOPS = "flops"
    """Training FLOPs by the formula of ``proxybyte.flops``."""
    SYMBOLS = "symbols"
    """Symbols of packed rows: equal FLOPs but for the head's rows (what the paper matches)."""
    DATA = "data"
    """Bytes of text, a pair counted once."""
    RAW_DATA = "raw_data"
    """Bytes of text shown raw; what is compressed comes on top."""


class CorpusConfig(Section):
    """The text: a folder that ``proxybyte corpus`` wrote, or what that command is to collect."""

    folder: Path | None = Field(None, description="a finished corpus folder; the other keys are not used then")
    sources: tuple[Path, ...] = Field((), description="folders and files, as 'proxybyte corpus' takes them")
    python_packages: bool = Field(False, description="the standard library and all packages installed here")
    max_mb: float | None = Field(None, gt=0, description="keep at most this much text")
    max_document_mb: float | None = Field(None, gt=0, description="leave out longer documents")
    validation_share: float = Field(
        SplitRule.validation_share, gt=0, lt=1, description="share of bytes held out, by package"
    )
    seed: int = Field(SplitRule.seed, ge=0)

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.folder is None and not self.sources and not self.python_packages:
            raise ValueError("give folder, sources or python_packages: there is no text to train on")
        return self


class CompressorConfig(Section):
    """One compressor: a name or folder (``use``), or what ``proxybyte compressor fit`` is to learn from the corpus."""

    use: NameOrPath | None = Field(
        None, description="a short name such as gzip, or a compressor's or tokenizer's folder"
    )
    fit: str | None = Field(None, description="family to fit on the plan's corpus")
    options: dict[str, Scalar] = Field({}, description="options of the fit, by their names on the command line")
    compile: dict[str, Scalar] | None = Field(None, description="options of 'compressor compile' on what was fitted")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.use is None) == (self.fit is None):
            raise ValueError("give exactly one of use and fit")
        if self.use is not None and (self.options or self.compile is not None):
            raise ValueError("options and compile go with fit, not with use")
        return self


class ModelChoice(Section):
    """A backbone in a size, and the training keys that suit it."""

    preset: str | None = Field(None, description="a size in hub_configs/presets")
    backbone_config: dict[str, Any] | None = Field(None, description="a Transformers decoder's config")
    set: dict[str, Any] = Field({}, description="training keys (dotted) of this model")
    budget: float | None = Field(None, gt=0, description="in place of the plan's budget")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.preset is None) == (self.backbone_config is None):
            raise ValueError("give exactly one of preset and backbone_config")
        return self


class ArmConfig(Section):
    """One line of the comparison; a list of several values makes one condition for each."""

    kind: ArmKind
    compressor: tuple[str, ...] = Field((), description="names under compressors; a single one needs no list")
    raw_share: tuple[float, ...] = Field((0.1,), description="share of raw documents in the steady phase (proxy)")
    pairing: tuple[PairMode, ...] = Field((PairMode.WARMUP,), description="pairs (proxy)")
    models: tuple[str, ...] | None = Field(None, description="only these models")
    set: dict[str, Any] = Field({}, description="training keys (dotted) of this arm")
    vary: dict[str, tuple[Any, ...]] = Field({}, description="training keys (dotted), each with several values")

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        listed = ("compressor", "raw_share", "pairing", "models")
        single = {key: [values[key]] for key in listed if isinstance(values.get(key), Scalar)}
        return {**values, **single}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        named = nested({**self.set, **{key: several[0] for key, several in self.vary.items() if several}})
        superposed = bool(named.get("plan", {}).get("superposed"))
        symbols = "suffix_rows" in named or "cross_view" in named.get("levers", {})
        if self.kind is not ArmKind.BYTES and not self.compressor and not superposed:
            raise ValueError(f"an arm of kind {self.kind} needs a compressor, or plan.superposed")
        if self.kind is ArmKind.BYTES and self.compressor and not symbols:
            raise ValueError("an arm of kind bytes has no compressor but for suffix_rows and levers.cross_view")
        empty = [key for key in ("raw_share", "pairing") if not getattr(self, key)]
        empty += [f"vary.{key}" for key, several in self.vary.items() if not several]
        if empty:
            raise ValueError(f"{empty[0]} is an empty list")
        if any(not 0 < share <= 1 for share in self.raw_share):
            raise ValueError(f"raw_share is {list(self.raw_share)}: shares lie above 0 and up to 1")
        return self


class MatchConfig(Section):
    """How long each cell trains."""

    by: MatchBy = MatchBy.FLOPS
    budget: float = Field(gt=0, description="FLOPs, symbols or bytes of each cell, by what is matched")


class NoisePlan(Section):
    """Bits per byte of noised text at the end of each cell, as ``proxybyte eval noise`` measures them."""

    kinds: tuple[Noise, ...] = Field((Noise.MIXED,), min_length=1, description="what happens to a character")
    shares: tuple[float, ...] = Field((0.0, 0.02, 0.05, 0.1, 0.2), min_length=2, description="of characters, rising")
    seeds: int = Field(1, ge=1, description="draws of the noise, from seed 0")
    documents: int = Field(32, ge=1, description="the first so many of the final documents")

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        rising = all(low < high for low, high in pairwise(self.shares))
        if not rising or not 0 <= self.shares[0] <= self.shares[-1] <= 1:
            raise ValueError(f"shares must rise from 0 to 1 at most, not {list(self.shares)}")
        return self


class EvaluationPlan(Section):
    """What is scored: heads of held-out documents, a few during training and more at the end."""

    points: int = Field(5, ge=1, description="evaluations during training, the last at its end")
    documents: int = Field(32, ge=1)
    max_bytes: int = Field(2048, ge=1, description="bytes of each document")
    final_documents: int = Field(128, ge=1)
    final_max_bytes: int = Field(4096, ge=1)
    noise: NoisePlan | None = Field(None, description="score noised text too; not if absent")


class ExperimentPlan(Section):
    """A grid of runs: arms (compressor x share of raw x pairing x ...) x models (backbone x size) x seeds."""

    title: str
    question: str = Field("", description="what the comparison is to tell, shown in the report")
    corpus: CorpusConfig
    compressors: dict[str, CompressorConfig] = Field({}, description="by the name that arms use")
    models: dict[str, ModelChoice] = Field(min_length=1, description="by the name that tables use")
    arms: dict[str, ArmConfig] = Field(min_length=1, description="by the name that tables use")
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    match: MatchConfig
    train: dict[str, Any] = Field({}, description="sections of a training recipe that all cells share")
    evaluation: EvaluationPlan = EvaluationPlan()
    baseline: str | None = Field(None, description="arm that the others are paired with; the first if absent")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name, arm in self.arms.items():
            for wanted, known, kind in (
                (arm.compressor, self.compressors, "compressor"),
                (arm.models or (), self.models, "model"),
            ):
                unknown = [choice for choice in wanted if choice not in known]
                if unknown:
                    raise ValueError(f"arm {name} names the {kind} {unknown[0]}, but there are {', '.join(known)}")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline} is no arm: there are {', '.join(self.arms)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold one twice")
        return self

    @property
    def baseline_arm(self) -> str:
        """Name of the arm that the others are paired with."""
        return self.baseline or next(iter(self.arms))


PLAN_FILE = "plan.json"
"""The plan that an experiment's folder was made by."""
_PLANS = Path(str(files("proxybyte.hub_configs"))) / "plans"
_SIZES = _PLANS / "sizes"
_LEFT_TO_SIZES = ("corpus", "models", "match", "match.budget")
"""What plans that ship leave open."""
_CHOICES = (
    (("use",), ("fit", "options", "compile")),
    (("preset",), ("backbone_config",)),
    (("folder",), ("sources", "python_packages", "max_mb", "max_document_mb", "validation_share")),
)
"""Groups of keys of which a section of a plan has one (a compressor, a model, a corpus)."""


def plan_names() -> list[str]:
    """Plans that ship with the package."""
    return sorted(path.stem for path in _PLANS.glob("*.yaml"))


def size_names() -> list[str]:
    """Sizes that ship with the package."""
    return sorted(path.stem for path in _SIZES.glob("*.yaml"))


def load_plan(plan: str | Path, size: str | Path | None = None, overrides: Sequence[str] = ()) -> ExperimentPlan:
    """Read a plan.

    Args:
        plan: a YAML file, or the name of a shipped plan.
        size: a YAML file of defaults that the plan is laid over, or the name of a shipped size (``smoke``, ``gpu``);
            what the plan has for this name under ``sizes`` comes on top. Compressors that no arm uses are dropped.
        overrides: ``key.sub=value``, values read as YAML.

    Raises:
        ProxyByteError: if a file is absent, no YAML or empty, a key is unknown (names the nearest), or a value wrong.
    """
    path = find_settings(plan, _PLANS, "plan", plan_names())
    values = _read(path)
    by_size = values.pop("sizes", {})
    if size is not None:
        own = by_size.get(Path(size).stem, {}) if isinstance(by_size, dict) else {}
        values = lay_over(lay_over(_read(find_settings(size, _SIZES, "size", size_names())), values), own)
    for override in overrides:
        key, value = parse_override(override)
        values = lay_over(values, nested({key: value}))
    return parse_plan(values, str(path))


def parse_plan(values: Mapping[str, Any], origin: str) -> ExperimentPlan:
    """Check ``values``; ``origin`` says in messages where they came from.

    Raises:
        ProxyByteError: for the first key that is wrong.
    """
    plan = parse_settings(ExperimentPlan, values, origin, _if_missing)
    used = {name for arm in plan.arms.values() for name in arm.compressor}
    kept = {name: value for name, value in plan.compressors.items() if name in used}
    return plan.model_copy(update={"compressors": kept})


def lay_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; of keys that exclude each other in a plan, the change replaces what was there."""
    return settings.lay_over(values, changes, _CHOICES)


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not values:
        raise ProxyByteError(f"{path} is empty: a plan needs title, corpus, models, arms and match")
    if not isinstance(values, dict):
        raise ProxyByteError(f"{path} must hold keys and values at its top level")
    return values


def _if_missing(key: str) -> str:
    """Where an absent key may come from."""
    return f": write it into the plan, or add --size ({', '.join(size_names())})" if key in _LEFT_TO_SIZES else ""
