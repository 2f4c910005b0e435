"""From a gateway's counters to the number that an autoscaler reads, with every delay on the way.

Knows scrapes, windows and `histogram_quantile` (Prometheus' definition); knows nothing about what is
counted. A number is old when it arrives: scraped every so often, averaged over a window, recorded by a
rule, read at the next sync.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# The buckets of conch_pool_queue_share; above the last, and refused, is +Inf.
SHARE_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Pipeline:
    """Seconds on the way of a metric: scrape interval, window of rate(), interval of the recording rule."""

    scrape: float = 15.0
    window: float = 60.0
    rule: float = 15.0


class ShareHistogram:
    """Counts of observations by bucket, not cumulated; the last one is +Inf."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SHARE_BUCKETS) + 1)

    def observe(self, share: float) -> None:
        """Counts one call."""
        self.counts[bisect_left(SHARE_BUCKETS, share)] += 1


@dataclass
class Scraped:
    """One target's past, as Prometheus keeps it: (time, counts, gauge)."""

    samples: deque[tuple[float, tuple[int, ...], float]] = field(default_factory=deque)

    def add(self, now: float, counts: Sequence[int], gauge: float, *, keep: float) -> None:
        """Stores a scrape and forgets those older than `keep` seconds."""
        self.samples.append((now, tuple(counts), gauge))
        while self.samples[0][0] < now - keep:
            self.samples.popleft()


class Prometheus:
    """Answers the two queries of the chart's rules: p95 of the queue share, and tokens of a pool."""

    def __init__(self, pipeline: Pipeline, num_targets: int) -> None:
        self._pipeline = pipeline
        self._targets = [Scraped() for _ in range(num_targets)]

    def scrape(self, now: float, target: int, counts: Sequence[int], gauge: float) -> None:
        """Reads one target."""
        keep = self._pipeline.window + 2 * self._pipeline.rule + self._pipeline.scrape
        self._targets[target].add(now, counts, gauge, keep=keep)

    def queue_share(self, now: float, quantile: float = 0.95) -> float | None:
        """Returns histogram_quantile(q, sum by (le) (rate(...[window]))), 0 of a pool without calls.

        None before the first scrape. The rule is conch:pool_queue_share:p95_1m of the chart.
        """
        counts = [0] * (len(SHARE_BUCKETS) + 1)
        if self.tokens(now) is None:
            return None
        for samples in self._windows(now):
            for i, (last, first) in enumerate(zip(samples[-1][1], samples[0][1], strict=True)):
                counts[i] += last - first
        return histogram_quantile(quantile, counts) or 0.0

    def tokens(self, now: float) -> float | None:
        """Returns sum(avg_over_time(...[window])), the chart's conch:pool_tokens:avg_1m."""
        windows = list(self._windows(now, least=1))
        if not windows:
            return None
        return sum(sum(gauge for _, _, gauge in samples) / len(samples) for samples in windows)

    def _windows(self, now: float, least: int = 2) -> list[list[tuple[float, tuple[int, ...], float]]]:
        """Returns each target's samples within the window that ends when the rule was last evaluated."""
        at = math.floor(now / self._pipeline.rule) * self._pipeline.rule if self._pipeline.rule else now
        found = (
            [s for s in target.samples if at - self._pipeline.window < s[0] <= at] for target in self._targets
        )
        return [samples for samples in found if len(samples) >= least]


def histogram_quantile(quantile: float, counts: Sequence[int]) -> float | None:
    """Returns the quantile, linear within a bucket; the highest finite bound if it lies beyond."""
    total = sum(counts)
    if not total:
        return None
    rank, below = quantile * total, 0
    for i, count in enumerate(counts[:-1]):
        if below + count >= rank and count:
            lower = SHARE_BUCKETS[i - 1] if i else 0.0
            return lower + (SHARE_BUCKETS[i] - lower) * (rank - below) / count
        below += count
    return SHARE_BUCKETS[-1]
