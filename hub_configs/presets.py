"""Model sizes by name, each with the hyper-parameters it is trained with."""

import difflib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from proxybyte.errors import ProxyByteError

if TYPE_CHECKING:
    from proxybyte import ProxyByteConfig

_FOLDER = files(__package__) / "presets"


@dataclass(frozen=True)
class TrainingHints:
    """Hyper-parameters of AdamW and a cosine schedule that suit a size.

    Attributes:
        learning_rate: at its peak.
        betas: of AdamW.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        warmup_steps: over which the learning rate rises linearly from zero.
        final_learning_rate_share: the last learning rate as a share of the peak.
        symbols_per_step: symbols of one optimizer step, over all processes.
        steps: optimizer steps.
    """

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    warmup_steps: int
    final_learning_rate_share: float
    symbols_per_step: int
    steps: int


@dataclass(frozen=True)
class Preset:
    """A model size.

    Attributes:
        name: its file's name.
        summary: one line.
        backbone_config: the decoder, as ``ProxyByteConfig`` takes it; without a vocabulary, which is the compressor's.
        training: what it is trained with.
    """

    name: str
    summary: str
    backbone_config: dict[str, Any]
    training: TrainingHints

    def config(self, num_compressed_symbols: int = 0, **settings: Any) -> "ProxyByteConfig":
        """A model's configuration for a compressor of ``num_compressed_symbols`` symbols.

        Args:
            num_compressed_symbols: of the compressor.
            **settings: further fields of ``ProxyByteConfig``, such as ``num_pred_heads``.
        """
        from proxybyte import ProxyByteConfig  # waits for torch, as names and hints need not

        return ProxyByteConfig(
            backbone_config=dict(self.backbone_config), num_compressed_symbols=num_compressed_symbols, **settings
        )


def preset_names() -> list[str]:
    """All names, in alphabetical order."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        ProxyByteError: if there is none; the message gives the nearest name.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
        raise ProxyByteError(f"there is no preset {name!r}: {hint}")
    values = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    hints = values["training"]
    return Preset(
        name=name,
        summary=values["summary"],
        backbone_config=values["backbone_config"],
        training=TrainingHints(**{**hints, "betas": tuple(hints["betas"])}),
    )
