"""Where workers run: what a scheduler asks of a place that runs attempts of jobs.

Two places are known: this machine (`services.jobs.local`) and a cluster (`services.cluster.executor`).
Knows nothing about queues, states or databases. Both are held to the same contract tests.

Each replica of a service has an executor, but only the leader's scheduler calls `start`, `find`, `sweep`
and `release`; any replica calls `forget`. Whatever raises BackendUnavailable is asked again, a second
later, without end (`start` until the job is cancelled): an error that will not pass has to be an OSError
of `start`, or an Ending. Several jobs are started at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from conch.v1 import worker_pb2
from services.jobs.kinds import Kind
from services.jobs.outcomes import Death
from services.jobs.settings import JobSettings
from services.jobs.tables import Job


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and what its worker told that may not have arrived."""

    death: Death
    """Counts only where the worker left no outcome behind."""
    reports: Sequence[worker_pb2.WorkerReport] = ()
    """All that it told, or the last of it; what has arrived already changes nothing."""


Tell = Callable[[str, str], None]


class Attempt(Protocol):
    """One attempt of a job that an executor runs, or ran."""

    @property
    def name(self) -> str:
        """What people find it by: a pid here, a Job's name in a cluster; at most 255 characters."""

    @property
    def mark(self) -> str:
        """What tells it for good from any other attempt of this name; at most 255 characters."""

    def heed(self, tell: Tell) -> None:
        """Calls `tell(reason, sentence)` of whatever keeps the worker from starting, from now on, each once.

        `reason` is UPPER_SNAKE. The attempt goes on: waiting is no failure.
        """

    async def ended(self) -> Ending:
        """Returns once nothing of the attempt runs any more. Raises nothing but CancelledError.

        Awaited once. Cancelled when the service stops or another replica leads from now on: then a grace
        that `stop` began is called off too, for the next leader gives its own.
        """

    def stop(self, grace_seconds: float) -> None:
        """Asks the worker to wind down and save, and ends it after the grace. Returns at once.

        Nothing happens if it ended, or was asked before.
        """


class Executor(Protocol):
    """Runs attempts. May be another process's successor: `find` takes over what that one started."""

    async def start(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        """Starts the job's current attempt; the one that runs already is returned, never a second one made.

        `order` has spec, output_uri, version, ids and token; place and flush are filled in here. Its token
        is the only one that is good from now on: where the attempt runs already, as it may if a leader
        that is none any more started it a moment ago, its order has to be replaced by this one (a worker
        whose token is refused reads its order again). Raises OSError with a sentence if it cannot be
        started, which uses up the attempt, BackendUnavailable if that may pass.
        """

    async def find(self, job: Job) -> Attempt | None:
        """Returns the attempt that another process started, be it over meanwhile; None if it never began.

        `job.worker_name` and `job.worker_mark` are those of the Attempt that `start` returned; None if its
        service died before it had noted them: whether it began has to be found out here. What has changed
        about the place that workers report to is told to them here. Raises BackendUnavailable if that
        cannot be known now.
        """

    async def sweep(self, running: Sequence[Job]) -> None:
        """Ends and removes what runs, or ran, for no current attempt of these jobs, which are all.

        Called when a leader takes over, after `find` for each. Raises BackendUnavailable.
        """

    async def release(self, job: Job) -> None:
        """Frees what the attempt needed that was just concluded; `job.attempt` is its number still.

        A job that SUCCEEDED keeps nothing, one that is PENDING what another attempt goes on with. The
        attempt may have been given up in the middle of its `start`: what came of that ends here. May be
        left out, by a service that dies: what is left then goes with `forget` or `sweep`. Raises
        BackendUnavailable, which is not asked again.
        """

    async def forget(self, job: Job) -> None:
        """Removes what a job in a final state left where it ran; nothing happens if there is nothing.

        Called before the job is deleted. Raises BackendUnavailable, and the job stays.
        """

    async def close(self) -> None:
        """Lets go; attempts run on."""


MakeExecutor = Callable[[JobSettings, Kind, str], Executor]
"""Returns the executor of a kind of job, whose workers report to host:port. Raises OSError with a sentence
if it cannot be used as it is set up."""
