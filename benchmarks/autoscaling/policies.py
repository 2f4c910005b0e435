"""Who decides how many pods there are: an HPA, or a schedule that knew what would come.

Knows when to ask and what about; knows nothing about gateways.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from benchmarks.autoscaling.hpa import SYNC_SECONDS, Hpa, PodView
from benchmarks.autoscaling.hpa_settings import DEFAULT_DOWN, DEFAULT_UP, HpaSettings, Metric

QUEUE_SHARE = "queue_share"
TOKENS = "tokens"


class Policy(Protocol):
    """Asked every `period_seconds` how many pods there shall be."""

    @property
    def period_seconds(self) -> float:
        """How long it is from one question to the next."""

    def start(self) -> int:
        """Returns with how many pods the run begins."""

    def replicas(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        """Returns how many pods there shall be from now on."""


class Autoscaled:
    """Kubernetes' HPA with given settings; a metric is known by the signal that its name contains."""

    period_seconds = SYNC_SECONDS

    def __init__(self, settings: HpaSettings, *, start: int) -> None:
        self._hpa = Hpa(replace(settings, metrics=tuple(map(_by_signal, settings.metrics))))
        self._start = max(start, settings.min_replicas)

    def start(self) -> int:
        """Returns with how many pods the run begins."""
        return self._start

    def replicas(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        """Returns the HPA's decision."""
        return self._hpa.replicas(now, current, pods, metrics)


@dataclass(frozen=True)
class Planned:
    """A timetable: from `times[i]` on `counts[i]` pods."""

    times: Sequence[float]
    counts: Sequence[int]
    period_seconds: float = 1.0

    def start(self) -> int:
        """Returns with how many pods the run begins."""
        return self.counts[0]

    def replicas(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        """Returns what the timetable says."""
        return self.counts[max(0, bisect_right(self.times, now) - 1)]


def _by_signal(metric: Metric) -> Metric:
    if metric.kind == "utilization":
        return metric
    for signal in (QUEUE_SHARE, TOKENS):
        if signal in metric.name:
            return replace(metric, name=signal)
    raise ValueError(f"metric {metric.name} is none that the simulator has: {QUEUE_SHARE}, {TOKENS}, cpu")


def cpu_settings(percent: float, *, least: int, most: int) -> HpaSettings:
    """Returns the usual HPA: CPU utilization, everything else as Kubernetes has it."""
    return HpaSettings(least, most, (Metric("cpu", "utilization", percent),), DEFAULT_UP, DEFAULT_DOWN)
