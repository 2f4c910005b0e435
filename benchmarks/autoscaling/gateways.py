"""Simulated gateways around the real queue: natural batching, admission and deadlines of services/gateway.

Knows the order of events in `services.gateway.batching.Batcher`, which it follows without its event loop;
knows nothing about how many servers there should be. `Queue`, `Shapes` and `Admission` are the gateway's own.
"""

from dataclasses import dataclass

from benchmarks.autoscaling.pods import Batch, Pod
from benchmarks.autoscaling.service import ServiceTimes
from benchmarks.autoscaling.signals import ShareHistogram
from services.errors import DeadlineExceeded, Overloaded
from services.gateway.admission import Admission
from services.gateway.queue import Queue, Waiting
from services.gateway.settings import GatewaySettings
from services.gateway.shapes import Shapes

# Tokenizing, decoding and two ways through the cluster's network; assumed.
OVERHEAD_SECONDS = 0.003
MAX_LENGTH = 256


@dataclass(eq=False, slots=True)
class Request:
    """One call of one text; `number` is its place among all calls."""

    number: int
    arrived: float
    deadline: float
    gone: bool = False


@dataclass
class Answers:
    """What became of every call, by its number: seconds until its answer, or why there was none."""

    seconds: list[float]
    refused: dict[int, str]

    @classmethod
    def of(cls, count: int) -> "Answers":
        """Returns an empty record of `count` calls."""
        return cls([float("nan")] * count, {})


class Gateway:
    """One gateway pod in front of one pool that serves one version."""

    def __init__(
        self, settings: GatewaySettings, runtime: str, times: ServiceTimes, answers: Answers, deadline: float
    ) -> None:
        self._settings = settings
        self._shapes = Shapes.of(settings, runtime, MAX_LENGTH)
        self._times = times
        self._answers = answers
        self._deadline = deadline
        self._queue: Queue[Request] = Queue(self._shapes)
        self._underway: dict[Pod, int] = {}
        self.admission = self._admission(1)
        self.shares = ShareHistogram()

    def servers_changed(self, now: float, servers: list[Pod]) -> None:
        """Sends to these from now on; calls that are under way elsewhere come to their end."""
        self._underway = {pod: self._underway.get(pod, 0) for pod in servers}
        admission = self._admission(max(1, len(servers)))
        admission.rate = self.admission.rate
        admission.waiting_tokens = self.admission.waiting_tokens
        admission.inflight_tokens = self.admission.inflight_tokens
        self.admission = admission
        self._send(now)

    def submit(self, now: float, number: int, num_tokens: int) -> None:
        """Takes a call or refuses it, as `Batcher.submit` does."""
        length = self._shapes.length_of(num_tokens)
        try:
            self.admission.check(length, seconds_left=self._deadline)
        except Overloaded:
            self._answers.refused[number] = "RESOURCE_EXHAUSTED"
            return
        except DeadlineExceeded:
            self._answers.refused[number] = "DEADLINE_EXCEEDED"
            self.shares.observe(float("inf"))
            return
        self.admission.waiting_tokens += length
        self._queue.push(Request(number, now, now + self._deadline), 0, length)
        self._send(now)

    @property
    def tokens(self) -> int:
        """conch_pool_tokens: those that wait and those under way."""
        return self.admission.waiting_tokens + self.admission.inflight_tokens

    def _admission(self, num_servers: int) -> Admission:
        inflight = self._settings.max_inflight * num_servers
        return Admission(subject="pool", queue_tokens=self._settings.queue_tokens, max_inflight=inflight)

    def _send(self, now: float) -> None:
        while (pod := self._free_server()) and self._queue:
            items, num_rows, length = self._queue.pop_batch()
            if self._expire(now, items):
                self._queue.put_back([item for item in items if not item.owner.gone])
                continue
            self.admission.waiting_tokens -= sum(item.length for item in items)
            self._start(now, pod, items, num_rows * length, self._times.seconds(num_rows, length))

    def _free_server(self) -> Pod | None:
        """Returns the server with the fewest of our calls under way, if one may have another."""
        pod = min(self._underway, key=self._underway.__getitem__, default=None)
        return pod if pod and self._underway[pod] < self._settings.max_inflight else None

    def _expire(self, now: float, items: list[Waiting[Request]]) -> bool:
        found = False
        for item in items:
            if item.owner.deadline <= now:
                self.admission.waiting_tokens -= item.length
                self._answers.refused[item.owner.number] = "DEADLINE_EXCEEDED"
                self.shares.observe(float("inf"))
                item.owner.gone = found = True
        return found

    def _start(
        self, now: float, pod: Pod, items: list[Waiting[Request]], tokens: int, seconds: float
    ) -> None:
        # Put last again, so that equally busy servers take turns.
        self._underway[pod] = self._underway.pop(pod) + 1
        self.admission.inflight_tokens += tokens
        for item in items:
            self.shares.observe((now - item.owner.arrived) / self._deadline)

        def done(at: float) -> None:
            self._end(at, pod, tokens, at - now)
            for item in items:
                self._answers.seconds[item.owner.number] = at - item.owner.arrived + OVERHEAD_SECONDS

        pod.submit(now, Batch(seconds, done))

    def _end(self, now: float, pod: Pod, tokens: int, seconds: float) -> None:
        if pod in self._underway:
            self._underway[pod] -= 1
        self.admission.inflight_tokens -= tokens
        self.admission.rate.record(tokens, seconds)
        self._send(now)
