"""What Prometheus reads of pools: queues against deadlines, tokens, held calls, servers, versions, shadows.

Knows names and labels of the series; knows nothing about when they are written. The pool of a gateway with
one Triton of its own has no name: its label is empty.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from conch.v1 import models_pb2
from services.gateway.histograms import Histograms, Series

_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Key = tuple[str, int]


@dataclass(frozen=True)
class _Watched:
    """Where the numbers of one pool can be read; asked by Prometheus's thread."""

    tokens: Callable[[], int] = lambda: 0
    streams: Callable[[], int] = lambda: 0
    held_calls: Callable[[], int] = lambda: 0
    states: Callable[[], Mapping[str, int]] = dict


class PoolQueue:
    """How long the calls of one pool wait, in seconds and against the time that they had."""

    def __init__(self, share: Series, seconds: Series) -> None:
        self._share, self._seconds = share, seconds

    def waited(self, seconds: float, *, had_seconds: float) -> None:
        """Takes one call's wait into account; `had_seconds` is what its deadline left it at its arrival."""
        self._share.observe(seconds / had_seconds if had_seconds > 0 else 1.0)
        self._seconds.observe(seconds)

    def refused(self) -> None:
        """Counts a call that could not be taken, or waited in vain, for its deadline."""
        self._share.overflow()


@dataclass(eq=False)
class PoolMetrics(Collector):
    """The series of all pools."""

    registry: CollectorRegistry
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _states: Mapping[Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._share = Histograms(
            "conch_pool_queue_share",
            "Time in queue divided by the time that the deadline left at arrival; refused for it = +Inf",
            ("pool",),
            _SHARES,
            self.registry,
        )
        self._seconds = Histograms(
            "conch_pool_queue_seconds", "Time in queue", ("pool",), _SECONDS, self.registry
        )
        self.fallback = Gauge(
            "conch_pool_fallback",
            "1 = the ONNX twin answers in place of a plan",
            ("pool", "model"),
            registry=self.registry,
        )
        self.shadows = Counter(
            "conch_shadow_calls",
            "Copies of calls for versions whose answers nobody sees",
            ("model", "version", "outcome"),
            registry=self.registry,
        )
        self.kept_out = Gauge(
            "conch_version_servers_kept_out",
            "Servers that get no calls of a version because they answer its golden examples wrong",
            ("pool", "model", "version"),
            registry=self.registry,
        )
        self.queue = lru_cache(maxsize=256)(self._queue)
        self.registry.register(self)

    def watch(
        self,
        pool: str,
        *,
        tokens: Callable[[], int] = lambda: 0,
        streams: Callable[[], int] = lambda: 0,
        held_calls: Callable[[], int] = lambda: 0,
        states: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """Reads a pool's numbers from these whenever Prometheus asks."""
        self._watched[pool] = _Watched(tokens, streams, held_calls, states)

    def show_states(self, states: Mapping[Key, models_pb2.Version.State.ValueType]) -> None:
        """Shows these versions and no others."""
        name = models_pb2.Version.State.Name
        self._states = {key: name(state).removeprefix("STATE_").lower() for key, state in states.items()}

    def forget(self, labels: dict[str, str]) -> None:
        """Removes all series of a version."""
        for series in (self.shadows, self.kept_out):
            series.remove_by_labels(labels)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yields the gauges that are read when they are asked for."""
        yield from self._pool_gauges()
        family = GaugeMetricFamily(
            "conch_version_state", "1 = the version is in this state", labels=("model", "version", "state")
        )
        for (model, version), state in self._states.items():
            family.add_metric((model, str(version), state), 1)
        yield family

    def _pool_gauges(self) -> Iterator[GaugeMetricFamily]:
        tokens = GaugeMetricFamily(
            "conch_pool_tokens",
            "Padded tokens that wait or are on their way; streams have none",
            labels=["pool"],
        )
        streams = GaugeMetricFamily(
            "conch_pool_streams", "Streams that wait for their turn or are under way", labels=["pool"]
        )
        held = GaugeMetricFamily(
            "conch_pool_held_calls", "Calls that wait for a pool without a server", labels=["pool"]
        )
        servers = GaugeMetricFamily(
            "conch_pool_servers", "Servers by what they are doing", labels=["pool", "state"]
        )
        for pool, watched in list(self._watched.items()):
            tokens.add_metric([pool], watched.tokens())
            streams.add_metric([pool], watched.streams())
            held.add_metric([pool], watched.held_calls())
            for state, count in watched.states().items():
                servers.add_metric([pool, state], count)
        yield from (tokens, streams, held, servers)

    def _queue(self, pool: str) -> PoolQueue:
        return PoolQueue(self._share.labelled(pool), self._seconds.labelled(pool))
