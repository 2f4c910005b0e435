"""Real trainer and converter processes over a home of the test's own, and over every place for workers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.jobs.everywhere import PLACES
from tests.contract.jobs.places import Place
from tests.contract.jobs.running import Service

Start = Callable[..., Service]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where workers run; see tests.contract.jobs.everywhere for how another one is added."""
    with PLACES[request.param](tmp_path / "place") as place:
        yield place


@pytest.fixture
def start(tmp_path: Path, place: Place) -> Iterator[Start]:
    """Starts services by name, with settings by keyword; kills them, and their workers, at the end."""
    started: list[Service] = []

    def start(name: str = "trainer", **settings: str) -> Service:
        started.append(Service(name, tmp_path, place, **settings))
        return started[-1]

    yield start
    for service in started:
        service.end()


@pytest.fixture
def trainer(start: Start) -> Service:
    """A trainer that runs one job at a time."""
    return start()
