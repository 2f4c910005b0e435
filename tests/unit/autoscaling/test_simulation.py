"""The simulator as a whole: it repeats itself, loses no call, and behaves as queues are known to."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.autoscaling.hpa_settings import HpaSettings, Metric
from benchmarks.autoscaling.oracle import timetable
from benchmarks.autoscaling.outcome import Outcome, Series, latencies
from benchmarks.autoscaling.pods import Delays
from benchmarks.autoscaling.policies import Autoscaled, Planned, cpu_settings
from benchmarks.autoscaling.service import MEASURED, ServiceTimes, circumstances, text_lengths
from benchmarks.autoscaling.simulation import Run, World, simulate
from benchmarks.autoscaling.traffic import Traffic, arrivals, shapes

WORLD = World()
POD = WORLD.calls_of_a_pod()


def even(pods_worth: float, seconds: float = 120.0) -> Traffic:
    return Traffic("even", "even", seconds, lambda at: np.full_like(at, pods_worth * POD))


def outcome(run: Run, world: World = WORLD) -> Outcome:
    return Outcome.of(run, world.deadline_seconds)


def fixed(count: int) -> Planned:
    return Planned([0.0], [count])


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (simulate(WORLD, even(1.5), fixed(2)) for _ in range(2))
    assert np.array_equal(latencies(first), latencies(second), equal_nan=True)
    assert first.answers.refused == second.answers.refused
    assert first.pod_seconds == second.pod_seconds


def test_another_seed_gives_other_calls() -> None:
    assert WORLD.arrivals(even(1)) != replace(WORLD, seed=8).arrivals(even(1))


def test_every_call_is_answered_or_refused_but_for_those_under_way_at_the_end() -> None:
    run = simulate(WORLD, even(3), fixed(2))
    open_calls = np.flatnonzero(np.isnan(latencies(run)))
    left = [number for number in open_calls if number not in run.answers.refused]
    assert not set(run.answers.refused) & set(np.flatnonzero(~np.isnan(latencies(run))))
    assert all(run.arrivals.times[number] > 120.0 - 3 for number in left)


def test_pods_with_room_refuse_nothing_and_those_without_refuse_about_the_excess() -> None:
    assert outcome(simulate(WORLD, even(1.4), fixed(2))).unserved == 0
    over = outcome(simulate(WORLD, even(4), fixed(2)))
    assert over.unserved > 0.5
    assert over.refused + over.late == over.unserved


def test_callers_who_wait_longer_are_refused_less() -> None:
    patient = replace(WORLD, deadline_seconds=5.0)
    hasty, calm = (outcome(simulate(w, even(2), fixed(2)), w) for w in (WORLD, patient))
    assert calm.refused < hasty.refused


def test_a_full_pod_answers_what_the_measured_times_say() -> None:
    run = simulate(WORLD, even(2), fixed(1))
    answered = np.count_nonzero(~np.isnan(latencies(run)))
    assert answered / 120 == pytest.approx(POD, rel=0.1)


def test_a_pod_costs_from_its_order_to_its_end_and_serves_after_its_start() -> None:
    delays = WORLD.pod_delays()
    run = simulate(WORLD, even(1.5, 240.0), Planned([0.0, 60.0, 180.0], [2, 3, 2]))
    serving = {moment.at: moment.serving for moment in run.moments}
    assert run.pod_seconds == pytest.approx(2 * 240 + 120 + delays.drain, abs=2)
    assert serving[round(60 + delays.serving) - 2] == 2
    assert serving[round(60 + delays.serving) + 2] == 3


def test_a_pod_that_leaves_takes_no_call_with_it() -> None:
    run = simulate(WORLD, even(1, 120.0), Planned([0.0, 60.0], [4, 2]))
    assert outcome(run).unserved == 0


def test_more_gateways_make_a_pod_serve_later() -> None:
    assert replace(WORLD, num_gateways=30).pod_delays().serving > 2 * WORLD.pod_delays().serving


def test_an_autoscaler_on_queue_and_tokens_follows_a_rise() -> None:
    metrics = (
        Metric("conch_pool_queue_share_p95", "value", 0.2),
        Metric("conch_pool_tokens", "average", 250),
    )
    rise = Traffic("rise", "", 600.0, lambda at: POD * (1 + at / 200))
    run = simulate(WORLD, rise, Autoscaled(HpaSettings(1, 16, metrics), start=2))
    assert run.moments[-1].replicas >= 4
    assert outcome(run).unserved < 0.02


def test_an_autoscaler_on_cpu_sees_pods_that_are_busy() -> None:
    run = simulate(WORLD, even(1.9, 300.0), Autoscaled(cpu_settings(50, least=1, most=8), start=2))
    assert run.moments[-1].replicas == 4


def test_the_oracle_orders_before_the_crowd_comes() -> None:
    crowd = shapes(POD)["flash-crowd"]
    plan = timetable(replace(WORLD, least_replicas=1), crowd, 0.5)
    at = next(time for time, count in zip(plan.times, plan.counts, strict=True) if count > 5)
    assert 600 - WORLD.pod_delays().serving - 15 <= at < 600


def test_arrivals_follow_the_rate_and_lengths_the_texts() -> None:
    crowd = shapes(POD)["flash-crowd"]
    calls = arrivals(crowd, text_lengths(), num_gateways=3, seed=1)
    times = np.asarray(calls.times)
    assert np.all(np.diff(times) >= 0)
    before, during = (np.count_nonzero((times >= a) & (times < a + 300)) for a in (100, 700))
    assert during / before == pytest.approx(8, rel=0.1)
    assert np.mean(calls.tokens) == pytest.approx(np.mean(text_lengths()), rel=0.02)
    assert np.bincount(calls.gateways) / len(times) == pytest.approx([1 / 3] * 3, rel=0.05)


def test_service_times_are_those_measured_and_lie_between_them_elsewhere() -> None:
    times = ServiceTimes.measured("onnxruntime")
    assert times.seconds(1, 128) == 0.018505
    assert times.seconds(1, 64) < times.seconds(1, 100) < times.seconds(1, 128)
    assert times.seconds(8, 64) < times.seconds(12, 64) < times.seconds(16, 64)


def test_what_was_measured_says_where_and_when() -> None:
    assert "AMD EPYC" in circumstances(MEASURED)
    assert "2026" in circumstances(MEASURED)


def test_a_series_has_a_point_for_each_bin() -> None:
    run = simulate(WORLD, even(1), fixed(2))
    series = Series.of(run, 1.0, 10.0)
    assert len(series.at) == len(series.rate) == len(series.p99) == 12
    assert series.rate.mean() == pytest.approx(POD, rel=0.1)
    assert series.unserved.max() == 0


def test_delays_add_up() -> None:
    delays = Delays(schedule=1, image=2, stage=3, load=4, readiness=5, discover=6, prove=7)
    assert (delays.ready, delays.serving) == (15, 28)
