"""Kubernetes' HorizontalPodAutoscaler, decision by decision.

Knows replicas, metric values and its own past; knows nothing about where metrics come from. Written after
the documentation ("Horizontal Pod Autoscaling", algorithm details) and its controller of Kubernetes 1.3x:
`replica_calculator.go`, `horizontal.go` in pkg/controller/podautoscaler.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.autoscaling.hpa_settings import HpaSettings, Metric, Rules

SYNC_SECONDS = 15.0
INITIAL_READINESS_SECONDS = 30.0
CPU_INITIALIZATION_SECONDS = 300.0


@dataclass(frozen=True)
class PodView:
    """What the controller sees of a pod that is not being deleted.

    `changed` is when its readiness last changed; `cpu` is used / requested over the `cpu_window` seconds
    before `cpu_at`, None if it was not measured.
    """

    started: float
    ready: bool
    changed: float
    pending: bool = False
    cpu: float | None = None
    cpu_at: float = 0.0
    cpu_window: float = 15.0


class MissingMetricError(Exception):
    """A metric could not be turned into a number of replicas."""


@dataclass
class Hpa:
    """One autoscaler with its memory of recommendations and of what it changed."""

    settings: HpaSettings
    _recommendations: list[tuple[float, int]] = field(default_factory=list)
    _ups: list[tuple[float, int]] = field(default_factory=list)
    _downs: list[tuple[float, int]] = field(default_factory=list)

    def replicas(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        """Returns how many replicas there shall be from now; `metrics` are of kind value and average."""
        if not self._recommendations:
            self._recommendations.append((now, current))
        wanted = self._bounded_or_wanted(now, current, pods, metrics)
        if wanted > current:
            self._ups.append((now, wanted - current))
        elif wanted < current:
            self._downs.append((now, current - wanted))
        return wanted

    def _bounded_or_wanted(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        least, most = self.settings.min_replicas, self.settings.max_replicas
        if current == 0 and least != 0:
            return 0
        if not least <= current <= most:
            return min(max(current, least), most)
        try:
            desired = self._desired(now, current, pods, metrics)
        except MissingMetricError:
            return current
        return self._limited(now, current, self._stabilized(now, current, desired))

    def _desired(
        self, now: float, current: int, pods: Sequence[PodView], metrics: Mapping[str, float | None]
    ) -> int:
        """Returns the most that a metric asks for; raises if one is missing and the rest would shrink."""
        proposals, missing = [], 0
        for metric in self.settings.metrics:
            try:
                proposals.append(self._proposal(metric, now, current, pods, metrics.get(metric.name)))
            except MissingMetricError:
                missing += 1
        if not proposals or (missing and max(proposals) < current):
            raise MissingMetricError
        return max(proposals)

    def _proposal(
        self, metric: Metric, now: float, current: int, pods: Sequence[PodView], value: float | None
    ) -> int:
        if metric.kind == "utilization":
            return self._by_utilization(metric.target / 100, now, current, pods)
        if value is None or math.isnan(value):
            raise MissingMetricError(metric.name)
        if metric.kind == "average":
            ratio = value / (metric.target * current) if current else math.inf
            return current if self._tolerated(ratio) else math.ceil(value / metric.target)
        ratio = value / metric.target
        if current == 0:
            return math.ceil(ratio)
        if self._tolerated(ratio):
            return current
        return math.ceil(ratio * sum(pod.ready for pod in pods))

    def _by_utilization(self, target: float, now: float, current: int, pods: Sequence[PodView]) -> int:
        measured = [pod.cpu for pod in pods if pod.cpu is not None and not _set_aside(pod, now)]
        unready = sum(_set_aside(pod, now) for pod in pods)
        missing = len(pods) - len(measured) - unready
        if not measured:
            raise MissingMetricError("cpu")
        ratio = sum(measured) / len(measured) / target
        rebalance = unready > 0 and ratio > 1
        if not rebalance and not missing:
            return current if self._tolerated(ratio) else math.ceil(ratio * len(measured))
        # Not measured: as if at its request where pods would go, as if idle where pods would come.
        assumed = measured + [max(1.0, target) if ratio < 1 else 0.0] * missing
        assumed += [0.0] * unready if rebalance else []
        again = sum(assumed) / len(assumed) / target
        if self._tolerated(again) or (again - 1) * (ratio - 1) < 0:
            return current
        wanted = math.ceil(again * len(assumed))
        return current if (again < 1 and wanted > current) or (again > 1 and wanted < current) else wanted

    def _tolerated(self, ratio: float) -> bool:
        return 1 - self.settings.down.tolerance <= ratio <= 1 + self.settings.up.tolerance

    def _stabilized(self, now: float, current: int, desired: int) -> int:
        """Returns `current` moved to the least recent wish to grow and the greatest recent wish to shrink."""
        up, down = self.settings.up.stabilization_seconds, self.settings.down.stabilization_seconds
        recent = [(now - at, wanted) for at, wanted in self._recommendations]
        least = min([desired, *(wanted for age, wanted in recent if age < up)])
        most = max([desired, *(wanted for age, wanted in recent if age < down)])
        self._recommendations = [(now - age, wanted) for age, wanted in recent if age < max(up, down)]
        self._recommendations.append((now, desired))
        return min(max(current, least), most)

    def _limited(self, now: float, current: int, desired: int) -> int:
        if desired > current:
            allowed = max(self._limit(now, current, self.settings.up, +1), current)
            return min(desired, self.settings.max_replicas, allowed)
        if desired < current:
            allowed = min(self._limit(now, current, self.settings.down, -1), current)
            return max(desired, self.settings.min_replicas, allowed)
        return desired

    def _limit(self, now: float, current: int, rules: Rules, way: int) -> int:
        """Returns how far the policies let go in one direction: `way` is +1 up, -1 down."""
        if rules.select == "Disabled":
            return current
        limits = []
        for policy in rules.policies:
            at_start = current - _changed(self._ups, now, policy.period_seconds)
            at_start += _changed(self._downs, now, policy.period_seconds)
            if policy.type == "Pods":
                limits.append(at_start + way * policy.value)
            elif way > 0:
                limits.append(math.ceil(at_start * (1 + policy.value / 100)))
            else:
                limits.append(int(at_start * (1 - policy.value / 100)))
        furthest = rules.select == "Max"
        return max(limits) if furthest == (way > 0) else min(limits)


def _changed(events: Sequence[tuple[float, int]], now: float, seconds: float) -> int:
    return sum(count for at, count in events if now - at < seconds)


def _set_aside(pod: PodView, now: float) -> bool:
    """Returns whether a pod's CPU does not count yet: it is starting, or was when it was measured."""
    if pod.pending:
        return True
    if pod.cpu is None:
        return False
    if now < pod.started + CPU_INITIALIZATION_SECONDS:
        return not pod.ready or pod.cpu_at < pod.changed + pod.cpu_window
    return not pod.ready and pod.changed < pod.started + INITIAL_READINESS_SECONDS
