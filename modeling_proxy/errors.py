"""The error that a person caused and can mend: one sentence that names the file, row or key and the fix."""

import difflib
from collections.abc import Iterable


class ProxyByteError(ValueError):
    """Raised for bad input. The command line prints its one sentence and exits with code 2, without a traceback."""


def nearest(name: str, names: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of ``names`` that may have been meant by ``name``; ``None`` where none is so alike.

    Args:
        name: what was typed.
        names: what there is; the first of equally near ones is taken.
        likeness: least ratio of ``difflib``, 0 to 1.
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=likeness)), None)
