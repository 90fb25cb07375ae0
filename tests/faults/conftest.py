"""What the commands need to run on: a few kilobytes of everything, made by the commands themselves."""

import pytest
from soak_inputs import COMMANDS, Inputs, make_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Inputs:
    """Corpus, compressors, data, a run and models of every kind, in one folder."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(params=COMMANDS)
def command(request) -> str:
    """Each that writes a folder with ``--out``."""
    return request.param


@pytest.fixture(params=[*COMMANDS, "train"])
def any_command(request) -> str:
    """Each that writes a folder."""
    return request.param
