"""Where the workers of a service under test run, and what a test can do to them there.

The tests of this folder are held over every place in PLACES. To hold them over another executor, add a line
to it: a name, and a context manager that is given an empty folder and gives a Place whose `settings` make a
service use that executor. Its workers have to be processes of this machine, run from the repository's root
with the environment of the tests, or else `pid` has nothing to return.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol


class Place(Protocol):
    """Where workers run. `worker` is what a service logs of one: its executor's Attempt.name."""

    def settings(self) -> dict[str, str]:
        """Returns the environment that makes a service run its workers here."""

    def pid(self, worker: str) -> int:
        """Returns the pid of a worker's own process, be it gone meanwhile."""

    def end(self, workers: Iterable[str]) -> None:
        """Ends the workers at the end of a test; a place that ends them all at its own end does nothing."""


class Local:
    """This machine, where a worker's name is its pid."""

    def settings(self) -> dict[str, str]:
        return {"CONCH_EXECUTOR": "local"}

    def pid(self, worker: str) -> int:
        return int(worker)

    def end(self, workers: Iterable[str]) -> None:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.killpg(int(worker), signal.SIGKILL)


@contextmanager
def local(_folder: Path) -> Iterator[Place]:
    """Gives this machine."""
    yield Local()


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {"local": local}
