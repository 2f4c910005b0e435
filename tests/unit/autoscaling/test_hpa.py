"""The autoscaler against cases worked out by hand from Kubernetes' documentation of its HPA."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from benchmarks.autoscaling.hpa import Hpa, PodView
from benchmarks.autoscaling.hpa_settings import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    HpaSettings,
    Metric,
    Policy,
    Rules,
)
from benchmarks.autoscaling.policies import Autoscaled

FREE = Rules(0.0, (Policy("Percent", 10_000, 15), Policy("Pods", 1000, 15)))
FREE_DOWN = Rules(0.0, (Policy("Percent", 100, 15),))


def hpa(*metrics: Metric, up: Rules = FREE, down: Rules = FREE_DOWN, least: int = 1, most: int = 100) -> Hpa:
    return Hpa(HpaSettings(least, most, metrics or (VALUE,), up, down))


VALUE = Metric("m", "value", 0.1)
CPU = Metric("cpu", "utilization", 50)


def ready(count: int, cpu: float | None = None) -> list[PodView]:
    return [PodView(started=-1000, ready=True, changed=-990, cpu=cpu, cpu_at=-5) for _ in range(count)]


def starting(count: int, cpu: float | None = None) -> list[PodView]:
    return [PodView(started=-20, ready=False, changed=-20, cpu=cpu, cpu_at=-5) for _ in range(count)]


def decide(scaler: Hpa, pods: Sequence[PodView], now: float = 0.0, **metrics: float | None) -> int:
    return scaler.replicas(now, len(pods), pods, metrics)


def test_twice_the_target_doubles_the_replicas_and_half_of_it_halves_them() -> None:
    """The documentation's own example: 200m and 50m against 100m."""
    assert decide(hpa(), ready(4), m=0.2) == 8
    assert decide(hpa(), ready(4), m=0.05) == 2


@pytest.mark.parametrize(("value", "wanted"), [(0.109, 10), (0.091, 10), (0.112, 12), (0.088, 9)])
def test_a_ratio_within_a_tenth_of_one_changes_nothing(value: float, wanted: int) -> None:
    assert decide(hpa(), ready(10), m=value) == wanted


def test_replicas_are_rounded_up() -> None:
    assert decide(hpa(), ready(3), m=0.15) == 5


def test_a_value_multiplies_the_ready_pods_only() -> None:
    assert decide(hpa(), [*ready(2), *starting(2)], m=0.3) == 6


def test_an_average_is_the_sum_divided_by_the_target() -> None:
    average = hpa(Metric("m", "average", 100))
    assert decide(average, ready(4), m=950.0) == 10
    assert decide(hpa(Metric("m", "average", 100)), ready(4), m=430.0) == 4


def test_of_several_metrics_the_largest_wish_counts() -> None:
    both = (VALUE, Metric("n", "average", 100))
    assert decide(hpa(*both), ready(4), m=0.05, n=900.0) == 9
    assert decide(hpa(*both), ready(4), m=0.3, n=100.0) == 12


def test_a_missing_metric_forbids_to_shrink_and_not_to_grow() -> None:
    both = (VALUE, Metric("n", "average", 100))
    assert decide(hpa(*both), ready(4), m=None, n=100.0) == 4
    assert decide(hpa(*both), ready(4), m=None, n=800.0) == 8
    assert decide(hpa(*both), ready(4), m=None, n=None) == 4


def test_cpu_is_averaged_over_the_pods() -> None:
    assert decide(hpa(CPU), ready(4, cpu=0.75)) == 6


def test_pods_without_cpu_are_idle_where_it_would_grow_and_busy_where_it_would_shrink() -> None:
    # 0.9 / 0.5 = 1.8 over two; with a third at 0: 0.6 / 0.5 = 1.2, of three: 4.
    assert decide(hpa(CPU), [*ready(2, cpu=0.9), *ready(1)]) == 4
    # 0.2 / 0.5 = 0.4 over three; with a fourth at 1.0: 0.4 / 0.5 = 0.8, of four: 4.
    assert decide(hpa(CPU), [*ready(3, cpu=0.2), *ready(1)]) == 4
    # A seventh at 1.0: 0.2 x 6 + 1 = 2.2 / 7 / 0.5 = 0.63, of seven: 5.
    assert decide(hpa(CPU), [*ready(6, cpu=0.2), *ready(1)]) == 5


def test_pods_that_start_count_as_idle_where_it_would_grow() -> None:
    # 1.0 / 0.5 = 2 over two; with two at 0: 1.0, within the tolerance.
    assert decide(hpa(CPU), [*ready(2, cpu=1.0), *starting(2, cpu=1.0)]) == 4
    # With one: 2 / 3 / 0.5 = 1.33, of three: 4.
    assert decide(hpa(CPU), [*ready(2, cpu=1.0), *starting(1, cpu=1.0)]) == 4


def test_pods_that_start_do_not_matter_where_it_would_shrink() -> None:
    assert decide(hpa(CPU), [*ready(4, cpu=0.25), *starting(1, cpu=1.0)]) == 2


def test_cpu_measured_before_a_young_pod_became_ready_is_set_aside() -> None:
    young = PodView(started=-60, ready=True, changed=-12, cpu=1.0, cpu_at=-5, cpu_window=15)
    assert decide(hpa(CPU), [*ready(2, cpu=0.5), young]) == 3
    settled = PodView(started=-60, ready=True, changed=-25, cpu=1.0, cpu_at=-5, cpu_window=15)
    assert decide(hpa(CPU), [*ready(2, cpu=0.5), settled]) == 4


def test_growth_is_limited_to_twice_or_four_more_in_fifteen_seconds_by_default() -> None:
    scaler = hpa(up=DEFAULT_UP, down=DEFAULT_DOWN)
    assert decide(scaler, ready(2), m=10.0) == 6
    assert decide(scaler, ready(6), now=10.0, m=10.0) == 6
    assert decide(scaler, ready(6), now=15.0, m=10.0) == 12


def test_shrinking_by_percent_or_pods_goes_as_the_documentation_counts_it() -> None:
    """From 80 by 10 % or 4 pods a minute, the larger of the two: 8, again 8, and 4 below 40."""
    rules = Rules(0.0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60)))
    scaler, current, seen = hpa(down=rules), 80, []
    for minute in range(13):
        current = decide(scaler, ready(current), now=60.0 * minute, m=0.001)
        seen.append(current)
    assert seen[:3] == [72, 64, 57]
    assert {before - after for before, after in pairwise(seen) if before <= 40} == {4}


def test_the_smaller_policy_counts_if_the_manifest_says_so() -> None:
    rules = Rules(0.0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60)), select="Min")
    assert decide(hpa(down=rules), ready(80), m=0.001) == 76
    assert decide(hpa(down=Rules(0.0, rules.policies, select="Disabled")), ready(80), m=0.001) == 80


def test_a_period_counts_what_was_changed_within_it() -> None:
    scaler = hpa(up=Rules(0.0, (Policy("Pods", 3, 60),)))
    assert decide(scaler, ready(2), m=1.0) == 5
    assert decide(scaler, ready(5), now=45.0, m=1.0) == 5
    assert decide(scaler, ready(5), now=60.0, m=1.0) == 8


def test_the_largest_wish_of_the_window_holds_against_shrinking() -> None:
    scaler = hpa(down=Rules(300.0, FREE_DOWN.policies))
    assert decide(scaler, ready(10), now=0.0, m=0.1) == 10
    assert decide(scaler, ready(10), now=15.0, m=0.05) == 10
    assert decide(scaler, ready(10), now=299.0, m=0.02) == 10
    assert decide(scaler, ready(10), now=301.0, m=0.02) == 5


def test_the_smallest_wish_of_the_window_holds_against_growing() -> None:
    scaler = hpa(up=Rules(60.0, FREE.policies))
    assert decide(scaler, ready(2), now=0.0, m=0.1) == 2
    assert decide(scaler, ready(2), now=30.0, m=0.4) == 2
    assert decide(scaler, ready(2), now=61.0, m=0.3) == 6


def test_bounds_hold_and_are_restored_at_once() -> None:
    assert decide(hpa(most=5), ready(4), m=10.0) == 5
    assert decide(hpa(least=3), ready(4), m=0.0001) == 3
    assert decide(hpa(least=3), ready(1), m=None) == 3
    assert decide(hpa(most=5), ready(9), m=None) == 5


MANIFEST = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: conch-triton-cpu}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: conch-triton-cpu}
  minReplicas: 2
  maxReplicas: 9
  metrics:
    - type: External
      external:
        metric: {name: conch_pool_queue_share_p95, selector: {matchLabels: {pool: cpu}}}
        target: {type: Value, value: 200m}
    - type: External
      external:
        metric: {name: conch_pool_tokens}
        target: {type: AverageValue, averageValue: 4Ki}
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 120
      selectPolicy: Min
      policies: [{type: Pods, value: 1, periodSeconds: 90}]
"""


def test_a_manifest_is_read_with_kubernetes_defaults_for_what_it_leaves_out() -> None:
    settings = HpaSettings.parse(MANIFEST)
    assert (settings.min_replicas, settings.max_replicas) == (2, 9)
    assert settings.metrics == (
        Metric("conch_pool_queue_share_p95", "value", 0.2),
        Metric("conch_pool_tokens", "average", 4096),
        Metric("cpu", "utilization", 70),
    )
    assert settings.up == DEFAULT_UP
    assert settings.down == Rules(120, (Policy("Pods", 1, 90),), "Min")


def test_a_metric_that_is_not_simulated_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="conch_pool_streams_avg"):
        Autoscaled(HpaSettings(1, 2, (Metric("conch_pool_streams_avg", "average", 12),)), start=1)


def test_another_kind_of_manifest_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="v1 Service"):
        HpaSettings.parse("{apiVersion: v1, kind: Service}")
