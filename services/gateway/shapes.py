"""The shapes that batches may have: padded lengths, numbers of rows, and what fits into one call.

Knows arithmetic only; knows nothing about queues, tensors or Triton.
"""

from bisect import bisect_left
from dataclasses import dataclass

from services.gateway.settings import GatewaySettings

_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class Shapes:
    """Lengths and row counts, ascending; empty `rows` = any number of rows costs the same a row.

    `token_budget` bounds rows x length of a batch of two rows or more, `max_rows` its rows, and
    `call_tokens` is what a call costs beside its tokens, in tokens.
    """

    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    token_budget: int
    max_rows: int
    call_tokens: int

    @classmethod
    def of(cls, settings: GatewaySettings, runtime: str, max_length: int) -> "Shapes":
        """Returns the shapes for a model of `max_length` tokens.

        OpenVINO takes up to twice the time for a shape that it meets first, so its rows come in steps.
        """
        lengths = (*(length for length in _LENGTHS if length < max_length), max_length)
        rows = tuple(r for r in _ROWS if r <= settings.max_rows) if runtime == "openvino" else ()
        return cls(lengths, rows, settings.token_budget, settings.max_rows, settings.call_tokens)

    def length_of(self, num_tokens: int) -> int:
        """Returns the padded length of a text; the longest one if the text is longer than that."""
        return self.lengths[min(bisect_left(self.lengths, num_tokens), len(self.lengths) - 1)]

    def capacity(self, length: int) -> int:
        """Returns how many rows of `length` go into one call, at least 1."""
        fit = max(1, min(self.max_rows, self.token_budget // length))
        return max((r for r in self.rows if r <= fit), default=fit)

    def fit_rows(self, rows: int, length: int) -> tuple[int, int]:
        """Returns (rows to send, rows after padding): pads up where that is cheaper than another call."""
        if not self.rows or rows in self.rows:
            return rows, rows
        i = bisect_left(self.rows, rows)
        if i == len(self.rows):
            return self.rows[-1], self.rows[-1]
        above, below = self.rows[i], self.rows[i - 1] if i else 0
        pad_up = not below or ((above - rows) * length <= self.call_tokens and above <= self.capacity(length))
        return (rows, above) if pad_up else (below, below)

    def all(self) -> list[tuple[int, int]]:
        """Returns every (rows, length) worth warming; where any row count is as good, the extremes."""
        return [
            (rows, length)
            for length in self.lengths
            for rows in (self.rows or sorted({1, self.capacity(length)}))
            if rows <= self.capacity(length)
        ]
