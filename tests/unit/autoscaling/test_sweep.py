"""The sweep that the defaults were chosen by: it starts from the chart's and turns one thing at a time."""

from dataclasses import fields

import numpy as np
import pytest

from benchmarks.autoscaling import chart
from benchmarks.autoscaling.simulation import World
from benchmarks.autoscaling.sweep import Knobs, around, sweep
from benchmarks.autoscaling.traffic import Traffic


def test_the_sweep_starts_from_the_charts_own_settings() -> None:
    ours, charts = Knobs().settings(World()), chart.settings()
    assert [(m.kind, m.target) for m in ours.metrics] == [(m.kind, m.target) for m in charts.metrics]
    assert (ours.up, ours.down) == (charts.up, charts.down)
    assert (ours.min_replicas, ours.max_replicas) == (charts.min_replicas, charts.max_replicas)


def test_each_line_turns_one_knob() -> None:
    start = Knobs()
    turned = [
        sum(getattr(knobs, field.name) != getattr(start, field.name) for field in fields(Knobs))
        for knobs in around(start)
    ]
    assert turned[0] == 0
    assert set(turned[1:]) == {1}


def test_a_sweep_prints_pod_hours_and_unserved_calls_of_each_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep(World(), {"even": Traffic("even", "", 40.0, lambda at: np.full_like(at, 20.0))}, Knobs())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * len(list(around(Knobs())))
    assert all("%" in line for line in lines[2::2])
