"""Simulated pods: they start slowly, compute one batch after the other, and leave gracefully.

Knows when a pod can be reached and what it has computed; knows nothing about gateways' queues or about
who decides how many pods there are.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.autoscaling.hpa import PodView

Schedule = Callable[[float, Callable[[float], None]], None]
"""Calls the function with the time when it is that time."""


@dataclass(frozen=True)
class Delays:
    """Seconds of a pod's life beside its work; assumptions, argued in docs/adr/0015-autoscaling-defaults.md.

    `discover` is how long gateways take to see an address come or go, `prove` until every shape was sent
    once and the golden examples came back right (World.pod_delays computes it), `drain` is the chart's
    leaveSeconds.
    """

    schedule: float = 2.0
    image: float = 15.0
    stage: float = 5.0
    load: float = 5.0
    readiness: float = 3.0
    discover: float = 2.0
    prove: float = 0.0
    drain: float = 30.0

    @property
    def ready(self) -> float:
        """From the order of a pod until Kubernetes calls it ready."""
        return self.schedule + self.image + self.stage + self.load + self.readiness

    @property
    def serving(self) -> float:
        """From the order of a pod until gateways send calls to it."""
        return self.ready + self.discover + self.prove


@dataclass(eq=False, slots=True)
class Batch:
    """A call to a pod: `seconds` of work, then `done(time)`."""

    seconds: float
    done: Callable[[float], None]


@dataclass(eq=False, slots=True)
class Pod:
    """A Triton with one instance of the model on one core."""

    name: int
    created: float
    schedule: Schedule
    ready_at: float
    scheduled_at: float
    leaving_at: float | None = None
    gone_at: float | None = None
    waiting: deque[Batch] = field(default_factory=deque)
    busy: bool = False
    busy_seconds: float = 0.0
    busy_until: float = 0.0
    cpu: tuple[float, float] | None = None
    _last: tuple[float, float] | None = None

    def submit(self, now: float, batch: Batch) -> None:
        """Computes a batch after those that came before it."""
        if self.busy:
            self.waiting.append(batch)
        else:
            self._start(now, batch)

    def _start(self, now: float, batch: Batch) -> None:
        self.busy = True
        self.busy_seconds += batch.seconds
        self.busy_until = now + batch.seconds

        def end(at: float) -> None:
            self.busy = False
            if self.waiting:
                self._start(at, self.waiting.popleft())
            batch.done(at)

        self.schedule(self.busy_until, end)

    def measure_cpu(self, now: float) -> None:
        """Takes a sample as metrics-server does: the share of a core since the sample before."""
        if now < self.ready_at:
            return
        used = self.busy_seconds - max(0.0, self.busy_until - now)
        if self._last:
            at, before = self._last
            self.cpu = (now, (used - before) / (now - at))
        self._last = (now, used)

    def view(self, now: float) -> PodView:
        """Returns what the autoscaler sees."""
        ready = now >= self.ready_at
        return PodView(
            started=self.scheduled_at,
            ready=ready,
            changed=self.ready_at if ready else self.scheduled_at,
            pending=now < self.scheduled_at,
            cpu=self.cpu[1] if self.cpu else None,
            cpu_at=self.cpu[0] if self.cpu else 0.0,
        )


class Pool:
    """The pods of one Deployment: `resize` orders and removes them, whoever `watch`es hears of it."""

    def __init__(self, delays: Delays, schedule: Schedule) -> None:
        self._delays = delays
        self._schedule = schedule
        self._watchers: list[Callable[[float, list[Pod]], None]] = []
        self._names = 0
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []

    def watch(self, servers_changed: Callable[[float, list[Pod]], None]) -> None:
        """Calls `servers_changed(time, pods that may be sent to)` at every change."""
        self._watchers.append(servers_changed)

    def fill(self, count: int) -> None:
        """Puts `count` pods there that serve from second 0."""
        for _ in range(count):
            self._add(0.0, ready_at=0.0)
        self._tell(0.0)

    def resize(self, now: float, replicas: int) -> None:
        """Orders pods or takes away the youngest, the unready ones first, as a ReplicaSet does."""
        for _ in range(replicas - self.replicas):
            self._add(now, ready_at=now + self._delays.ready)
            self._schedule(now + self._delays.serving, self._tell)
        for pod in sorted(self.staying, key=lambda pod: (-pod.ready_at, -pod.name))[
            : self.replicas - replicas
        ]:
            self._remove(now, pod)

    @property
    def staying(self) -> list[Pod]:
        """Pods that are not leaving, started or not."""
        return [pod for pod in self.pods if pod.leaving_at is None]

    @property
    def replicas(self) -> int:
        """How many pods stay."""
        return len(self.staying)

    def serving(self, now: float) -> list[Pod]:
        """Returns the pods that gateways send to at this time."""
        known = self._delays.discover
        proven = self._delays.discover + self._delays.prove
        return [
            pod
            for pod in self.pods
            if (pod.ready_at == 0.0 or pod.ready_at + proven <= now + 1e-9)
            and (pod.leaving_at is None or now + 1e-9 < pod.leaving_at + known)
        ]

    def pod_seconds(self, now: float) -> float:
        """Returns what was paid so far: from each pod's order until it was gone."""
        return sum((pod.gone_at or now) - pod.created for pod in (*self.pods, *self.gone))

    def _add(self, now: float, *, ready_at: float) -> Pod:
        self._names += 1
        scheduled_at = min(now + self._delays.schedule, ready_at)
        pod = Pod(self._names, now, self._schedule, ready_at, scheduled_at)
        self.pods.append(pod)
        return pod

    def _remove(self, now: float, pod: Pod) -> None:
        pod.leaving_at = now
        self._schedule(now + self._delays.discover, self._tell)
        self._schedule(now + self._delays.drain, lambda at: self._let_go(at, pod))

    def _let_go(self, now: float, pod: Pod) -> None:
        """Ends a pod once it has computed all that it was sent."""
        if pod.busy:
            self._schedule(pod.busy_until + 1e-6, lambda at: self._let_go(at, pod))
            return
        pod.gone_at = now
        self.pods.remove(pod)
        self.gone.append(pod)

    def _tell(self, now: float) -> None:
        servers = self.serving(now)
        for watcher in self._watchers:
            watcher(now, servers)
