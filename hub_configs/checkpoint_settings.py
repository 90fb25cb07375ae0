"""Settings of a checkpoint, read before anything slow is imported."""

import json
from pathlib import Path
from typing import Any

from proxybyte.artefacts import CONFIG_FILE
from proxybyte.errors import ProxyByteError


def read_settings(folder: Path) -> dict[str, Any]:
    """What ``config.json`` in ``folder`` holds.

    Raises:
        ProxyByteError: if it is absent or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ProxyByteError(f"{path} cannot be read: give the folder of a checkpoint ({error})") from error
