"""The error that a person caused and can mend: one sentence that names the file, row or key and the fix."""

import difflib
import re
from collections.abc import Iterable


class ProxyByteError(ValueError):
    """Raised for bad input. The command line prints its one sentence and exits with code 2, without a traceback."""


class WrongOption(ProxyByteError):
    """Raised for a wrong value of an option, whose name a caller spells ``top_p`` and the command line ``--top-p``.

    Args:
        sentence: with the option's name as a caller spells it.
        name: that name; its first occurrence is what the command line spells its own way.
    """

    def __init__(self, sentence: str, name: str):
        super().__init__(sentence)
        self.name = name

    def on_command_line(self) -> str:
        """The sentence for whoever typed the option."""
        return re.sub(rf"\b{re.escape(self.name)}\b", f"--{self.name.replace('_', '-')}", str(self), count=1)


def nearest(name: str, names: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of ``names`` that may have been meant by ``name``; ``None`` where none is so alike.

    Args:
        name: what was typed.
        names: what there is; the first of equally near ones is taken.
        likeness: least ratio of ``difflib``, 0 to 1.
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=likeness)), None)
