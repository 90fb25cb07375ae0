"""All that a cell's result, or shared data, depend on; recorded with them, and compared with what the plan says.

Every key is recorded with its value, defaults too: a default that changes later tells, and the cell is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs import load_preset

from ..run.config import TrainConfig
from ..run.config_io import may_change
from ..settings import changed_keys, flatten, recorded
from .schema import ArmKind, ExperimentPlan

_FOUND_OUT = ("plan.budget", "plan.budget_unit")
"""Follow from what is matched, on the data."""


@dataclass(frozen=True)
class Settings:
    """What a result depends on, flat, as plain data.

    Attributes:
        values: every key.
        at_default: those that have their default.
    """

    values: dict[str, Any]
    at_default: frozenset[str]

    @property
    def fingerprint(self) -> str:
        """Work of equal fingerprint gives equal results."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


def settings_of(sections: Mapping[str, BaseModel], given: Mapping[str, Any]) -> Settings:
    """The keys of some sections but for those that results do not depend on, and others that have no default.

    Args:
        sections: by the name that their keys begin with.
        given: nested values.
    """
    values: dict[str, Any] = {}
    at_default: set[str] = set()
    for name, section in sections.items():
        every, default = recorded(section)
        values |= {f"{name}.{key}": value for key, value in every.items() if name != "train" or not _is_free(key)}
        at_default |= {f"{name}.{key}" for key in default}
    always = flatten(given)
    values |= always
    return Settings(json.loads(json.dumps(values)), frozenset((at_default & values.keys()) - always.keys()))


def cell_settings(
    plan: ExperimentPlan, kind: ArmKind, config: TrainConfig, compressor: str | None, budget: float
) -> Settings:
    """What the result of a cell depends on; how the same arithmetic is carried out is not in it, nor where files lie.

    A preset is recorded with what it holds.
    """
    given: dict[str, Any] = {"kind": kind.value, "match": {"by": plan.match.by.value, "budget": budget}}
    sections: dict[str, BaseModel] = {"train": config, "corpus": plan.corpus, "evaluation": plan.evaluation}
    if config.model.preset:
        given["preset"] = load_preset(config.model.preset).backbone_config
    if compressor is None:
        given["compressor"] = None
    else:
        sections["compressor"] = plan.compressors[compressor]
    return settings_of(sections, given)


def _is_free(key: str) -> bool:
    """Whether results do not depend on this key of a run."""
    return may_change(key) or key in _FOUND_OUT


def refuse_changed(saved: Mapping[str, Any], asked: Settings, path: Path) -> None:
    """Refuse what another version of the plan made.

    Args:
        saved: what was recorded with it.
        asked: what the plan says now.
        path: the record, for the message.

    Raises:
        ProxyByteError: naming keys that differ.
    """
    changed = [
        f"{key}={json.dumps(saved.get(key))} (now {json.dumps(asked.values.get(key))}"
        f"{' by default' if key in asked.at_default else ''})"
        for key in changed_keys(saved, asked.values, asked.at_default)
    ]
    if changed:
        raise ProxyByteError(
            f"{path} is of another version of the plan, with {', '.join(changed[:3])}"
            f"{' and more' if len(changed) > 3 else ''}: restore this in the plan, or choose another folder with --out"
        )
