"""The event loop: arrivals, batches, scrapes and the autoscaler's syncs in the order of their time.

Knows what comes next; the parts know what to do then. Nothing here looks at a clock: a run is a function
of its traffic, its seed and its policy.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from benchmarks.autoscaling.gateways import MAX_LENGTH, Answers, Gateway
from benchmarks.autoscaling.pods import Delays, Pool
from benchmarks.autoscaling.policies import QUEUE_SHARE, TOKENS, Policy
from benchmarks.autoscaling.service import ServiceTimes, text_lengths
from benchmarks.autoscaling.signals import Pipeline, Prometheus
from benchmarks.autoscaling.traffic import Arrivals, Traffic, arrivals
from services.gateway.settings import GatewaySettings
from services.gateway.shapes import Shapes

# Of a version, as the trainer keeps them.
GOLDEN_EXAMPLES = 32


@dataclass(frozen=True)
class World:
    """What is the same for every policy."""

    runtime: str = "onnxruntime"
    deadline_seconds: float = 1.0
    num_gateways: int = 3
    max_replicas: int = 16
    least_replicas: int = 1
    seed: int = 7
    delays: Delays = field(default_factory=Delays)
    pipeline: Pipeline = field(default_factory=Pipeline)
    settings: GatewaySettings = field(default_factory=GatewaySettings)

    def times(self) -> ServiceTimes:
        """Returns the measured service times."""
        return ServiceTimes.measured(self.runtime)

    def calls_of_a_pod(self) -> float:
        """Returns what one pod answers a second when batches are full and nobody minds waiting."""
        shapes = Shapes.of(self.settings, self.runtime, MAX_LENGTH)
        lengths = [shapes.length_of(tokens) for tokens in text_lengths()]
        times = self.times()
        each = [times.seconds(rows, n) / rows for n in lengths if (rows := shapes.capacity(n))]
        return len(each) / sum(each)

    def proof_seconds(self) -> float:
        """Returns the compute of a version's warming and proof by one gateway at one server."""
        times = self.times()
        shapes = Shapes.of(self.settings, self.runtime, MAX_LENGTH)
        warming = sum(times.seconds(rows, length) for rows, length in shapes.all())
        return min(warming, self.settings.warm_seconds) + GOLDEN_EXAMPLES / self.calls_of_a_pod()

    def pod_delays(self) -> Delays:
        """Returns the delays with a proof by every gateway: they take turns at a new server."""
        return replace(self.delays, prove=self.num_gateways * self.proof_seconds())

    def first_replicas(self, traffic: Traffic) -> int:
        """Returns with how many pods runs begin: as many as the first second keeps 70 % busy."""
        load = float(traffic.rate(np.zeros(1))[0]) / self.calls_of_a_pod()
        return min(max(self.least_replicas, math.ceil(load / 0.7)), self.max_replicas)

    def arrivals(self, traffic: Traffic) -> Arrivals:
        """Returns the calls of a run."""
        return arrivals(traffic, text_lengths(), num_gateways=self.num_gateways, seed=self.seed)


@dataclass(frozen=True)
class Moment:
    """What one sync saw and decided."""

    at: float
    replicas: int
    serving: int
    queue_share: float | None
    tokens: float | None


@dataclass(frozen=True)
class Run:
    """What came out of a simulation."""

    traffic: Traffic
    arrivals: Arrivals
    answers: Answers
    pod_seconds: float
    moments: list[Moment]


class Events:
    """Things to do, by time; equal times in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers: Iterator[int] = count()

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Does `what(when)` at its time."""
        heapq.heappush(self._heap, (when, next(self._numbers), what))

    def run_until(self, limit: float) -> None:
        """Does everything that is due before `limit`."""
        heap = self._heap
        while heap and heap[0][0] <= limit:
            when, _, what = heapq.heappop(heap)
            what(when)


class Simulation:
    """One run of a policy against traffic."""

    def __init__(self, world: World, traffic: Traffic, calls: Arrivals, policy: Policy) -> None:
        self._world = world
        self._traffic = traffic
        self._calls = calls
        self._policy = policy
        self._events = Events()
        self._answers = Answers.of(len(calls.times))
        self._pool = Pool(world.pod_delays(), self._events.at)
        times = world.times()
        self._gateways = [
            Gateway(world.settings, world.runtime, times, self._answers, world.deadline_seconds)
            for _ in range(world.num_gateways)
        ]
        self._prometheus = Prometheus(world.pipeline, world.num_gateways)
        self._moments: list[Moment] = []

    def run(self) -> Run:
        """Plays all arrivals and returns what became of them."""
        for gateway in self._gateways:
            self._pool.watch(gateway.servers_changed)
        self._pool.fill(self._policy.start())
        for i in range(len(self._gateways)):
            # Prometheus spreads its targets over the interval.
            offset = self._world.pipeline.scrape * i / len(self._gateways)
            self._events.at(offset, lambda at, i=i: self._scrape(at, i))  # type: ignore[misc]
        self._events.at(0.0, self._measure_cpu)
        self._events.at(self._policy.period_seconds, self._sync)
        self._play()
        paid = self._pool.pod_seconds(self._traffic.seconds)
        return Run(self._traffic, self._calls, self._answers, paid, self._moments)

    def _play(self) -> None:
        calls, run_until, gateways = self._calls, self._events.run_until, self._gateways
        for number, (at, tokens, gateway) in enumerate(
            zip(calls.times, calls.tokens, calls.gateways, strict=True)
        ):
            run_until(at)
            gateways[gateway].submit(at, number, tokens)
        run_until(self._traffic.seconds)

    def _scrape(self, now: float, target: int) -> None:
        gateway = self._gateways[target]
        self._prometheus.scrape(now, target, gateway.shares.counts, gateway.tokens)
        self._events.at(now + self._world.pipeline.scrape, lambda at: self._scrape(at, target))

    def _measure_cpu(self, now: float) -> None:
        for pod in self._pool.pods:
            pod.measure_cpu(now)
        self._events.at(now + 15.0, self._measure_cpu)

    def _sync(self, now: float) -> None:
        metrics = {QUEUE_SHARE: self._prometheus.queue_share(now), TOKENS: self._prometheus.tokens(now)}
        staying = self._pool.staying
        wanted = self._policy.replicas(now, len(staying), [pod.view(now) for pod in staying], metrics)
        if wanted != len(staying):
            self._pool.resize(now, wanted)
        serving = len(self._pool.serving(now))
        self._moments.append(Moment(now, wanted, serving, metrics[QUEUE_SHARE], metrics[TOKENS]))
        self._events.at(now + self._policy.period_seconds, self._sync)


def simulate(world: World, traffic: Traffic, policy: Policy, calls: Arrivals | None = None) -> Run:
    """Returns what becomes of the traffic's calls under a policy; the same arguments give the same run."""
    return Simulation(world, traffic, calls or world.arrivals(traffic), policy).run()
