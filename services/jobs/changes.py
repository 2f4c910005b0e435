"""Tells those who watch a job, in this process, that it changed: no one polls the database.

Knows job ids; knows nothing about what changed. For the event loop's own thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """One bell a watcher; `ring` rings those of a job."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
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

    def ring(self, job_id: str) -> None:
        """Wakes the watchers of a job."""
        for bell in self._bells.get(job_id, ()):
            bell.set()

    def close(self) -> None:
        """Wakes everyone for good."""
        self.closed.set()
        for bells in self._bells.values():
            for bell in bells:
                bell.set()
