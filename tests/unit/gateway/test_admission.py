import pytest

from services.errors import DeadlineExceeded, Overloaded
from services.gateway.admission import Admission


def measured(*, queue_tokens: int = 1000, max_inflight: int = 1) -> Admission:
    """A queue that serves 100 tokens a second."""
    admission = Admission(subject="m@1", queue_tokens=queue_tokens, max_inflight=max_inflight)
    admission.rate.record(50, 0.5)
    return admission


def test_an_idle_version_takes_everything_however_slow_it_was() -> None:
    measured(queue_tokens=10).check(5000, seconds_left=0.001)


def test_a_full_queue_says_what_is_spent_and_when_to_come_back() -> None:
    admission = measured(queue_tokens=1000)
    admission.waiting_tokens = 900
    with pytest.raises(Overloaded) as caught:
        admission.check(200, seconds_left=None)
    assert caught.value.subject == "m@1"
    assert caught.value.retry_seconds == pytest.approx(1.0)


def test_a_wait_past_the_deadline_is_refused_with_how_much_was_missing() -> None:
    admission = measured()
    admission.waiting_tokens, admission.inflight_tokens = 100, 100
    with pytest.raises(DeadlineExceeded) as caught:
        admission.check(50, seconds_left=1.5)
    assert float(caught.value.metadata["missing_seconds"]) == pytest.approx(0.5)
    admission.check(50, seconds_left=2.1)


def test_more_calls_at_once_shorten_the_wait() -> None:
    admission = measured(max_inflight=2)
    admission.waiting_tokens = 200
    assert admission.wait_seconds(0) == pytest.approx(1.0)


def test_nobody_is_refused_for_time_before_anything_was_measured() -> None:
    admission = Admission(subject="m@1", queue_tokens=1000, max_inflight=1)
    admission.waiting_tokens = 500
    admission.check(100, seconds_left=0.001)
