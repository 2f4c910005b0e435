"""The scheduler over a real database and an executor that fails as no real one does on demand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from conch.v1 import job_pb2, training_pb2, worker_pb2
from services.errors import BackendUnavailable
from services.jobs.changes import Changes
from services.jobs.database import Database
from services.jobs.executor import Attempt, Ending, Tell
from services.jobs.kinds import Kind
from services.jobs.outcomes import FINAL_STATES, Death
from services.jobs.scheduler import Scheduler
from services.jobs.settings import JobSettings
from services.jobs.store import NewJob, Store
from services.jobs.tables import Job
from services.jobs.term import Term, TermOver

_S = job_pb2.JobStatus
_DONE = worker_pb2.Outcome(training=training_pb2.TrainingResult())


class Done:
    """An attempt that succeeded as soon as it was begun."""

    name = mark = "done"

    def heed(self, tell: Tell) -> None:
        """Nothing is in its way."""

    async def ended(self) -> Ending:
        return Ending(Death("gone"), [worker_pb2.WorkerReport(worker_sequence=1, outcome=_DONE)])

    def stop(self, grace_seconds: float) -> None:
        """Too late."""


class Hindered(Done):
    """One that waits for a machine until it is `free`."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    def heed(self, tell: Tell) -> None:
        tell("UNSCHEDULABLE", "no machine can take it")

    async def ended(self) -> Ending:
        await self.free.wait()
        return await super().ended()


class Faulty:
    """An executor that cannot start the jobs named in `away`, for now, or in `broken`, ever."""

    def __init__(self, *, away: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        self.away = set(away)
        self.broken = set(broken)
        self.tried = asyncio.Event()
        self.released: list[str] = []
        self.attempt: Attempt = Done()

    async def start(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        if job.id in self.broken:
            raise OSError("no such template")
        if job.id in self.away:
            self.tried.set()
            raise BackendUnavailable("quota exceeded", reason="AWAY")
        return self.attempt

    async def find(self, job: Job) -> Attempt | None:
        return None

    async def sweep(self, running: Sequence[Job]) -> None:
        """Nothing is left over."""

    async def release(self, job: Job) -> None:
        self.released.append(job.id)
        raise BackendUnavailable("away", reason="AWAY")

    async def forget(self, job: Job) -> None:
        """Nothing is left."""

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.migrate()
    return database


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def scheduler(database: Database, executor: Faulty, changes: Changes) -> Scheduler:
    kind = Kind("training", "no.module", lambda _: worker_pb2.WorkOrder())
    settings = JobSettings(max_concurrent_jobs=2)
    return Scheduler(kind, Term.begin(database, "training"), changes, executor, settings)


@asynccontextmanager
async def scheduling(database: Database, executor: Faulty) -> AsyncIterator[Changes]:
    changes = Changes()
    task = asyncio.create_task(scheduler(database, executor, changes).run())
    yield changes
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def create(store: Store, *names: str) -> None:
    for name in names:
        store.create(NewJob(name, "training", b"", max_attempts=1))


async def finish(store: Store, changes: Changes, name: str) -> Job:
    with changes.listen(name) as bell:
        while (job := store.get("training", name)).state not in FINAL_STATES:
            await bell.wait()
            bell.clear()
    return job


async def test_a_job_that_cannot_be_started_for_now_holds_up_nobody_else(
    database: Database, store: Store
) -> None:
    create(store, "stuck", "a", "b")
    executor = Faulty(away=["stuck"])
    async with scheduling(database, executor) as changes:
        for name in ("a", "b"):
            assert (await finish(store, changes, name)).state == _S.STATE_SUCCEEDED
        assert store.get("training", "stuck").state == _S.STATE_RUNNING
        executor.away.clear()
        assert (await finish(store, changes, "stuck")).state == _S.STATE_SUCCEEDED


async def test_a_job_that_cannot_be_started_for_now_can_be_cancelled(
    database: Database, store: Store
) -> None:
    create(store, "stuck")
    executor = Faulty(away=["stuck"])
    async with scheduling(database, executor) as changes:
        await executor.tried.wait()
        store.request_cancel("training", "stuck")
        changes.wish()
        assert (await finish(store, changes, "stuck")).state == _S.STATE_CANCELLED
    assert executor.released == ["stuck"]


async def test_a_job_that_can_never_be_started_fails_with_the_reason(
    database: Database, store: Store
) -> None:
    create(store, "broken")
    async with scheduling(database, Faulty(broken=["broken"])) as changes:
        job = await finish(store, changes, "broken")
    assert job.state == _S.STATE_FAILED
    assert job.error is not None
    assert b"could not be started: no such template" in job.error


async def test_a_scheduler_whose_term_is_over_ends_and_changes_nothing(
    database: Database, store: Store
) -> None:
    late = scheduler(database, Faulty(), Changes())
    Term.begin(database, "training")
    create(store, "a")
    with pytest.raises(TermOver):
        await late.run()
    assert store.get("training", "a").state == _S.STATE_PENDING


async def test_what_keeps_a_worker_from_starting_is_told_as_a_warning_and_ends_nothing(
    database: Database, store: Store
) -> None:
    create(store, "waits")
    executor = Faulty()
    executor.attempt = hindered = Hindered()
    async with scheduling(database, executor) as changes:
        with changes.listen("waits") as bell:
            while not any(e.HasField("warning") for e in store.events("waits", from_sequence=0, limit=99)):
                await bell.wait()
                bell.clear()
        assert store.get("training", "waits").state == _S.STATE_RUNNING
        hindered.free.set()
        assert (await finish(store, changes, "waits")).state == _S.STATE_SUCCEEDED
    (warning,) = (
        e.warning for e in store.events("waits", from_sequence=0, limit=99) if e.HasField("warning")
    )
    assert (warning.reason, warning.message) == ("UNSCHEDULABLE", "no machine can take it")
