"""The bound: the cheapest timetable of pods that knows the traffic before it comes.

Knows the rate at every second and how long pods take to start; an autoscaler knows neither.
"""

import math

import numpy as np

from benchmarks.autoscaling.outcome import Outcome
from benchmarks.autoscaling.policies import Planned
from benchmarks.autoscaling.simulation import Run, World, simulate
from benchmarks.autoscaling.traffic import Arrivals, Traffic

GRID_SECONDS = 5.0
UNSERVED = 0.01
_HEADROOMS = (-0.5, 2.0)


def cheapest(world: World, traffic: Traffic, calls: Arrivals, *, steps: int = 5) -> Run:
    """Returns the run of the timetable with the least headroom of which at most 1 % of calls are unserved.

    Headroom is in square roots of the load (Halfin and Whitt, 1981): `load + headroom * sqrt(load)` pods.
    The true optimum may be a little cheaper, as a timetable need not have the same headroom all the time.
    """
    low, high = _HEADROOMS
    best: Run | None = None
    tried: dict[tuple[int, ...], bool] = {}
    for _ in range(steps):
        middle = (low + high) / 2
        plan = timetable(world, traffic, middle)
        key = tuple(plan.counts)
        if key not in tried:
            run = simulate(world, traffic, plan, calls)
            tried[key] = Outcome.of(run, world.deadline_seconds).unserved <= UNSERVED
            best = run if tried[key] else best
        low, high = (low, middle) if tried[key] else (middle, high)
    return best or simulate(world, traffic, timetable(world, traffic, high), calls)


def timetable(world: World, traffic: Traffic, headroom: float) -> Planned:
    """Returns when to have how many pods ordered, so that enough serve at any time and none for nothing."""
    times = np.arange(0.0, traffic.seconds, GRID_SECONDS)
    load = traffic.rate(times) / world.calls_of_a_pod()
    need = [max(world.least_replicas, math.ceil(a + headroom * math.sqrt(a))) for a in load]
    # A pod must be ordered before it is needed, and is not worth sending away for less than its start.
    ahead = math.ceil(world.pod_delays().serving / GRID_SECONDS) + 1
    counts = [min(max(need[i : i + ahead + 1]), world.max_replicas) for i in range(len(need))]
    return Planned(times.tolist(), counts)
