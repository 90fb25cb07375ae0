"""LICENSE and NOTICE of this package, for folders that carry its code."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from proxybyte.errors import ProxyByteError

FILES = ("LICENSE", "NOTICE")


def copy_licence(folder: Path) -> None:
    """Write both into ``folder``, as the installed package has them.

    Raises:
        ProxyByteError: if it was installed without them.
    """
    for name in FILES:
        try:
            text = distribution("proxybyte").read_text(f"licenses/{name}")
        except PackageNotFoundError:
            text = None
        if text is None:
            raise ProxyByteError(
                f"the package was installed without its {name}, which has to travel with its code: install it again "
                "with setuptools 77 or newer"
            )
        (folder / name).write_text(text, encoding="utf-8")
