"""Plans on disk, checked with messages that name the key and the fix."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError

from .. import settings
from ..settings import find_settings, nested, parse_override, parse_settings, read_yaml
from .schema import ExperimentPlan

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
