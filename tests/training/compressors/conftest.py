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


@pytest.fixture(scope="session")
def small_lm(sources, tmp_path_factory):
    """M1 of 48 units after a few steps: enough that its predictions differ from place to place."""
    import torch

    from proxybyte.training.compressors.neural.fit import FitOptions, TextSampler, fit, quantise

    options = FitOptions(width=48, steps=80, batch=64, context=16, learning_rate=1e-2)
    return quantise(fit(TextSampler.of(sources), options, tmp_path_factory.mktemp("fit"), torch.device("cpu")))
