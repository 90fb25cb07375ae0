"""Drafting by name: what ``generate`` is to be given, or one sentence about why not."""

from pathlib import Path
from typing import Any

from proxybyte.artefacts import find_compressor
from proxybyte.errors import ProxyByteError


def drafting_options(model: Any, folder: Any, draft: str | None, repeats: bool) -> dict[str, Any]:
    """Arguments of ``generate``.

    Args:
        model: it is to generate.
        folder: where it was loaded from; a full export, if the compressed view is to draft.
        draft: ``"heads"`` or ``"compressed"``, if anybody.
        repeats: draft what the text says again.

    Raises:
        ProxyByteError: if the model is a native export, or has no compressor beside it.
    """
    if draft is None and not repeats:
        return {}
    if model.config.model_type != "proxybyte":
        raise ProxyByteError("drafting (draft, draft_repeats) needs the full export: a native one has not its code")
    asked = {"draft": draft, "draft_repeats": repeats}
    if draft != "compressed":
        return asked
    compressor = find_compressor(Path(folder)) if isinstance(folder, str | Path) else None
    if compressor is None:
        raise ProxyByteError("draft=compressed needs a full export with its folder compressor/")
    from proxybyte.training import CrossViewDrafter, load_spelling

    return {**asked, "draft": CrossViewDrafter(load_spelling(compressor))}
