"""What only the leader among the replicas of a service may do: hand out jobs and conclude them.

Knows tables and the life of a job; knows nothing about how a leader is found (`services.jobs.replicas`).
Each leader begins a term of its own, and every change asks in its own transaction whether the term still
lasts: whoever believes to lead and does not any more changes nothing. Call it in threads; everything raises
BackendUnavailable if the database does not answer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conch.v1 import job_pb2, worker_pb2
from services.jobs import credentials, journal
from services.jobs.database import Database
from services.jobs.outcomes import Attempt, Death, conclude
from services.jobs.rows import PENDING, RUNNING, current, now
from services.jobs.tables import Job, Leader


class TermOver(Exception):  # noqa: N818  # the event that it is
    """Another replica leads from now on."""


class Term:
    """One replica's time as the leader of one kind of job. Every change raises TermOver once it is over."""

    def __init__(self, database: Database, kind: str, number: int) -> None:
        self._database = database
        self._kind = kind
        self._number = number

    @classmethod
    def begin(cls, database: Database, kind: str) -> "Term":
        """Begins a term, which ends the one before."""
        with database.write_alone() as session:
            leader = session.get(Leader, kind, with_for_update=True) or Leader(kind=kind, term=0)
            leader.term += 1
            session.add(leader)
            return cls(database, kind, leader.term)

    def running(self) -> list[Job]:
        """Returns the jobs that are RUNNING, oldest first."""
        query = select(Job).where(Job.kind == self._kind, Job.state == RUNNING).order_by(Job.number)
        with self._database.read() as session:
            return list(session.scalars(query))

    def unwanted(self) -> list[str]:
        """Returns the ids of the jobs that run and that somebody wants to be cancelled."""
        asked = (Job.kind == self._kind, Job.state == RUNNING, Job.cancel_requested)
        with self._database.read() as session:
            return list(session.scalars(select(Job.id).where(*asked)))

    def seconds_until_due(self) -> float | None:
        """Returns how long until a PENDING job may begin, 0 if one may now; None if there is none."""
        earliest = select(func.min(Job.not_before)).where(Job.kind == self._kind, Job.state == PENDING)
        with self._database.read() as session:
            due = session.scalar(earliest)
        return max(0.0, (due - now()) / 1e6) if due is not None else None

    def claim_next(self) -> Job | None:
        """Begins the next attempt of the oldest PENDING job, RUNNING from now on; None if none waits."""
        due = (Job.kind == self._kind, Job.state == PENDING, Job.not_before <= now())
        with self._change() as session:
            oldest = select(Job).where(*due).order_by(Job.number).limit(1)
            job = session.scalar(oldest.with_for_update(skip_locked=True))
            if job is not None:
                _begin_attempt(job)
                journal.enter(session, job, RUNNING)
            return job

    def renew_token(self, job_id: str, *, attempt: int, token: str) -> None:
        """Makes `token` the attempt's own, in place of any before. Raises NotFound, NotReady."""
        with self._change() as session:
            current(session, job_id, attempt).token_digest = credentials.digest(token)

    def record_worker(self, job_id: str, *, attempt: int, name: str, mark: str) -> Job:
        """Notes what the executor calls the attempt. Raises NotFound, NotReady if another took over."""
        with self._change() as session:
            job = current(session, job_id, attempt)
            job.worker_name, job.worker_mark = name, mark
            return job

    def warn(self, job_id: str, *, attempt: int, warning: job_pb2.Warning) -> None:
        """Notes something that a person should look at. Raises NotFound, NotReady if another took over."""
        with self._change() as session:
            journal.note(session, current(session, job_id, attempt), warning=warning)

    def conclude(
        self,
        job_id: str,
        *,
        attempt: int,
        reports: Sequence[worker_pb2.WorkerReport],
        death: Death,
        retry_delay_seconds: float = 0.0,
    ) -> Job:
        """Takes what the gone worker left behind and decides what becomes of the job.

        Raises NotFound, NotReady if another attempt took over (it was concluded before).
        """
        with self._change() as session:
            job = current(session, job_id, attempt)
            journal.take(session, job, reports)
            outcome = worker_pb2.Outcome.FromString(job.outcome) if job.outcome is not None else None
            ended = Attempt(job.attempt, job.max_attempts, job.cancel_requested, retry_delay_seconds)
            journal.apply(session, job, conclude(ended, outcome, death))
            return job

    @contextmanager
    def _change(self) -> Iterator[Session]:
        with self._database.write() as session:
            # Held until the end: a new term begins before this change, which then is refused, or after it.
            leads = select(Leader.term).where(Leader.kind == self._kind).with_for_update(read=True)
            if session.scalar(leads) != self._number:
                raise TermOver(f"term {self._number} of the {self._kind} jobs' leader is over")
            yield session


def _begin_attempt(job: Job) -> None:
    job.attempt += 1
    job.start_time = job.start_time or now()
    job.worker_sequence, job.outcome = 0, None
    job.worker_name, job.worker_mark = None, None
    job.token_digest, job.runner = None, None
