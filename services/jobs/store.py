"""The jobs store: what callers and workers ask of the jobs database and change in it, a transaction each.

Knows tables and the life of a job; knows nothing about processes, gRPC or asyncio (call it in
threads). Who changes a job holds its row, so sequence numbers have no gap and no repeat. Everything
raises BackendUnavailable if the database does not answer.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from conch.v1 import job_pb2, worker_pb2
from services.errors import AlreadyExists, NotReady
from services.jobs import credentials, journal
from services.jobs.announcing import announce
from services.jobs.credentials import Caller
from services.jobs.database import Database
from services.jobs.outcomes import FINAL_STATES
from services.jobs.rows import PENDING, by_id, current, known, locked, now
from services.jobs.tables import Event, Job, VersionClaim


@dataclass(frozen=True)
class NewJob:
    """A job to create. With `model` a version number above `version_floor` is claimed for it."""

    id: str
    kind: str
    spec: bytes
    max_attempts: int
    model: str = ""
    version_floor: int = 0


class Store:
    """The jobs of one database. Ids that no job can have are simply not found."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewJob) -> Job:
        """Inserts a job as PENDING, or returns the one that has this id and this very spec.

        Raises AlreadyExists if the id belongs to another spec or kind.
        """
        with self._database.write_alone() as session:
            if (existing := by_id(session, new.id)) is not None:
                return same_or_taken(existing, kind=new.kind, spec=new.spec)
            job = _fresh(new, version=_claim_version(session, new) if new.model else 0)
            session.add(job)
            session.flush()
            journal.enter(session, job, PENDING)
            announce(session, job, wished=True)
            return job

    def find(self, job_id: str) -> Job | None:
        """Returns the job of any kind with this id."""
        with self._database.read() as session:
            return by_id(session, job_id)

    def get(self, kind: str, job_id: str) -> Job:
        """Returns the job. Raises NotFound."""
        with self._database.read() as session:
            return known(by_id(session, job_id), kind, job_id)

    def page(self, kind: str, *, states: Collection[int], before: int | None, limit: int) -> list[Job]:
        """Returns up to `limit` jobs with a number below `before`, newest first; no states = all."""
        query = select(Job).where(Job.kind == kind).order_by(Job.number.desc()).limit(limit)
        if states:
            query = query.where(Job.state.in_(states))
        if before is not None:
            query = query.where(Job.number < before)
        with self._database.read() as session:
            return list(session.scalars(query))

    def events(self, job_id: str, *, from_sequence: int, limit: int) -> list[job_pb2.JobEvent]:
        """Returns up to `limit` of the job's events from a sequence number on, in order."""
        query = select(Event.content).where(Event.job_id == job_id, Event.sequence >= from_sequence)
        with self._database.read() as session:
            contents = session.scalars(query.order_by(Event.sequence).limit(limit))
            return [job_pb2.JobEvent.FromString(content) for content in contents]

    def count(self, kind: str) -> dict[int, int]:
        """Returns how many jobs are in each state that any is in."""
        query = select(Job.state, func.count()).where(Job.kind == kind).group_by(Job.state)
        with self._database.read() as session:
            return {state: number for state, number in session.execute(query)}

    def oldest_pending_seconds(self, kind: str) -> float:
        """Returns for how long a job could have begun that is PENDING still, the longest; 0 if none is."""
        since = case((Job.not_before > Job.create_time, Job.not_before), else_=Job.create_time)
        query = select(func.min(since)).where(Job.kind == kind, Job.state == PENDING)
        with self._database.read() as session:
            oldest = session.scalar(query)
        return max(0.0, (now() - oldest) / 1e6) if oldest is not None else 0.0

    def request_cancel(self, kind: str, job_id: str) -> Job:
        """Cancels a PENDING job at once, notes the wish on a RUNNING one, leaves others. Raises NotFound."""
        with self._database.write() as session:
            job = known(locked(session, job_id), kind, job_id)
            if job.state not in FINAL_STATES:
                job.cancel_requested = True
            if job.state == PENDING:
                journal.enter(session, job, job_pb2.JobStatus.STATE_CANCELLED)
            announce(session, job, wished=True)
            return job

    def delete(self, kind: str, job_id: str) -> None:
        """Removes a job in a final state with its events. Raises NotFound, NotReady."""
        with self._database.write() as session:
            job = known(locked(session, job_id), kind, job_id)
            require_final(job)
            session.execute(delete(Event).where(Event.job_id == job_id))
            session.delete(job)
            announce(session, job)

    def begin_attempt(self, job_id: str, caller: Caller) -> int:
        """Notes the caller as the attempt's runner; returns the newest worker sequence that is on disk.

        Raises NotFound if there is no such job, NotReady if the attempt is not the one that runs,
        Unauthenticated if the token is not the attempt's.
        """
        with self._database.write() as session:
            job = _proven(session, job_id, caller)
            if job.runner != caller.runner:
                # Wound down as its pod was preempted, say: the runner that takes its place decides anew.
                job.runner, job.outcome = caller.runner, None
            return job.worker_sequence

    def take_report(self, job_id: str, caller: Caller, report: worker_pb2.WorkerReport) -> int:
        """Puts a worker's report on disk unless it is there already; returns the newest worker sequence.

        Raises as `begin_attempt` does, NotReady also if another runner has begun since.
        """
        with self._database.write() as session:
            job = _proven(session, job_id, caller)
            if job.runner != caller.runner:
                raise NotReady(
                    f"another runner works on attempt {caller.attempt} of job {job_id}",
                    reason="RUNNER_SUPERSEDED",
                )
            journal.take(session, job, [report])
            return job.worker_sequence


def same_or_taken(existing: Job, *, kind: str, spec: bytes) -> Job:
    """Returns `existing` if it is of this kind and spec. Raises AlreadyExists."""
    if existing.kind == kind and existing.spec == spec:
        return existing
    raise AlreadyExists(f"the id {existing.id!r} belongs to another job", reason="JOB_EXISTS")


def require_final(job: Job) -> None:
    """Raises NotReady unless the job is in a final state."""
    if job.state not in FINAL_STATES:
        raise NotReady(f"job {job.id} is still pending or running: cancel it first", reason="JOB_NOT_FINAL")


def _proven(session: Session, job_id: str, caller: Caller) -> Job:
    job = current(session, job_id, caller.attempt)
    credentials.check(caller.token, job.token_digest)
    return job


def _fresh(new: NewJob, *, version: int) -> Job:
    return Job(
        id=new.id,
        kind=new.kind,
        spec=new.spec,
        state=PENDING,
        attempt=0,
        max_attempts=new.max_attempts,
        create_time=now(),
        not_before=0,
        last_sequence=0,
        cancel_requested=False,
        version=version,
        worker_sequence=0,
    )


def _claim_version(session: Session, new: NewJob) -> int:
    highest = session.scalar(select(func.max(VersionClaim.version)).where(VersionClaim.model == new.model))
    version = max(highest or 0, new.version_floor) + 1
    session.add(VersionClaim(model=new.model, version=version, job_id=new.id))
    return version
