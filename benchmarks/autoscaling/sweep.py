"""Tries settings of the autoscaler, one after the other, from a starting point: how the defaults were chosen.

Knows which settings there are to turn and prints a table; knows nothing about Helm. A setting is worth its
pod-hours and its unserved calls over all four shapes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.autoscaling.hpa_settings import HpaSettings, Metric, Policy, Rules
from benchmarks.autoscaling.outcome import Outcome
from benchmarks.autoscaling.policies import QUEUE_SHARE, TOKENS, Autoscaled
from benchmarks.autoscaling.simulation import World, simulate
from benchmarks.autoscaling.traffic import Arrivals, Traffic

DEFAULT_UP = (Policy("Percent", 100, 15), Policy("Pods", 4, 15))


@dataclass(frozen=True)
class Knobs:
    """One point of the sweep; a target of 0 leaves the signal out."""

    share: float = 0.2
    tokens: float = 150.0
    up: tuple[Policy, ...] = (Policy("Percent", 300, 60), Policy("Pods", 4, 60))
    up_window: float = 0.0
    down: tuple[Policy, ...] = (Policy("Percent", 25, 60),)
    down_window: float = 300.0

    def settings(self, world: World) -> HpaSettings:
        """Returns the manifest that these knobs would render to."""
        metrics = (Metric(QUEUE_SHARE, "value", self.share), Metric(TOKENS, "average", self.tokens))
        return HpaSettings(
            world.least_replicas,
            world.max_replicas,
            tuple(metric for metric in metrics if metric.target),
            Rules(self.up_window, self.up),
            Rules(self.down_window, self.down),
        )

    def __str__(self) -> str:
        return (
            f"share {self.share or '-':>4} tokens {self.tokens or '-':>5} "
            f"up {_text(self.up)} after {self.up_window:.0f} s, "
            f"down {_text(self.down)} after {self.down_window:.0f} s"
        )


def around(start: Knobs) -> Iterator[Knobs]:
    """Yields the start, then each knob turned alone."""
    yield start
    for tokens in (0.0, 100.0, 200.0, 250.0, 300.0, 400.0, 1000.0, 4096.0):
        yield replace(start, tokens=tokens)
    for share in (0.0, 0.1, 0.5):
        yield replace(start, share=share)
    for up in (
        DEFAULT_UP,
        (Policy("Percent", 100, 60), Policy("Pods", 2, 60)),
        (Policy("Percent", 100, 30), Policy("Pods", 2, 30)),
        (Policy("Percent", 50, 60), Policy("Pods", 2, 60)),
    ):
        yield replace(start, up=up)
    for window in (15.0, 30.0):
        yield replace(start, up_window=window)
    for down in (
        (Policy("Percent", 100, 15),),
        (Policy("Percent", 10, 60), Policy("Pods", 1, 60)),
        (Policy("Percent", 10, 60),),
    ):
        yield replace(start, down=down)
    for window in (60.0, 120.0, 600.0):
        yield replace(start, down_window=window)


def sweep(world: World, traffic: dict[str, Traffic], start: Knobs) -> None:
    """Prints one line a setting: pod-hours, unserved calls in percent and rescales, by shape."""
    calls = {name: world.arrivals(shape) for name, shape in traffic.items()}
    print(f"{'pod-hours / unserved % / rescales':34}" + "".join(f"{name:>21}" for name in traffic) + "   sum")
    for knobs in around(start):
        print(f"{knobs}\n{'':34}" + _line(world, traffic, calls, knobs), flush=True)


def _line(world: World, traffic: dict[str, Traffic], calls: dict[str, Arrivals], knobs: Knobs) -> str:
    cells, hours, unserved = [], 0.0, 0.0
    for name, shape in traffic.items():
        policy = Autoscaled(knobs.settings(world), start=world.first_replicas(shape))
        outcome = Outcome.of(simulate(world, shape, policy, calls[name]), world.deadline_seconds)
        cells.append(f"{outcome.pod_hours:7.2f} {outcome.unserved:8.2%} {outcome.rescales:4d}")
        hours, unserved = hours + outcome.pod_hours, unserved + outcome.unserved
    return "".join(cells) + f"  {hours:7.2f} {unserved:7.2%}"


def _text(policies: tuple[Policy, ...]) -> str:
    return "|".join(
        f"{p.value}{'%' if p.type == 'Percent' else ' pods'}/{p.period_seconds:.0f}s" for p in policies
    )
