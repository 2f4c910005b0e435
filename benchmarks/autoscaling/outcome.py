"""What a run was worth: latencies, refusals and pod-hours.

Knows arithmetic over answers; knows nothing about how they came about.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from benchmarks.autoscaling.simulation import Run

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Latencies are of answered calls, in seconds; the shares are of all calls."""

    calls: int
    p50: float
    p99: float
    refused: float
    late: float
    pod_hours: float
    most_replicas: int
    rescales: int

    @property
    def unserved(self) -> float:
        """Share of calls that got no answer in time: p99 is within the deadline if this is at most 1 %."""
        return self.refused + self.late

    @classmethod
    def of(cls, run: Run, deadline: float) -> "Outcome":
        """Returns the figures of a run; calls still under way at its end count for nothing."""
        seconds, refused = latencies(run), _refused(run)
        answered = seconds[~np.isnan(seconds)]
        calls = len(answered) + int(refused.sum())
        replicas = [moment.replicas for moment in run.moments]
        return cls(
            calls=calls,
            p50=float(np.quantile(answered, 0.5)),
            p99=float(np.quantile(answered, 0.99)),
            refused=float(refused.sum()) / calls,
            late=float((answered > deadline).sum()) / calls,
            pod_hours=run.pod_seconds / 3600,
            most_replicas=max(replicas),
            rescales=sum(a != b for a, b in pairwise(replicas)),
        )


def latencies(run: Run) -> Floats:
    """Returns seconds until the answer by call; NaN where there was none."""
    return np.asarray(run.answers.seconds)


@dataclass(frozen=True)
class Series:
    """A run in bins of equal length: calls a second, p99 of those answered, share unserved."""

    at: Floats
    rate: Floats
    p99: Floats
    unserved: Floats

    @classmethod
    def of(cls, run: Run, deadline: float, bin_seconds: float) -> "Series":
        """Returns the series of a run."""
        bins = (np.asarray(run.arrivals.times) // bin_seconds).astype(int)
        seconds = latencies(run)
        unserved = _refused(run) | (seconds > deadline)
        edges = np.searchsorted(bins, np.arange(bins[-1] + 2))
        parts = [slice(a, b) for a, b in pairwise(edges)]
        return cls(
            np.arange(len(parts), dtype=np.float64) * bin_seconds,
            np.array([part.stop - part.start for part in parts]) / bin_seconds,
            np.array([_p99(seconds[part]) for part in parts]),
            np.array([unserved[part].mean() if part.stop > part.start else 0.0 for part in parts]),
        )


def _refused(run: Run) -> npt.NDArray[np.bool_]:
    refused = np.zeros(len(run.answers.seconds), bool)
    refused[list(run.answers.refused)] = True
    return refused


def _p99(seconds: Floats) -> float:
    answered = seconds[~np.isnan(seconds)]
    return float(np.quantile(answered, 0.99)) if len(answered) else float("nan")
