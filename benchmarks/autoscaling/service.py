"""How long a server computes on a batch: a measured table, linear between its points.

Knows rows, lengths and seconds; knows nothing about queues or pods.
"""

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MEASURED = Path(__file__).with_name("service_times.json")
LENGTHS = Path(__file__).with_name("lengths.json")


@dataclass(frozen=True)
class ServiceTimes:
    """Seconds by length, and in it by rows, both ascending."""

    by_length: tuple[tuple[int, tuple[tuple[int, float], ...]], ...]

    @classmethod
    def measured(cls, runtime: str, path: Path = MEASURED) -> "ServiceTimes":
        """Returns what `measure` wrote for a runtime. Raises KeyError if it did not measure it."""
        table: dict[int, list[tuple[int, float]]] = {}
        for rows, length, seconds in json.loads(path.read_text())["runtimes"][runtime]["rows_length_seconds"]:
            table.setdefault(length, []).append((rows, seconds))
        return cls(tuple((length, tuple(sorted(points))) for length, points in sorted(table.items())))

    def seconds(self, rows: int, length: int) -> float:
        """Returns how long a batch takes; beyond the table it goes on as at its edge."""
        return _seconds(self, rows, length)


@cache
def _seconds(times: ServiceTimes, rows: int, length: int) -> float:
    column = tuple((at, _between(points, rows)) for at, points in times.by_length)
    return _between(column, length)


def _between(points: tuple[tuple[int, float], ...], at: int) -> float:
    """Returns the line through the two points around `at`, or through the two nearest."""
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    upper = min(max(bisect_right(points, (at, float("inf"))), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[upper - 1], points[upper]
    # A column that was measured with few rows only must not fall below what one row costs.
    return max(y0 + (y1 - y0) * (at - x0) / (x1 - x0), min(y0, y1) / 2)


def text_lengths(path: Path = LENGTHS) -> tuple[int, ...]:
    """Returns quantiles of the token lengths of real texts; each is as likely as the other."""
    return tuple(json.loads(path.read_text())["quantiles"])


def circumstances(path: Path = MEASURED) -> str:
    """Returns one line: on what, when and how the times were measured."""
    found = json.loads(path.read_text())
    return f"{found['model']} on {found['cpu']}, {found['date']}: {found['how']}"
