"""Continuous batching: rows join and leave between two steps, and share blocks of one KV cache.

Each step runs one token of every row that generates and as much of the prompts as `max_step_tokens` leaves.
Rows are served in the order of their arrival: the latest one gives its blocks back when the cache is
full, and is computed again later. Runs inside Triton's python stubs and cannot import Conch. Knows rows,
blocks and steps; knows nothing about requests, text or Triton.
"""

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from paged import Slice


class Model(Protocol):
    """What computes logits; see paged.PagedModel."""

    block_size: int
    num_blocks: int

    def forward(self, slices: Sequence[Slice]) -> npt.NDArray[np.float32]:
        """Returns the logits behind each slice's last token."""


class Writer(Protocol):
    """What becomes of a row's logits; see writing.Writer."""

    def write(self, logits: npt.NDArray[np.float32]) -> int | None:
        """Returns the next token, None if the text ended with the one that was chosen now."""

    def fail(self, error: Exception) -> None:
        """The row cannot go on."""


@dataclass(eq=False)
class Row:
    """A text under way: the prompt's tokens and behind them what was generated."""

    tokens: list[int]
    writer: Writer
    cancelled: bool = False
    """Set by anybody; the row leaves before the next step."""
    order: int = -1
    past: int = 0
    """How many tokens' keys and values lie in the cache."""
    blocks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """How busy an engine is."""

    running: int
    waiting: int
    used_blocks: int
    num_blocks: int


class Engine:
    """`submit` and `load` may be called by any thread, `step` by one."""

    def __init__(self, model: Model, *, max_num_seqs: int, max_step_tokens: int = 256) -> None:
        self._model = model
        self._max_rows = max_num_seqs
        # Every row that generates must have its token.
        self._max_tokens = max(max_step_tokens, 2 * max_num_seqs)
        self._free = list(range(model.num_blocks - 1, -1, -1))
        self._order = itertools.count()
        self._arrivals: deque[Row] = deque()
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._work = threading.Condition()

    def submit(self, row: Row) -> None:
        """Lets a row wait for its turn; it must fit into the cache as it is and as it may become."""
        with self._work:
            row.order = next(self._order)
            self._arrivals.append(row)
            self._work.notify()

    def wait(self, timeout_seconds: float) -> bool:
        """Returns whether there is something to do, after `timeout_seconds` at the latest."""
        with self._work:
            return self._work.wait_for(self._has_rows, timeout_seconds)

    def step(self) -> None:
        """Runs the model once and hands every row that came so far its next token.

        If the model fails, so do the rows under way; those that wait have their turn next.
        """
        self._leave_cancelled()
        self._admit()
        scheduled = self._schedule()
        if not scheduled:
            return
        slices = [Slice(row.tokens[row.past : row.past + n], row.past, row.blocks) for row, n in scheduled]
        try:
            logits = self._model.forward(slices)
        except Exception as error:
            self.fail(error)
            return
        for (row, n), row_logits in zip(scheduled, logits, strict=True):
            self._advance(row, n, row_logits)

    def fail(self, error: Exception) -> None:
        """Lets the rows under way fail."""
        for row in list(self._running):
            self._leave(row)
            row.writer.fail(error)

    def stop(self, error: Exception) -> None:
        """Lets all rows fail, those that wait too."""
        self._collect()
        self.fail(error)
        while self._waiting:
            self._waiting.popleft().writer.fail(error)

    def load(self) -> Load:
        """Returns how busy the engine is."""
        waiting = len(self._waiting) + len(self._arrivals)
        blocks = self._model.num_blocks
        return Load(len(self._running), waiting, blocks - len(self._free), blocks)

    def _has_rows(self) -> bool:
        return bool(self._arrivals or self._waiting or self._running)

    def _collect(self) -> None:
        with self._work:
            self._waiting.extend(self._arrivals)
            self._arrivals.clear()

    def _leave_cancelled(self) -> None:
        self._collect()
        for row in [row for row in self._running if row.cancelled]:
            self._leave(row)
        self._waiting = deque(row for row in self._waiting if not row.cancelled)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_rows:
            # One more than the prompt takes, so that it need not leave again at its first token.
            needed = self._num_blocks(len(self._waiting[0].tokens)) + 1
            if self._running and needed > len(self._free):
                return
            self._running.append(self._waiting.popleft())

    def _schedule(self) -> list[tuple[Row, int]]:
        """Returns which rows run next and with how many tokens; their blocks are theirs already."""
        scheduled: list[tuple[Row, int]] = []
        # Each row's one token is kept for it; what is left over shortens prompts, oldest first.
        spare = self._max_tokens - len(self._running)
        for row in sorted(self._running, key=lambda row: row.order):
            if row not in self._running:  # gave its blocks to an older one
                continue
            wanted = min(len(row.tokens) - row.past, 1 + spare)
            if self._reserve(row, row.past + wanted):
                spare -= wanted - 1
                scheduled.append((row, wanted))
        return scheduled

    def _reserve(self, row: Row, num_tokens: int) -> bool:
        """Gives `row` blocks for so many tokens, those of later rows if need be; returns whether it could."""
        needed = self._num_blocks(num_tokens) - len(row.blocks)
        while needed > len(self._free):
            latest = max(self._running, key=lambda row: row.order)
            self._leave(latest)
            latest.past = 0
            self._waiting.appendleft(latest)
            if latest is row:
                return False
        row.blocks += [self._free.pop() for _ in range(needed)]
        return True

    def _advance(self, row: Row, num_tokens: int, logits: npt.NDArray[np.float32]) -> None:
        row.past += num_tokens
        if row.past < len(row.tokens):
            return
        try:
            token = row.writer.write(logits)
        except Exception as error:
            self._leave(row)
            row.writer.fail(error)
            return
        if token is None:
            self._leave(row)
        else:
            row.tokens.append(token)

    def _leave(self, row: Row) -> None:
        self._running.remove(row)
        self._free += row.blocks
        row.blocks = []

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._model.block_size)
