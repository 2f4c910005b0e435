"""What a test can do to the workers of a service, wherever they run."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
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
