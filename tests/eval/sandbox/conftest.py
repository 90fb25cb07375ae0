"""The walls of this machine."""

import pytest

from proxybyte.eval.sandbox import Wall, capabilities


@pytest.fixture(params=[Wall.NAMESPACES, Wall.FILTERS])
def wall(request) -> Wall:
    if request.param is Wall.NAMESPACES and capabilities().wall is not Wall.NAMESPACES:
        pytest.skip(capabilities().report())
    return request.param
