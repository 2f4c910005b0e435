"""One picture a shape: load, pods, latency and unserved calls over time, a line for each policy.

Knows matplotlib; knows nothing about how a run goes.
"""

from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.autoscaling.outcome import Series
from benchmarks.autoscaling.simulation import Run, World
from benchmarks.autoscaling.traffic import Traffic

matplotlib.use("Agg")

import matplotlib.pyplot as plt

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#555555")
BINS = 120


def write(path: Path, traffic: Traffic, runs: dict[str, Run], world: World) -> None:
    """Writes a PNG of the runs; latency is logarithmic, its deadline dotted."""
    figure, axes = plt.subplots(4, 1, sharex=True, figsize=(9, 9), height_ratios=(2, 3, 3, 2))
    load, pods, latency, unserved = axes
    bin_seconds = traffic.seconds / BINS
    for (name, run), colour in zip(runs.items(), COLOURS, strict=True):
        series = Series.of(run, world.deadline_seconds, bin_seconds)
        minutes = series.at / 60
        if not load.lines:
            load.plot(minutes, series.rate / world.calls_of_a_pod(), color="black", linewidth=1)
        at = np.array([moment.at / 60 for moment in run.moments])
        pods.step(at, [m.replicas for m in run.moments], where="post", color=colour, label=name)
        pods.step(at, [m.serving for m in run.moments], where="post", color=colour, linewidth=0.6, alpha=0.7)
        latency.plot(minutes, series.p99, color=colour, linewidth=1)
        unserved.plot(minutes, 100 * series.unserved, color=colour, linewidth=1)
    latency.axhline(world.deadline_seconds, color="black", linestyle=":", linewidth=1)
    latency.set_yscale("log")
    labels = ("load, pods' worth", "pods: ordered, serving (thin)", "p99 s of answered calls", "unserved %")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=None if axis is latency else 0)
        axis.grid(alpha=0.3)
    pods.legend(loc="upper right")
    unserved.set_xlabel("minutes")
    load.set_title(f"{traffic.name}: {traffic.what}")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
