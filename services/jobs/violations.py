"""Gathers what is wrong with a request, so that a caller hears of everything at once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import InvalidRequest, Violation

_MANY = "INVALID_FIELD"


class Violations:
    """What was found so far; `raise_any` at the end."""

    def __init__(self) -> None:
        self._found: list[Violation] = []
        self._reasons: set[str] = set()

    def add(self, field: str, description: str, *, reason: str = _MANY) -> None:
        """Notes one bad field."""
        self._found.append(Violation(field, description))
        self._reasons.add(reason)

    def require(self, field: str, value: object) -> bool:
        """Notes a field that must be there and is not; returns whether it is."""
        if not value:
            self.add(field, "is required")
        return bool(value)

    def within(self, field: str, value: float, low: float, high: float, *, bounds: str = "[]") -> None:
        """Notes a value outside low..high, as NaN is; `bounds` as in mathematics: "(]" leaves `low` out."""
        above = value >= low if bounds[0] == "[" else value > low
        below = value <= high if bounds[1] == "]" else value < high
        if not (above and below):
            self.add(field, f"must be in {bounds[0]}{low:g}, {high:g}{bounds[1]}, is {value:g}")

    def finite(self, field: str, value: float) -> None:
        """Notes a value that is negative, infinite or no number."""
        if not (math.isfinite(value) and value >= 0):
            self.add(field, f"must be a number of at least 0, is {value:g}")

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Notes the InvalidRequest that its body raises, and goes on after it."""
        try:
            yield
        except InvalidRequest as error:
            for violation in error.violations:
                self.add(violation.field, violation.description, reason=error.reason)

    def raise_any(self) -> None:
        """Raises InvalidRequest with all that was noted; its reason is theirs if they agree."""
        if self._found:
            reason = self._reasons.pop() if len(self._reasons) == 1 else _MANY
            raise InvalidRequest(*self._found, reason=reason)
