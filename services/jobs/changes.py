"""Tells those who wait for a job that it changed, and the scheduler that somebody wants something.

Knows job ids; knows nothing about what changed, nor how other replicas hear of it. For the event loop's own
thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Changes:
    """One bell a watcher; `ring` rings those of a job, `wish` the scheduler's if it runs here."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._heed: Callable[[], None] | None = None
        self.closed = asyncio.Event()
        """Set once the service stops: watchers go home."""

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set at each change of the job from now on; the watcher clears it."""
        bell = asyncio.Event()
        self._bells[job_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    @contextmanager
    def heeded(self, heed: Callable[[], None]) -> Iterator[None]:
        """Calls `heed` at each wish: a job was created, or is to be cancelled."""
        self._heed = heed
        try:
            yield
        finally:
            self._heed = None

    def ring(self, job_id: str) -> None:
        """Wakes the watchers of a job."""
        for bell in self._bells.get(job_id, ()):
            bell.set()

    def wish(self) -> None:
        """Wakes the scheduler, if it is here: a job may wait, or is to be cancelled."""
        if self._heed is not None:
            self._heed()

    def ring_all(self) -> None:
        """Wakes everyone: nobody knows what changed."""
        for bells in self._bells.values():
            for bell in bells:
                bell.set()
        self.wish()

    def close(self) -> None:
        """Wakes everyone for good."""
        self.closed.set()
        self.ring_all()
