"""What tests of verbs leave as they found it."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Verbs that run in pods set the logs of their process up: this one has more to do."""
    yield
    structlog.reset_defaults()
