"""What becomes of a job whose worker is gone: pure decisions, no database and no processes."""

from dataclasses import dataclass

from google.rpc import code_pb2, error_details_pb2, status_pb2

from conch.v1 import job_pb2, worker_pb2
from services.errors import DOMAIN

State = job_pb2.JobStatus.State
FINAL_STATES = frozenset(
    {job_pb2.JobStatus.STATE_SUCCEEDED, job_pb2.JobStatus.STATE_FAILED, job_pb2.JobStatus.STATE_CANCELLED}
)


@dataclass(frozen=True)
class Death:
    """How a worker's process ended, as a sentence, and the last lines of its log."""

    message: str
    log_tail: str = ""


@dataclass(frozen=True)
class Conclusion:
    """The state that a job enters next and what goes with it."""

    state: job_pb2.JobStatus.State.ValueType
    reason: str = ""
    warning: job_pb2.Warning | None = None
    delay_seconds: float = 0.0
    """How long another attempt has to wait."""
    error: status_pb2.Status | None = None
    result: bytes | None = None


@dataclass(frozen=True)
class Attempt:
    """The attempt that ended and the wishes that were standing then.

    What another service refused to do waits `retry_delay_seconds`, twice as long each time.
    """

    number: int
    max_attempts: int
    cancel_requested: bool
    retry_delay_seconds: float = 0.0


def conclude(attempt: Attempt, outcome: worker_pb2.Outcome | None, death: Death) -> Conclusion:
    """Returns what becomes of the job. `outcome` is None if the worker died without a word."""
    kind = outcome.WhichOneof("outcome") if outcome is not None else None
    if outcome is None or kind is None:
        return _after_death(attempt, death)
    if kind == "error":
        return _after_error(attempt, outcome)
    if kind == "cancelled":
        return _after_cancel(attempt)
    result = outcome.training if kind == "training" else outcome.conversion
    return Conclusion(job_pb2.JobStatus.STATE_SUCCEEDED, result=result.SerializeToString())


def _after_death(attempt: Attempt, death: Death) -> Conclusion:
    if attempt.cancel_requested:
        warning = job_pb2.Warning(
            reason="WORKER_DIED",
            message=f"{death.message} before it had wound down; no checkpoint is promised",
        )
        return Conclusion(job_pb2.JobStatus.STATE_CANCELLED, warning=warning)
    message = f"attempt {attempt.number} of {attempt.max_attempts}: {death.message}"
    if attempt.number < attempt.max_attempts:
        return _again(job_pb2.Warning(reason="WORKER_DIED", message=message))
    return _failed(_death_status(message, death), reason=message)


def _after_error(attempt: Attempt, outcome: worker_pb2.Outcome) -> Conclusion:
    if outcome.retryable and attempt.cancel_requested:
        return Conclusion(job_pb2.JobStatus.STATE_CANCELLED)
    if outcome.retryable and attempt.number < attempt.max_attempts:
        message = f"attempt {attempt.number} of {attempt.max_attempts}: {outcome.error.message}"
        warning = job_pb2.Warning(reason=_reason_of(outcome.error), message=message)
        return _again(warning, delay_seconds=attempt.retry_delay_seconds * 2 ** (attempt.number - 1))
    return _failed(outcome.error, reason=outcome.error.message)


def _after_cancel(attempt: Attempt) -> Conclusion:
    if attempt.cancel_requested:
        return Conclusion(job_pb2.JobStatus.STATE_CANCELLED)
    # Nobody asked us: someone else sent SIGTERM, as a machine that shuts down does. The job goes on.
    return _after_death(attempt, Death("the worker was told to stop by another process"))


def _again(warning: job_pb2.Warning, *, delay_seconds: float = 0.0) -> Conclusion:
    reason = f"another attempt follows in {delay_seconds:g} s" if delay_seconds else "another attempt follows"
    return Conclusion(job_pb2.JobStatus.STATE_PENDING, reason, warning, delay_seconds)


def _failed(error: status_pb2.Status, *, reason: str) -> Conclusion:
    return Conclusion(job_pb2.JobStatus.STATE_FAILED, reason=reason, error=error)


def _death_status(message: str, death: Death) -> status_pb2.Status:
    if death.log_tail:
        message = f"{message}; its log ends:\n{death.log_tail}"
    info = error_details_pb2.ErrorInfo(reason="WORKER_DIED", domain=DOMAIN)
    tail = error_details_pb2.DebugInfo(stack_entries=death.log_tail.splitlines(), detail=death.message)
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=message)
    for detail in (info, tail):
        status.details.add().Pack(detail)
    return status


def _reason_of(error: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in error.details:
        if detail.Unpack(info):
            return str(info.reason)
    return "WORKER_FAILED"
