"""Finds and locks rows of jobs, inside the caller's transaction. Knows what may be asked for, and by whom."""

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from conch.v1 import job_pb2
from services.errors import NotFound, NotReady
from services.jobs.tables import Job

PENDING, RUNNING = job_pb2.JobStatus.STATE_PENDING, job_pb2.JobStatus.STATE_RUNNING


def now() -> int:
    """Returns the time as the tables hold it."""
    return time.time_ns() // 1000


def by_id(session: Session, job_id: str) -> Job | None:
    """Returns the job of any kind with this id."""
    return session.scalar(select(Job).where(Job.id == _findable(job_id)))


def locked(session: Session, job_id: str) -> Job | None:
    """Returns the job of any kind with this id, its row held until the transaction ends."""
    return session.scalar(select(Job).where(Job.id == _findable(job_id)).with_for_update())


def known(job: Job | None, kind: str, job_id: str) -> Job:
    """Returns `job` if it is one of this kind. Raises NotFound."""
    if job is None or job.kind != kind:
        raise NotFound(f"there is no {kind} job {job_id!r}", reason="JOB_NOT_FOUND")
    return job


def current(session: Session, job_id: str, attempt: int) -> Job:
    """Returns the job, its row held, while this very attempt of it runs. Raises NotFound, NotReady."""
    job = locked(session, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}", reason="JOB_NOT_FOUND")
    if job.state != RUNNING or job.attempt != attempt:
        raise NotReady(f"attempt {attempt} of job {job_id} is over", reason="ATTEMPT_SUPERSEDED")
    return job


def _findable(job_id: str) -> str:
    # PostgreSQL refuses even to look for a string with NUL in it.
    return job_id.replace("\0", "\ufffd")
