"""What becomes of a job whose worker is gone."""

import pytest
from google.rpc import code_pb2, status_pb2

from conch.v1 import conversion_pb2, job_pb2, worker_pb2
from services.errors import BackendUnavailable
from services.jobs.outcomes import Attempt, Death, conclude

_S = job_pb2.JobStatus
_DEATH = Death("the worker died", "last words")
_FIRST, _LAST = Attempt(1, 2, False), Attempt(2, 2, False)
_UNWANTED = Attempt(1, 2, True)
_AWAY = BackendUnavailable("storage is away", reason="STORAGE_UNAVAILABLE").to_status()
_BAD = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="bad row")

_NOTHING = worker_pb2.Outcome()
_RETRYABLE = worker_pb2.Outcome(error=_AWAY, retryable=True)
_FINAL = worker_pb2.Outcome(error=_BAD)
_CANCELLED = worker_pb2.Outcome(cancelled=worker_pb2.Cancelled())
_DONE = worker_pb2.Outcome(conversion=conversion_pb2.ConversionResult(version=3))


@pytest.mark.parametrize(
    ("attempt", "outcome", "state"),
    [
        (_FIRST, None, _S.STATE_PENDING),
        (_LAST, None, _S.STATE_FAILED),
        (_UNWANTED, None, _S.STATE_CANCELLED),
        (_FIRST, _NOTHING, _S.STATE_PENDING),
        (_FIRST, _RETRYABLE, _S.STATE_PENDING),
        (_LAST, _RETRYABLE, _S.STATE_FAILED),
        (_UNWANTED, _RETRYABLE, _S.STATE_CANCELLED),
        (_FIRST, _FINAL, _S.STATE_FAILED),
        (_UNWANTED, _FINAL, _S.STATE_FAILED),
        (_UNWANTED, _CANCELLED, _S.STATE_CANCELLED),
        # SIGTERM from elsewhere, as when the machine shuts down: nobody cancelled the job.
        (_FIRST, _CANCELLED, _S.STATE_PENDING),
        (_LAST, _CANCELLED, _S.STATE_FAILED),
        (_FIRST, _DONE, _S.STATE_SUCCEEDED),
        (_UNWANTED, _DONE, _S.STATE_SUCCEEDED),
    ],
)
def test_the_next_state_follows_from_attempt_and_outcome(
    attempt: Attempt, outcome: worker_pb2.Outcome | None, state: int
) -> None:
    assert conclude(attempt, outcome, _DEATH).state == state


def test_a_death_on_the_last_attempt_carries_the_end_of_the_log() -> None:
    conclusion = conclude(_LAST, None, _DEATH)
    assert conclusion.error is not None
    assert conclusion.error.message == "attempt 2 of 2: the worker died; its log ends:\nlast words"
    assert conclusion.reason == "attempt 2 of 2: the worker died"


def test_the_warning_before_another_attempt_bears_the_reason_of_the_error() -> None:
    warning = conclude(_FIRST, _RETRYABLE, _DEATH).warning
    assert warning is not None
    assert warning.reason == "STORAGE_UNAVAILABLE"


def test_a_result_is_kept_as_the_worker_gave_it() -> None:
    result = conclude(_FIRST, _DONE, _DEATH).result
    assert result == conversion_pb2.ConversionResult(version=3).SerializeToString()
