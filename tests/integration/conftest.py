"""Servers that integration tests share."""

from collections.abc import Iterator

import pytest

from tests.integration.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server."""
    with running_postgres() as server:
        yield server
