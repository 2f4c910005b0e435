"""A cluster of the test's own."""

from collections.abc import Iterator

import pytest

from tests.cluster.api_server import ApiServer


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API server without objects."""
    with ApiServer() as server:
        yield server
