"""Histograms that cost little to write: one thread counts, Prometheus's reads.

Knows bounds and counts; knows nothing about what is measured.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """One histogram of one set of labels."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def overflow(self) -> None:
        """Counts what lies beyond every bound and has no value."""
        self.counts[-1] += 1


class Histograms(Collector):
    """All series of one histogram, written by one thread and read by Prometheus's.

    prometheus_client's own Histogram locks at every observation: 2 to 4 us each, and a call has six.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: tuple[str, ...],
        bounds: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labels, self._bounds = name, documentation, labels, bounds
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labelled(self, *values: str) -> Series:
        """Returns the series of these label values, made if it did not exist; keep it."""
        return self._series.setdefault(values, Series(self._bounds))

    def remove(self, **labels: str) -> None:
        """Forgets all series whose labels have these values; nobody may go on writing to them."""
        wanted = [(self._labels.index(name), value) for name, value in labels.items()]
        for values in [v for v in self._series if all(v[i] == value for i, value in wanted)]:
            del self._series[values]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yields what Prometheus reads."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, series in list(self._series.items()):
            buckets = list(zip(names, map(float, accumulate(series.counts)), strict=True))
            family.add_metric(values, buckets=buckets, sum_value=series.sum)
        yield family
