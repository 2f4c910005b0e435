"""What an autoscaler reads of the counters that gateways keep."""

import pytest
from prometheus_client import CollectorRegistry

from benchmarks.autoscaling.signals import (
    SHARE_BUCKETS,
    Pipeline,
    Prometheus,
    ShareHistogram,
    histogram_quantile,
)
from services.gateway.pool_metrics import PoolMetrics


def counts(**by_bound: int) -> list[int]:
    found = [0] * (len(SHARE_BUCKETS) + 1)
    for bound, count in by_bound.items():
        at = len(SHARE_BUCKETS) if bound == "inf" else SHARE_BUCKETS.index(float(bound[1:].replace("_", ".")))
        found[at] = count
    return found


def test_the_buckets_are_those_that_gateways_show() -> None:
    registry = CollectorRegistry()
    PoolMetrics(registry).queue("cpu").refused()
    shown = [
        float(sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "conch_pool_queue_share_bucket"
    ]
    assert tuple(shown) == (*SHARE_BUCKETS, float("inf"))


def test_a_quantile_is_linear_within_its_bucket() -> None:
    assert histogram_quantile(0.5, counts(_0_2=10)) == pytest.approx(0.175)
    assert histogram_quantile(0.95, counts(_0_01=90, _0_1=10)) == pytest.approx(0.075)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert histogram_quantile(0.95, counts(_0_01=10, inf=10)) == 1.0


def test_there_is_no_quantile_of_nothing() -> None:
    assert histogram_quantile(0.95, counts()) is None


def test_a_refused_call_counts_as_infinite_share() -> None:
    histogram = ShareHistogram()
    histogram.observe(float("inf"))
    histogram.observe(0.2)
    assert histogram.counts[-1] == 1
    assert histogram.counts[SHARE_BUCKETS.index(0.2)] == 1


def test_only_what_was_counted_within_the_window_before_the_last_evaluation_is_read() -> None:
    prometheus = Prometheus(Pipeline(scrape=15, window=60, rule=15), 1)
    for at, slow, fast in ((0, 100, 0), (15, 100, 0), (30, 100, 10), (45, 100, 20), (60, 100, 30)):
        prometheus.scrape(at, 0, counts(inf=slow, _0_01=fast), gauge=0.0)
    assert prometheus.queue_share(74.9) == pytest.approx(0.00975)


def test_a_pool_without_calls_has_a_share_of_zero_and_before_the_first_scrape_none() -> None:
    prometheus = Prometheus(Pipeline(), 1)
    assert prometheus.queue_share(0.0) is None
    prometheus.scrape(0.0, 0, counts(), gauge=0.0)
    prometheus.scrape(15.0, 0, counts(), gauge=0.0)
    assert prometheus.queue_share(15.0) == 0.0


def test_tokens_are_the_sum_over_gateways_of_their_averages() -> None:
    prometheus = Prometheus(Pipeline(), 2)
    for at, mine, others in ((0, 100, 10), (15, 300, 30)):
        prometheus.scrape(at, 0, counts(), gauge=mine)
        prometheus.scrape(at, 1, counts(), gauge=others)
    assert prometheus.tokens(15.0) == 220
