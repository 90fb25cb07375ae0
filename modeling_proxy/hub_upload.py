"""What ``push_to_hub`` of Transformers would leave behind: the card and the compressor beside the model."""

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.utils import logging

logger = logging.get_logger(__name__)

_BLANK = "This is the model card of a 🤗 transformers model that has been pushed on the Hub."
"""In the card that Transformers makes where the repository has none."""
_CARD, _MODEL = "README.md", "model"
_FILES = ("byteify.json", "training.json", "export.json", "LICENSE", "NOTICE")
_FOLDERS = ("compressor", "chat")
_COMMAND = "proxybyte push"


class PushesWithCard:
    """Before :class:`~transformers.PreTrainedModel`: ``push_to_hub`` also sends what lies beside the model.

    That is the card, unless the repository has one already, the compressor, the chat tokenizer, and the JSON that says
    where the model comes from. They are taken from the folder that ``from_pretrained`` read; of a model from the Hub
    or from nowhere there is none.
    """

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Add them to what Transformers has saved, then upload as it does."""
        copy_companions(Path(str(getattr(self, "name_or_path", "") or "")), Path(working_dir))
        logger.warning(
            f"push_to_hub does not look for private paths and tokens, nor write a card: '{_COMMAND} FOLDER {repo_id}' "
            "does both"
        )
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what goes with the model in ``source`` to ``folder``, and take the path out of its configuration."""
    _forget_source(folder / "config.json")
    if not (source / "config.json").is_file():
        return
    homes = [source, *([source.parent] if source.name == _MODEL else [])]
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for name in _FOLDERS:
        place = next((home / name for home in homes if (home / name).is_dir()), None)
        if place is not None:
            shutil.copytree(place, folder / name, dirs_exist_ok=True)
    _keep_card(source / _CARD, folder / _CARD)


def _keep_card(mine: Path, theirs: Path) -> None:
    """Put our card in the place of the blank one, with the tags that were asked for; another one stays."""
    if not mine.is_file() or not theirs.is_file() or _BLANK not in theirs.read_text(encoding="utf-8"):
        return
    card = ModelCard(mine.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    asked = ModelCard(theirs.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict().get("tags") or []
    tags = card.data.to_dict().get("tags") or []
    if missing := [tag for tag in asked if tag not in tags]:
        card.data["tags"] = [*tags, *missing]
        card.save(theirs)
    else:
        shutil.copyfile(mine, theirs)


def _forget_source(path: Path) -> None:
    if not path.is_file():
        return
    config = json.loads(path.read_bytes())
    kept = {key: value for key, value in config.items() if key != "_name_or_path"}
    if kept != config:
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
