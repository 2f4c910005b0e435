"""What the batcher keeps of a request that waits and of a call that is under way, and its limits.

Knows their facts only; who moves them is `services.gateway.batching`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from conch.v1 import inference_pb2
from services.gateway.queue import Waiting
from services.gateway.settings import GatewaySettings
from services.tasks.encoding import Tokens
from services.tasks.tensors import Array

Row = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Inferred:
    """The outputs of one call to Triton, `(batch, ...)` each, and who worked on it."""

    outputs: Mapping[str, Array]
    served_by: inference_pb2.ServedBy | None = None


@dataclass(frozen=True, slots=True)
class Batched:
    """The outputs of a request: by tensor name for each text, without the batch axis.

    Of several batches the longest wait and the longest call count, and who worked on the last.
    """

    rows: list[Row]
    queue_seconds: float
    infer_seconds: float
    served_by: inference_pb2.ServedBy | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One submitted request; times are the event loop's."""

    tokens: Sequence[Tokens]
    deadline: float | None
    arrived: float
    future: asyncio.Future[Batched]
    rows: list[Row]
    num_missing: int
    waiting: list[Waiting["Request"]] = field(default_factory=list)
    calls: list["Call"] = field(default_factory=list)
    queue_seconds: float = 0.0
    infer_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Call:
    """One call of `infer`: texts of one request or of many."""

    items: list[Waiting[Request]]
    num_rows: int
    length: int
    task: asyncio.Task[None] | None = None

    @property
    def rows(self) -> list[Tokens]:
        """The tokens of each text."""
        return [item.owner.tokens[item.index] for item in self.items]

    @property
    def num_padded_tokens(self) -> int:
        """What the call costs, in tokens."""
        return self.num_rows * self.length

    def timeout_seconds(self, now: float) -> float | None:
        """Until the latest deadline of the members: an earlier one must not take the others' answer away."""
        deadlines = [item.owner.deadline for item in self.items]
        if any(deadline is None for deadline in deadlines):
            return None
        return max(deadline for deadline in deadlines if deadline is not None) - now


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Calls under way at once at each server, and padded tokens that may wait."""

    max_inflight: int = 1
    queue_tokens: int = 65536

    @classmethod
    def of(cls, settings: GatewaySettings) -> "BatchLimits":
        """Returns the limits that the settings ask for."""
        return cls(settings.max_inflight, settings.queue_tokens)


class BatchObserver(Protocol):
    """Who is told of every batch that leaves, and where the queue's length can be read."""

    def batch_sent(self, *, num_texts: int, num_tokens: int, num_padded_tokens: int) -> None:
        """`num_tokens` of `num_texts` leave in a call of `num_padded_tokens`."""

    def watch_queue(self, waiting_tokens: Callable[[], int]) -> None:
        """`waiting_tokens()` returns the padded tokens that wait now."""
