"""What Prometheus reads of streams: how long callers wait for text, how much text there is, who waits.

Knows names and labels of the series; knows nothing about when they are written.
"""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.gateway.histograms import Histograms

_VERSION = ("model", "version")
_RPC = ("rpc", *_VERSION)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class StreamMetrics:
    """The series of all streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histograms(
            "conch_stream_seconds",
            "From a stream's arrival to its turn (queue), its first piece and its end (total)",
            ("stage", *_RPC),
            _SECONDS,
            registry,
        )
        self.pieces = Counter("conch_stream_pieces", "Pieces of text", _RPC, registry=registry)
        self.tokens = Counter(
            "conch_stream_tokens", "Tokens that streams read and wrote", ("kind", *_RPC), registry=registry
        )
        self._inflight = Gauge(
            "conch_streams_inflight", "Streams that a version writes now", _VERSION, registry=registry
        )
        self._waiting = Gauge(
            "conch_streams_waiting", "Streams that wait for their turn", _VERSION, registry=registry
        )
        self.of = lru_cache(maxsize=1024)(self._series)

    def gauges(self, model: str, version: int) -> "StreamGauges":
        """Returns what shows how many streams a version has."""
        labels = (model, str(version))
        return StreamGauges(self._inflight.labels(*labels), self._waiting.labels(*labels))

    def forget(self, labels: dict[str, str]) -> None:
        """Removes all series with these labels."""
        self.seconds.remove(**labels)
        for series in (self.pieces, self.tokens, self._inflight, self._waiting):
            series.remove_by_labels(labels)
        self.of.cache_clear()

    def _series(self, rpc: str, model: str, version: int) -> "StreamSeries":
        return StreamSeries(self, rpc, model, str(version))


class StreamGauges:
    """The gauges of one version; a streams.StreamObserver."""

    def __init__(self, inflight: Gauge, waiting: Gauge) -> None:
        self._inflight, self._waiting = inflight, waiting

    def watch(self, *, inflight: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Reads the gauges whenever Prometheus asks."""
        self._inflight.set_function(inflight)
        self._waiting.set_function(waiting)


class StreamSeries:
    """The series of one rpc and version."""

    def __init__(self, metrics: StreamMetrics, *labels: str) -> None:
        self.queued = metrics.seconds.labelled("queue", *labels).observe
        self.begun = metrics.seconds.labelled("first_piece", *labels).observe
        self.ended = metrics.seconds.labelled("total", *labels).observe
        self._pieces = metrics.pieces.labels(*labels)
        self._read = metrics.tokens.labels("prompt", *labels)
        self._written = metrics.tokens.labels("generated", *labels)

    def read(self, num_tokens: int) -> None:
        """Counts a prompt's tokens."""
        self._read.inc(num_tokens)

    def wrote(self, num_tokens: int) -> None:
        """Counts a piece of so many tokens."""
        self._pieces.inc()
        self._written.inc(num_tokens)
