"""Natural batching: while a call to Triton is under way, what arrives is gathered and leaves together.

Knows tokens, deadlines and cancellations; knows nothing about gRPC, routes or tasks: a batch leaves
through the coroutine `infer`. There is no timer: at one caller nothing ever waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from services.errors import BackendUnavailable, DeadlineExceeded, ServiceError
from services.gateway.admission import Admission, too_late
from services.gateway.calls import Batched, BatchLimits, BatchObserver, Call, Inferred, Request, Row
from services.gateway.queue import Queue, Waiting
from services.gateway.shapes import Shapes
from services.tasks.encoding import Tokens, pad
from services.tasks.tensors import Array

__all__ = ["BatchLimits", "BatchObserver", "Batched", "Batcher", "Infer", "Inferred", "Row"]

log = structlog.get_logger(__name__)

Infer = Callable[[Mapping[str, Array], float | None], Awaitable[Inferred]]


class Batcher:
    """Gathers the requests of one model version into calls of `infer`; belongs to one event loop."""

    def __init__(
        self,
        infer: Infer,
        *,
        shapes: Shapes,
        limits: BatchLimits,
        pad_id: int,
        subject: str,
        observe: BatchObserver | None = None,
    ) -> None:
        self._infer = infer
        self._shapes = shapes
        self._max_inflight = self._each_inflight = limits.max_inflight
        self._pad_id = pad_id
        self._subject = subject
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._queue: Queue[Request] = Queue(shapes)
        self._calls: set[Call] = set()
        self._sending_soon = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._admission = Admission(
            subject=subject, queue_tokens=limits.queue_tokens, max_inflight=limits.max_inflight
        )
        if observe:
            observe.watch_queue(lambda: self._admission.waiting_tokens)

    async def submit(self, tokens: Sequence[Tokens], *, deadline: float | None = None) -> Batched:
        """Returns the outputs of each text; `deadline` is in the event loop's time.

        Raises DeadlineExceeded if it passed or will pass in the queue, Overloaded if the queue is full,
        BackendUnavailable if Triton does not answer or the version is being unloaded.
        """
        if self._closing:
            raise BackendUnavailable(f"{self._subject} is being unloaded", reason="VERSION_UNLOADING")
        now = self._loop.time()
        lengths = [self._shapes.length_of(len(t)) for t in tokens]
        self._admit(sum(lengths), now, deadline)
        request = Request(tokens, deadline, now, self._loop.create_future(), [{}] * len(tokens), len(tokens))
        request.waiting = [self._queue.push(request, i, length) for i, length in enumerate(lengths)]
        self._send_soon()
        try:
            return await request.future
        except asyncio.CancelledError:
            self._leave(request)
            raise

    async def warm(
        self, limit_seconds: float | None = None, *, parameters: Mapping[str, float] | None = None
    ) -> None:
        """Sends every shape once, past the queue: what a runtime prepares for a shape, it prepares now.

        `parameters` are those of its rows. Stops early after `limit_seconds`. Raises what `infer` raises.
        """
        row = Tokens([self._pad_id], [0], parameters=parameters or {})
        started = self._loop.time()
        for num_rows, length in self._shapes.all():
            if limit_seconds is not None and self._loop.time() - started >= limit_seconds:
                return
            await self._infer(pad([row] * num_rows, length, self._pad_id), None)

    def spread(self, num_servers: int) -> None:
        """Has as many calls under way from now on as `num_servers` may take."""
        self._max_inflight = self._admission.max_inflight = num_servers * self._each_inflight
        self._send_soon()

    @property
    def num_tokens(self) -> int:
        """Padded tokens that wait and that are on their way."""
        return self._admission.waiting_tokens + self._admission.inflight_tokens

    @property
    def is_busy(self) -> bool:
        """Whether anything waits for its turn."""
        return self._admission.waiting_tokens > 0

    async def close(self) -> None:
        """Takes nothing more and returns once all that was taken is answered."""
        self._closing = True
        await self._idle.wait()

    def _admit(self, num_tokens: int, now: float, deadline: float | None) -> None:
        left = None if deadline is None else deadline - now
        if left is not None and left <= 0:
            raise too_late(-left, "it passed before the request could queue")
        self._admission.check(num_tokens, seconds_left=left)
        self._admission.waiting_tokens += num_tokens
        self._idle.clear()

    def _send_soon(self) -> None:
        # Not at once: what arrives in the same turn of the event loop leaves in the same call.
        if not self._sending_soon:
            self._sending_soon = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending_soon = False
        while self._queue and len(self._calls) < self._max_inflight:
            call = Call(*self._queue.pop_batch())
            if self._expire(call.items):
                self._queue.put_back([item for item in call.items if not item.owner.future.done()])
                continue
            self._admission.waiting_tokens -= sum(item.length for item in call.items)
            self._start(call)
        if not self._queue and not self._calls:
            self._idle.set()

    def _expire(self, items: list[Waiting[Request]]) -> bool:
        """Answers those whose deadline passed while they waited; returns whether there were any."""
        now, found = self._loop.time(), False
        for item in items:
            request = item.owner
            if request.deadline is not None and request.deadline <= now:
                self._admission.waiting_tokens -= item.length
                waited = now - request.arrived
                self._fail(request, too_late(now - request.deadline, f"the request waited {waited:.3f} s"))
                found = True
        return found

    def _start(self, call: Call) -> None:
        self._calls.add(call)
        self._admission.inflight_tokens += call.num_padded_tokens
        for item in call.items:
            item.owner.calls.append(call)
        if self._observe:
            self._observe.batch_sent(
                num_texts=len(call.items),
                num_tokens=sum(len(row) for row in call.rows),
                num_padded_tokens=call.num_padded_tokens,
            )
        call.task = self._loop.create_task(self._run(call))

    async def _run(self, call: Call) -> None:
        started = self._loop.time()
        failure: Exception | None = None
        inferred = Inferred({})
        try:
            inputs = pad(call.rows, call.length, self._pad_id, batch=call.num_rows)
            inferred = await self._infer(inputs, call.timeout_seconds(started))
        except Exception as error:
            failure = error
        finally:
            self._end(call)
        if failure:
            self._call_failed(call, failure)
        else:
            self._deliver(call, inferred, started)

    def _end(self, call: Call) -> None:
        self._calls.remove(call)
        self._admission.inflight_tokens -= call.num_padded_tokens
        self._send_soon()

    def _deliver(self, call: Call, inferred: Inferred, started: float) -> None:
        seconds = self._loop.time() - started
        self._admission.rate.record(call.num_padded_tokens, seconds)
        for i, item in enumerate(call.items):
            request = item.owner
            request.rows[item.index] = {name: array[i] for name, array in inferred.outputs.items()}
            request.num_missing -= 1
            request.queue_seconds = max(request.queue_seconds, started - request.arrived)
            request.infer_seconds = max(request.infer_seconds, seconds)
            if not request.num_missing and not request.future.done():
                request.future.set_result(
                    Batched(request.rows, request.queue_seconds, request.infer_seconds, inferred.served_by)
                )

    def _call_failed(self, call: Call, error: Exception) -> None:
        """Fails the members, but sends each of several once more alone if one of them may be to blame."""
        hopeless = isinstance(error, ServiceError) and (
            error.retryable or isinstance(error, DeadlineExceeded)
        )
        if hopeless or len(call.items) == 1:
            for item in call.items:
                self._fail(item.owner, error)
            return
        log.warning("batch.split", subject=self._subject, num_texts=len(call.items), error=repr(error))
        for item in call.items:
            if not item.owner.future.done():
                item.owner.waiting.append(item)
                self._queue.push_alone(item)
                self._admission.waiting_tokens += item.length

    def _fail(self, request: Request, error: Exception) -> None:
        if not request.future.done():
            request.future.set_exception(error)
        self._leave(request)

    def _leave(self, request: Request) -> None:
        """Takes a request that is answered or given up out of the queue and out of its calls."""
        for item in request.waiting:
            if self._queue.remove(item):
                self._admission.waiting_tokens -= item.length
        for call in request.calls:
            if call in self._calls and all(item.owner.future.done() for item in call.items) and call.task:
                call.task.cancel()
        self._send_soon()
