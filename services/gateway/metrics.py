"""What Prometheus reads of the gateway: stages, batches, queues, streams and outcomes.

Knows names and labels of the series; knows nothing about when they are written.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from google.rpc import code_pb2
from prometheus_client import CollectorRegistry, Counter, Gauge

from conch.v1 import inference_pb2, models_pb2
from services.gateway.histograms import Histograms, Series
from services.gateway.pool_metrics import PoolMetrics
from services.gateway.stream_metrics import StreamMetrics
from services.interceptors import code_of

_VERSION = ("rpc", "model", "version")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
STAGES = ("tokenize", "queue", "infer", "decode", "total")


class StageTimes:
    """The stage histograms of one rpc and version."""

    def __init__(self, histograms: Histograms, rpc: str, model: str, version: str) -> None:
        self._observe = [histograms.labelled(stage, rpc, model, version).observe for stage in STAGES]

    def observe(self, *seconds: float) -> None:
        """Takes the seconds of each stage of one answered call, in the order of STAGES."""
        for observe, value in zip(self._observe, seconds, strict=True):
            observe(value)


class BatchSeries:
    """The batch histograms and the queue gauge of one version; a batching.BatchObserver."""

    def __init__(self, texts: Series, padding: Series, queue: Gauge) -> None:
        self._texts, self._padding, self._queue = texts, padding, queue

    def batch_sent(self, *, num_texts: int, num_tokens: int, num_padded_tokens: int) -> None:
        """Records one batch."""
        self._texts.observe(num_texts)
        self._padding.observe(1 - num_tokens / num_padded_tokens)

    def watch_queue(self, waiting_tokens: Callable[[], int]) -> None:
        """Reads the gauge from `waiting_tokens` whenever Prometheus asks."""
        self._queue.set_function(waiting_tokens)


class Metrics:
    """The gateway's series in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stages = Histograms(
            "conch_stage_seconds",
            "Time of each stage of an answered call",
            ("stage", *_VERSION),
            _SECONDS,
            self.registry,
        )
        self._seconds = Histograms(
            "conch_rpc_seconds", "Time of an rpc, whatever its end", ("rpc",), _SECONDS, self.registry
        )
        version = ("model", "version")
        self._texts = Histograms(
            "conch_batch_texts", "Texts in one call to Triton", version, _TEXTS, self.registry
        )
        self._padding = Histograms(
            "conch_batch_padding_ratio", "Padding in one call to Triton", version, _SHARES, self.registry
        )
        self._calls = Counter(
            "conch_rpcs", "Ended rpcs by gRPC status", ("rpc", "code"), registry=self.registry
        )
        self._failures = Counter(
            "conch_version_failures",
            "Calls that a version did not answer, by gRPC status",
            (*_VERSION, "code"),
            registry=self.registry,
        )
        self._queue = Gauge(
            "conch_queue_tokens", "Padded tokens that wait", ("model", "version"), registry=self.registry
        )
        self._fallbacks = Counter(
            "conch_route_fallbacks",
            "Calls that were a version's share and went to others because it does not serve",
            ("model", "version"),
            registry=self.registry,
        )
        self._problem = Gauge(
            "conch_routes_problem", "1 = what holds is not what the routes say", registry=self.registry
        )
        self._unwritten = Gauge(
            "conch_ledger_unwritten",
            "Changes of routes that are not in the ledger yet",
            registry=self.registry,
        )
        self.pools = PoolMetrics(self.registry)
        self.streams = StreamMetrics(self.registry)
        self.stream_gauges = self.streams.gauges
        self._rpc_child = lru_cache(maxsize=256)(self._rpc_children)
        self.stages = lru_cache(maxsize=1024)(self._stage_times)

    def rpc_ended(self, method: str, code: int, seconds: float) -> None:
        """Counts one ended rpc; `method` as gRPC names it, `code` as google.rpc.Code numbers it."""
        calls, durations = self._rpc_child(method, code)
        calls.inc()
        durations.observe(seconds)

    @contextmanager
    def failures(self, rpc: str, served_by: inference_pb2.ServedBy) -> Iterator[None]:
        """Counts what the block raises as a call that the version did not answer."""
        try:
            yield
        except BaseException as error:
            self.version_failed(rpc, served_by, error)
            raise

    def version_failed(self, rpc: str, served_by: inference_pb2.ServedBy, error: BaseException) -> None:
        """Counts a call that a version did not answer."""
        code = code_pb2.Code.Name(code_of(error))
        self._failures.labels(rpc, served_by.model, str(served_by.version), code).inc()

    def batches(self, model: str, version: int) -> BatchSeries:
        """Returns the batch series of one version."""
        labels = (model, str(version))
        return BatchSeries(
            self._texts.labelled(*labels), self._padding.labelled(*labels), self._queue.labels(*labels)
        )

    def route_fell_back(self, model: str, version: int) -> None:
        """Counts a call whose share was a version that does not serve."""
        self._fallbacks.labels(model, str(version)).inc()

    def watch_routes(self, problem: Callable[[], str], num_unwritten: Callable[[], int]) -> None:
        """Reads whether there is a problem, and how much the ledger lacks, whenever Prometheus asks."""
        self._problem.set_function(lambda: bool(problem()))
        self._unwritten.set_function(num_unwritten)

    def version_states(self, states: Mapping[tuple[str, int], models_pb2.Version.State.ValueType]) -> None:
        """Shows these versions' states and no others'."""
        self.pools.show_states(states)

    def forget(self, model: str, version: int) -> None:
        """Removes all series of a version that is gone."""
        labels = {"model": model, "version": str(version)}
        for histograms in (self._stages, self._texts, self._padding):
            histograms.remove(**labels)
        for series in (self._failures, self._queue, self._fallbacks):
            series.remove_by_labels(labels)
        self.streams.forget(labels)
        self.pools.forget(labels)
        self.stages.cache_clear()

    def _stage_times(self, rpc: str, model: str, version: int) -> StageTimes:
        return StageTimes(self._stages, rpc, model, str(version))

    def _rpc_children(self, method: str, code: int) -> tuple[Counter, Series]:
        rpc = method.rpartition(".")[2]
        return self._calls.labels(rpc, code_pb2.Code.Name(code)), self._seconds.labelled(rpc)
