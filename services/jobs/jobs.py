"""What a job service does for its callers, whatever the kind of job and the transport.

Knows the store, the executor and who watches; knows nothing about gRPC or what a spec means.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection

from conch.v1 import job_pb2, worker_pb2
from services.errors import BackendUnavailable, InvalidRequest, NotFound
from services.jobs import paging
from services.jobs.changes import Changes
from services.jobs.credentials import Caller
from services.jobs.executor import Executor
from services.jobs.outcomes import FINAL_STATES
from services.jobs.store import NewJob, Store, require_final, same_or_taken
from services.jobs.tables import Job

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_EVENTS_AT_ONCE = 500


class Jobs:
    """The jobs of one kind."""

    def __init__(self, kind: str, store: Store, executor: Executor, changes: Changes) -> None:
        self._kind = kind
        self._store = store
        self._executor = executor
        self._changes = changes

    def choose_id(self, asked: str) -> str:
        """Returns the id that a caller asked for, or a new one. Raises InvalidRequest."""
        if not asked:
            return f"{self._kind}-{secrets.token_hex(6)}"
        if not _ID.fullmatch(asked):
            raise InvalidRequest.field("id", "must be 1 to 63 of [a-z0-9-], starting with a letter or digit")
        return asked

    async def create(self, job_id: str, spec: bytes, prepare: Callable[[], NewJob]) -> Job:
        """Creates the job that `prepare` returns, or returns the one of this id and spec.

        `prepare` runs in a thread, and only for a new id: a retry is answered even if, say, the data
        has moved since. Raises AlreadyExists if the id belongs to another spec, and what `prepare` raises.
        """
        existing = await asyncio.to_thread(self._store.find, job_id)
        if existing is not None:
            return same_or_taken(existing, kind=self._kind, spec=spec)
        job = await asyncio.to_thread(lambda: self._store.create(prepare()))
        self._changes.wish()
        return job

    async def get(self, job_id: str) -> Job:
        """Returns the job. Raises NotFound."""
        return await asyncio.to_thread(self._store.get, self._kind, job_id)

    async def page(self, *, size: int, token: str, states: Collection[int]) -> tuple[list[Job], str]:
        """Returns one page of jobs, newest first, and the token of the next. Raises InvalidRequest."""
        size, states = paging.page_size(size), paging.state_filter(states)
        before = paging.decode(token, self._kind, states)
        found = await asyncio.to_thread(
            self._store.page, self._kind, states=states, before=before, limit=size + 1
        )
        page = found[:size]
        more = len(found) > size
        return page, paging.encode(self._kind, states, page[-1].number) if more else ""

    async def cancel(self, job_id: str) -> Job:
        """Asks the job to stop. Raises NotFound."""
        job = await asyncio.to_thread(self._store.request_cancel, self._kind, job_id)
        self._changes.ring(job_id)
        self._changes.wish()
        return job

    async def delete(self, job_id: str) -> None:
        """Deletes a job in a final state with its events and all that it left. Raises NotFound, NotReady."""
        job = await self.get(job_id)
        require_final(job)
        # Before the row: what is left behind would be taken for that of a later job of this id.
        await self._executor.forget(job)
        await asyncio.to_thread(self._store.delete, self._kind, job_id)
        self._changes.ring(job_id)

    async def watch(self, job_id: str, from_sequence: int) -> AsyncIterator[job_pb2.JobEvent]:
        """Gives the job's events from a sequence number on, those to come included; ends with the job.

        Raises NotFound, also if the job is deleted meanwhile, and BackendUnavailable when the service stops.
        """
        sequence = max(1, from_sequence)
        with self._changes.listen(job_id) as bell:
            while True:
                bell.clear()
                job = await self.get(job_id)
                async for event in self._existing(job, sequence):
                    yield event
                sequence = max(sequence, job.last_sequence + 1)
                if job.state in FINAL_STATES:
                    return
                self._refuse_when_closed()
                await bell.wait()

    async def _existing(self, job: Job, sequence: int) -> AsyncIterator[job_pb2.JobEvent]:
        while sequence <= job.last_sequence:
            limit = min(_EVENTS_AT_ONCE, job.last_sequence + 1 - sequence)
            events = await asyncio.to_thread(self._store.events, job.id, from_sequence=sequence, limit=limit)
            if not events:
                raise NotFound(f"job {job.id} was deleted", reason="JOB_NOT_FOUND")
            for event in events:
                yield event
            sequence = events[-1].sequence + 1

    def _refuse_when_closed(self) -> None:
        if self._changes.closed.is_set():
            raise BackendUnavailable("the service stops; ask again", reason="SERVICE_STOPPING")

    async def begin_attempt(self, job_id: str, caller: Caller) -> int:
        """Notes who runs the attempt; returns the newest worker sequence on disk. See Store."""
        return await asyncio.to_thread(self._store.begin_attempt, job_id, caller)

    async def take_report(self, job_id: str, caller: Caller, report: worker_pb2.WorkerReport) -> int:
        """Puts a worker's report on disk; returns the newest worker sequence there. See Store."""
        sequence = await asyncio.to_thread(self._store.take_report, job_id, caller, report)
        self._changes.ring(job_id)
        return sequence
