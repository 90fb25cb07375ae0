"""LICENSE and NOTICE of this package, for folders that carry its code."""

from importlib.metadata import distributions
from pathlib import Path

from proxybyte.errors import ProxyByteError

FILES = ("LICENSE", "NOTICE")


def copy_licence(folder: Path) -> None:
    """Write both into ``folder``, as the installed package has them.

    Raises:
        ProxyByteError: if it was installed without them.
    """
    for name in FILES:
        # In a checkout an .egg-info may stand before the installed metadata, and it holds neither.
        texts = (found.read_text(f"licenses/{name}") for found in distributions(name="proxybyte"))
        text = next((text for text in texts if text is not None), None)
        if text is None:
            raise ProxyByteError(
                f"the package was installed without its {name}, which has to travel with its code: install it again "
                "with setuptools 77 or newer"
            )
        (folder / name).write_text(text, encoding="utf-8")
