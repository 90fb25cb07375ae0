import sysconfig
from pathlib import Path

import pytest

from proxybyte.training.compressors.bpe import BpeCompressor
from proxybyte.training.compressors.bpe_train import Split, train_bpe

STDLIB = Path(sysconfig.get_paths()["stdlib"])


def stdlib_sources(*folders: str) -> list[bytes]:
    """The Python sources of some standard packages, read where the tests run."""
    paths = [path for folder in folders for path in sorted((STDLIB / folder).glob("*.py"))]
    return [document for path in paths if (document := path.read_bytes())]


@pytest.fixture(scope="session")
def sources() -> list[bytes]:
    """About 1 MB of real source."""
    return stdlib_sources("asyncio", "email")


@pytest.fixture(scope="session")
def held_out() -> list[bytes]:
    return stdlib_sources("json", "logging", "importlib")


@pytest.fixture(scope="session")
def trained(sources) -> dict[Split, BpeCompressor]:
    """One small BPE for each way of cutting text."""
    return {split: train_bpe(sources, 1500, split) for split in Split}
