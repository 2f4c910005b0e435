"""Where workers run: what a scheduler asks of a place that runs attempts of jobs.

Two places are known: this machine (`services.jobs.local`) and a cluster (`services.cluster.executor`).
Knows nothing about queues, states or databases. Both are held to the same contract tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from conch.v1 import worker_pb2
from services.jobs.outcomes import Death
from services.jobs.tables import Job


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and what its worker told that may not have arrived."""

    death: Death
    reports: Sequence[worker_pb2.WorkerReport] = ()


class Attempt(Protocol):
    """One attempt of a job that an executor runs, or ran."""

    @property
    def name(self) -> str:
        """What people find it by: a pid here, a Job's name in a cluster."""

    @property
    def mark(self) -> str:
        """What tells it for good from any other attempt of this name; at most 255 characters."""

    async def ended(self) -> Ending:
        """Returns once nothing of the attempt runs any more."""

    def stop(self, grace_seconds: float) -> None:
        """Asks the worker to wind down and save, and ends it after the grace. Returns at once."""


class Executor(Protocol):
    """Runs attempts. May be another process's successor: `find` takes over what that one started."""

    async def start(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        """Starts the job's current attempt; the one that runs already is returned, never a second one made.

        `order` has spec, output_uri, version, ids and token; place and flush are filled in here. Raises
        OSError with a sentence if it cannot be started, BackendUnavailable if that may pass.
        """

    async def find(self, job: Job) -> Attempt | None:
        """Returns the attempt that another process started, be it over meanwhile; None if it never began.

        Raises BackendUnavailable if that cannot be known now.
        """

    async def forget(self, job: Job) -> None:
        """Removes what a job in a final state left where it ran; nothing happens if there is nothing."""

    async def close(self) -> None:
        """Lets go; attempts run on."""
