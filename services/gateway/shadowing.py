"""Copies of calls for versions whose answers nobody sees: after the answer, a few at a time, dropped first.

Knows when a copy may be sent; how a call is answered is `answering`'s.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter as CounterSeries

from services.gateway.served import ServedVersion

log = structlog.get_logger(__name__)

_MAX_COPIES = 4


class Shadowing:
    """Sends copies in the background, at most a few at a time for each version."""

    def __init__(self, outcomes: CounterSeries) -> None:
        """`outcomes` counts by model, version and outcome."""
        self._outcomes = outcomes
        self._num_inflight: Counter[tuple[str, int]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(
        self, shadow: ServedVersion, answered: ServedVersion, answer: Callable[[], Awaitable[object]]
    ) -> None:
        """Has `shadow` answer a call that `answered` answered just now, unless there is better to do."""
        key = shadow.version.model, shadow.version.version
        if self._num_inflight[key] >= _MAX_COPIES or _is_busy(shadow) or _is_busy(answered):
            self._count(key, "dropped")
            return
        self._num_inflight[key] += 1
        task = asyncio.get_running_loop().create_task(self._run(key, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: tuple[str, int], answer: Callable[[], Awaitable[object]]) -> None:
        # The answer that this is a copy of goes out first.
        await asyncio.sleep(0)
        try:
            await answer()
        except Exception as error:
            log.debug("shadow.failed", model=key[0], version=key[1], error=str(error))
            self._count(key, "failed")
        else:
            self._count(key, "answered")
        finally:
            self._num_inflight[key] -= 1

    def _count(self, key: tuple[str, int], outcome: str) -> None:
        self._outcomes.labels(key[0], str(key[1]), outcome).inc()


def _is_busy(served: ServedVersion) -> bool:
    return served.batcher is not None and served.batcher.is_busy
