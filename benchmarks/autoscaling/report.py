"""Plays every shape under every policy and prints what became of the calls and what it cost.

Knows lines of text; knows nothing about how a run goes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.autoscaling.hpa_settings import HpaSettings
from benchmarks.autoscaling.oracle import cheapest
from benchmarks.autoscaling.outcome import Outcome
from benchmarks.autoscaling.policies import TOKENS, Autoscaled, cpu_settings
from benchmarks.autoscaling.simulation import Run, World, simulate
from benchmarks.autoscaling.traffic import Traffic

CHART, TUNED, CPU, ORACLE = "chart", "tuned", "cpu", "oracle"
_HEAD = "policy       p50 s   p99 s  refused     late   pod-h /oracle  most"


@dataclass(frozen=True)
class Comparison:
    """The runs of one shape by policy."""

    traffic: Traffic
    runs: dict[str, Run]
    outcomes: dict[str, Outcome]


def compare(
    world: World, traffic: Traffic, settings: HpaSettings, *, tokens: float, cpu: float, oracle_steps: int
) -> Comparison:
    """Returns the runs of the chart's autoscaler and its peers within the same bounds.

    They are the same autoscaler with `tokens` a server, one that keeps CPU at `cpu` percent, and the oracle.
    """
    world = replace(world, least_replicas=settings.min_replicas, max_replicas=settings.max_replicas)
    calls = world.arrivals(traffic)
    first = world.first_replicas(traffic)
    scaled = {
        CHART: settings,
        TUNED: settings.with_target(TOKENS, tokens),
        CPU: cpu_settings(cpu, least=settings.min_replicas, most=settings.max_replicas),
    }
    runs = {
        name: simulate(world, traffic, Autoscaled(asked, start=first), calls)
        for name, asked in scaled.items()
    }
    runs[ORACLE] = cheapest(world, traffic, calls, steps=oracle_steps)
    outcomes = {name: Outcome.of(run, world.deadline_seconds) for name, run in runs.items()}
    return Comparison(traffic, runs, outcomes)


def print_comparison(comparison: Comparison) -> None:
    """Prints a table, and the ratios of all autoscalers over the oracle."""
    traffic, outcomes = comparison.traffic, comparison.outcomes
    bound = outcomes[ORACLE].pod_hours
    print(f"\n{traffic.name}: {traffic.what}; {outcomes[CHART].calls:,} calls\n{_HEAD}")
    for name, o in outcomes.items():
        print(
            f"{name:10} {o.p50:7.3f} {o.p99:7.3f} {o.refused:8.2%} {o.late:8.2%} "
            f"{o.pod_hours:7.2f} {o.pod_hours / bound:7.2f} {o.most_replicas:5d}"
        )
    prefix = f"autoscaling_{traffic.name.replace('-', '_')}"
    for name, suffix in ((CHART, ""), (TUNED, "_tuned"), (CPU, "_cpu")):
        print(f"ratio {prefix}{suffix}_pod_hours_over_oracle {outcomes[name].pod_hours / bound:.3f}")
        print(f"ratio {prefix}{suffix}_unserved {outcomes[name].unserved:.5f}", flush=True)


def write_plots(comparison: Comparison, world: World, folder: Path) -> None:
    """Writes autoscaling-<shape>.png."""
    from benchmarks.autoscaling import plot

    path = folder / f"autoscaling-{comparison.traffic.name}.png"
    plot.write(path, comparison.traffic, comparison.runs, world)
    print(f"plot {path}", flush=True)
