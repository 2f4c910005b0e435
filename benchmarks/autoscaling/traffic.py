"""What callers send: four shapes of traffic, arrivals drawn by thinning, texts as long as real ones.

Knows rates over time; knows nothing about gateways or pods.

Thinning: Lewis and Shedler, Simulation of nonhomogeneous Poisson processes by thinning (1979).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rate = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Traffic:
    """Calls a second over time: `rate` takes an array of seconds since the start."""

    name: str
    what: str
    seconds: float
    rate: Rate

    @property
    def most(self) -> float:
        """The highest rate, looked for every second."""
        return float(self.rate(np.arange(0.0, self.seconds + 1)).max())


@dataclass(frozen=True)
class Arrivals:
    """One entry a call, ascending in time: when, how many tokens, at which gateway."""

    times: list[float]
    tokens: list[int]
    gateways: list[int]


def shapes(calls: float, *, scale: float = 1.0) -> dict[str, Traffic]:
    """Returns the four shapes; `calls` is what one busy pod answers a second, `scale` shortens them.

    Rates are multiples of a pod's so that the picture holds for faster and slower models.
    """
    steady, wave, flash, leak = (seconds * scale for seconds in (1800.0, 7200.0, 1800.0, 5400.0))
    rush = min(900.0, flash / 3)
    return {
        traffic.name: traffic
        for traffic in (
            Traffic("steady", "3 pods' worth, even", steady, lambda at: np.full_like(at, 3 * calls)),
            Traffic(
                "daily-wave",
                f"1 to 6 pods' worth and back, a day in {wave / 3600:.1f} h",
                wave,
                lambda at: calls * (3.5 - 2.5 * np.cos(2 * math.pi * at / wave)),
            ),
            Traffic(
                "flash-crowd",
                f"1 pod's worth, x8 within 10 s for {rush / 60:.0f} min, gone within 60 s",
                flash,
                lambda at: calls * (1 + 7 * _trapezium(at, start=rush, up=10.0, stay=rush, down=60.0)),
            ),
            Traffic(
                "slow-leak",
                f"1 pod's worth, rising evenly to 8 in {leak / 3600:.1f} h",
                leak,
                lambda at: calls * (1 + 7 * at / leak),
            ),
        )
    }


def arrivals(traffic: Traffic, lengths: Sequence[int], *, num_gateways: int, seed: int) -> Arrivals:
    """Returns the calls of one run; the same seed gives the same calls to every policy."""
    random = np.random.default_rng(seed)
    most = traffic.most
    candidates = random.uniform(0, traffic.seconds, random.poisson(most * traffic.seconds))
    kept = np.sort(candidates[random.uniform(0, most, len(candidates)) < traffic.rate(candidates)])
    return Arrivals(
        kept.tolist(),
        random.choice(np.asarray(lengths), len(kept)).tolist(),
        random.integers(0, num_gateways, len(kept)).tolist(),
    )


def _trapezium(
    at: npt.NDArray[np.float64], *, start: float, up: float, stay: float, down: float
) -> npt.NDArray[np.float64]:
    """Returns 0, then a straight way up to 1, a stay, and a straight way down."""
    xs = (start, start + up, start + up + stay, start + up + stay + down)
    return np.interp(at, xs, (0.0, 1.0, 1.0, 0.0))
