"""Where the tokenizer model that is to be turned lies: looked for before anything slow is imported."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import NO_CODE


@dataclass(frozen=True)
class Source:
    """Where a base lies.

    Attributes:
        given: what the person typed, for messages.
        place: a folder, or a name on the Hub.
        gguf_file: name of the GGUF file in ``place``, ``None`` for a checkpoint of Transformers.
    """

    given: str
    place: str
    gguf_file: str | None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for every ``from_pretrained``."""
        return NO_CODE if self.gguf_file is None else NO_CODE | {"gguf_file": self.gguf_file}


def find_base(given: str) -> Source:
    """What ``given`` names: a GGUF file, a folder, or a name on the Hub.

    Raises:
        ProxyByteError: if it is a path that holds no model, or GGUF cannot be read here.
    """
    path = Path(given)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ProxyByteError(f"{given}: is a file but no .gguf: give a model folder, a GGUF file or a Hub name")
        return _gguf(given, path)
    if not path.is_dir():
        if path.is_absolute() or given.startswith(".") or given.count("/") > 1 or path.suffix == ".gguf":
            raise ProxyByteError(f"{given}: no such file or folder")
        return Source(given, given, None)
    if (path / "config.json").is_file():
        return Source(given, given, None)
    files = sorted(path.glob("*.gguf"))
    if not files:
        raise ProxyByteError(
            f"{given}: holds neither config.json nor a GGUF file: give the folder that a model was saved in"
        )
    if len(files) > 1:
        raise ProxyByteError(f"{given}: holds no config.json but {len(files)} GGUF files: give one of them")
    return _gguf(given, files[0])


def _gguf(given: str, path: Path) -> Source:
    if find_spec("gguf") is None:
        raise ProxyByteError(f"{given}: reading GGUF needs the package gguf: pip install gguf")
    return Source(given, str(path.parent), path.name)


def license_of(source: Source) -> str | None:
    """The licence that the base's model card names; ``None`` where there is no card, or it names none."""
    from huggingface_hub import ModelCard, hf_hub_download

    card = Path(source.place) / "README.md"
    try:
        path = card if Path(source.place).is_dir() else Path(hf_hub_download(source.place, "README.md"))
        named = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict().get("license")
    except (OSError, ValueError):  # no card, no connection, or one that nobody can read: it is told later by --license
        return None
    return named if isinstance(named, str) else None
