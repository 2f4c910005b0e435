"""Runs the scheduler on the one replica that leads, and nothing on the others.

Knows terms; knows nothing about who gives the lead (`services.jobs.replicas`) or what a scheduler does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from services.jobs.database import Database
from services.jobs.patience import stored
from services.jobs.term import Term, TermOver

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0


class Leading:
    """This replica's part: `begin` when it leads, `end` when it does not any more."""

    def __init__(self, database: Database, kind: str, run: Callable[[Term], Awaitable[None]]) -> None:
        """`run` schedules until it is cancelled; it raises TermOver as soon as it sees that."""
        self._database = database
        self._kind = kind
        self._run = run
        self._task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        """True from `begin` to `end`."""
        return self._task is not None

    def begin(self) -> None:
        """Goes on with what runs, and starts what waits."""
        log.info("leader.began", kind=self._kind)
        self._task = asyncio.create_task(self._lead())

    async def end(self) -> None:
        """Lets go of everything at once; workers run on. Nothing happens if it did not lead."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        log.info("leader.ended", kind=self._kind)

    async def _lead(self) -> None:
        while True:
            try:
                await self._run(await stored(Term.begin, self._database, self._kind))
            except TermOver as error:
                log.warning("leader.superseded", kind=self._kind, problem=str(error))
            except Exception:
                # A bug must not leave all jobs without a scheduler: what runs is adopted by the next one.
                log.exception("scheduler.crashed", kind=self._kind)
            await asyncio.sleep(_AGAIN_SECONDS)
