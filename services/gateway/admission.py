"""Who may join a version's queue: bounded in tokens, and only if the deadline can still be met.

Knows how fast tokens were served lately; knows nothing about what waits or how it is batched.
"""

from services.errors import DeadlineExceeded, Overloaded

_MEMORY = 0.9
_LEAST_RETRY_SECONDS = 0.05


class ServiceRate:
    """Seconds a padded token takes, over the last ten or so batches weighted by their size."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._tokens = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Takes one batch of `tokens` padded tokens into account."""
        self._seconds = self._seconds * _MEMORY + seconds
        self._tokens = self._tokens * _MEMORY + tokens

    @property
    def seconds_per_token(self) -> float:
        """0.0 as long as nothing was served."""
        return self._seconds / self._tokens if self._tokens else 0.0


class Admission:
    """Counts the padded tokens that wait and those on their way, and refuses what has no chance."""

    def __init__(self, *, subject: str, queue_tokens: int, max_inflight: int) -> None:
        self.rate = ServiceRate()
        self.waiting_tokens = 0
        self.inflight_tokens = 0
        self._subject = subject
        self._queue_tokens = queue_tokens
        self.max_inflight = max_inflight

    def wait_seconds(self, tokens: int) -> float:
        """Returns how long a request of `tokens` padded tokens would take from now, its own turn included.

        Calls on their way count half: on average that much of them is still to come.
        """
        ahead = self.waiting_tokens + self.inflight_tokens / 2 + tokens
        return ahead * self.rate.seconds_per_token / self.max_inflight

    def check(self, tokens: int, *, seconds_left: float | None) -> None:
        """Raises Overloaded if the queue is full, DeadlineExceeded if the wait would outlast the deadline.

        An idle version takes everything: otherwise one slow call could shut the door for good.
        """
        if not self.waiting_tokens and not self.inflight_tokens:
            return
        if self.waiting_tokens + tokens > self._queue_tokens:
            raise self._overloaded(tokens)
        if seconds_left is not None and (wait := self.wait_seconds(tokens)) > seconds_left:
            raise too_late(
                wait - seconds_left, f"the queue would take {wait:.3f} s of {seconds_left:.3f} s left"
            )

    def _overloaded(self, tokens: int) -> Overloaded:
        excess = self.waiting_tokens + tokens - self._queue_tokens
        drain = excess * self.rate.seconds_per_token / self.max_inflight
        return Overloaded(
            f"{self.waiting_tokens} tokens wait for {self._subject}, {self._queue_tokens} may",
            reason="QUEUE_FULL",
            subject=self._subject,
            retry_seconds=max(_LEAST_RETRY_SECONDS, drain),
        )


def too_late(missing_seconds: float, why: str) -> DeadlineExceeded:
    """Returns the error of a deadline that was missed, or would be, by `missing_seconds`."""
    return DeadlineExceeded(
        f"deadline too near by {missing_seconds:.3f} s: {why}",
        reason="DEADLINE_TOO_NEAR",
        metadata={"missing_seconds": f"{missing_seconds:.6f}"},
    )
