"""Appends to a job's event log and moves the job along with it, inside the caller's transaction.

The caller holds the job's row. Knows sequence numbers and states; knows nothing about transactions.
"""

import time
from collections.abc import Iterable
from typing import Any

import structlog
from sqlalchemy.orm import Session

from conch.v1 import job_pb2, worker_pb2
from services.jobs.announcing import announce
from services.jobs.outcomes import FINAL_STATES, Conclusion
from services.jobs.tables import Event, Job

log = structlog.get_logger(__name__)


def enter(session: Session, job: Job, state: job_pb2.JobStatus.State.ValueType, reason: str = "") -> None:
    """Moves the job into a state and says so in its log."""
    job.state = state
    if state in FINAL_STATES:
        job.end_time = time.time_ns() // 1000
    note(session, job, state_changed=job_pb2.StateChanged(state=state, reason=reason))


def note(session: Session, job: Job, **event: Any) -> None:
    """Appends an event of the service's own; the keyword is JobEvent's oneof field."""
    stamped = job_pb2.JobEvent(attempt=job.attempt, **event)
    stamped.time.GetCurrentTime()
    _append(session, job, stamped, worker_sequence=None)


def take(session: Session, job: Job, reports: Iterable[worker_pb2.WorkerReport]) -> None:
    """Appends what a worker reported, in order; what is there already changes nothing."""
    for report in reports:
        if report.worker_sequence <= job.worker_sequence:
            continue
        if report.worker_sequence != job.worker_sequence + 1:
            # The worker resends from what it was last told; its spool holds the rest.
            log.warning("report.skipped", job=job.id, expected=job.worker_sequence + 1)
            return
        _take_one(session, job, report)


def apply(session: Session, job: Job, conclusion: Conclusion) -> None:
    """Moves the job on to what was concluded."""
    if conclusion.warning is not None:
        note(session, job, warning=conclusion.warning)
    job.error = conclusion.error.SerializeToString() if conclusion.error is not None else None
    job.result = conclusion.result
    job.worker_name, job.worker_mark = None, None
    job.not_before = time.time_ns() // 1000 + round(conclusion.delay_seconds * 1e6)
    enter(session, job, conclusion.state, conclusion.reason)


def _take_one(session: Session, job: Job, report: worker_pb2.WorkerReport) -> None:
    job.worker_sequence = report.worker_sequence
    if report.WhichOneof("report") == "outcome":
        job.outcome = report.outcome.SerializeToString()
    elif report.WhichOneof("report") == "event":
        event = job_pb2.JobEvent()
        event.CopyFrom(report.event)
        event.attempt = job.attempt
        _append(session, job, event, worker_sequence=report.worker_sequence)


def _append(session: Session, job: Job, event: job_pb2.JobEvent, *, worker_sequence: int | None) -> None:
    job.last_sequence += 1
    event.sequence = job.last_sequence
    session.add(
        Event(
            job_id=job.id,
            sequence=event.sequence,
            attempt=job.attempt,
            worker_sequence=worker_sequence,
            content=event.SerializeToString(),
        )
    )
    announce(session, job)
