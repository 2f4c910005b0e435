"""What a worker tells: spooled first, then pushed to the service until it is acknowledged.

Knows the spool and WorkerService; knows nothing about training, conversion or the database. A
service that is down costs nothing: the background thread reconnects and resends, and what was
never acknowledged the service reads from the spool once the worker is gone.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import structlog
from google.protobuf import json_format

from conch.v1 import job_pb2, worker_pb2, worker_pb2_grpc
from services.jobs.spool import SpoolWriter

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.05
_LONGEST_BACKOFF_SECONDS = 1.0
_STOP_CODES = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
# A proxy of the machine's own has no business between two processes of it.
_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
EXIT_SUPERSEDED = 75
"""Exit code of a worker that was told that another attempt took over, or that its job is gone."""


class Reporter:
    """Takes a worker's events and outcome to disk, and on to the service that `order` names.

    With a spool path alone nothing is pushed. Safe to call from several threads.
    """

    def __init__(self, spool: Path, *, order: Path | None = None, attempt: int = 1) -> None:
        self._spool = SpoolWriter(spool)
        self._attempt = attempt
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._last = 0
        self._push = _Push(order) if order is not None else None

    @property
    def cancelled(self) -> bool:
        """True once the worker was asked to stop: wind down, save, raise services.errors.Cancelled."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Asks the worker to stop; safe in a signal handler."""
        self._cancelled.set()

    def event(self, **event: Any) -> None:
        """Reports one event; the keyword is JobEvent's oneof field: `event(warning=Warning(...))`."""
        stamped = job_pb2.JobEvent(attempt=self._attempt, **event)
        stamped.time.GetCurrentTime()
        self._append(worker_pb2.WorkerReport(event=stamped))

    def stage(self, name: str, index: int, num_stages: int) -> None:
        """Reports that part `index` (from 1) of `num_stages` begins."""
        self.event(stage_started=job_pb2.StageStarted(name=name, index=index, num_stages=num_stages))

    def warning(self, reason: str, message: str) -> None:
        """Reports something that a person should look at; `reason` is UPPER_SNAKE."""
        self.event(warning=job_pb2.Warning(reason=reason, message=message))

    def outcome(self, outcome: worker_pb2.Outcome) -> None:
        """Reports how the attempt ended: the last report, on the platter before this returns."""
        self._append(worker_pb2.WorkerReport(outcome=outcome), durable=True)

    def close(self, *, flush_seconds: float = 2.0) -> None:
        """Waits at most `flush_seconds` until the service acknowledged all; the spool has it anyway."""
        if self._push is not None:
            self._push.close(flush_seconds)
        self._spool.close()

    def _append(self, report: worker_pb2.WorkerReport, *, durable: bool = False) -> None:
        with self._lock:
            self._last += 1
            report.worker_sequence = self._last
            self._spool.append(report, durable=durable)
            if self._push is not None:
                self._push.add(report)


class _Push:
    """Sends reports in order over one stream at a time and keeps each until it is acknowledged."""

    def __init__(self, order: Path) -> None:
        self._order = order
        self._changed = threading.Condition()
        self._unacknowledged: list[worker_pb2.WorkerReport] = []
        self._closing = False
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        threading.Thread(target=self._run, name="report-push", daemon=True).start()

    def add(self, report: worker_pb2.WorkerReport) -> None:
        with self._changed:
            self._unacknowledged.append(report)
            self._changed.notify_all()

    def close(self, flush_seconds: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._unacknowledged, timeout=flush_seconds)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._stream()
            except grpc.RpcError as error:
                _stop_if_superseded(error)
            except OSError as error:
                log.warning("reports.undelivered", problem=str(error))
            # Jitter keeps many workers from coming back in step after a restart of their service.
            time.sleep(self._backoff_seconds * random.uniform(0.5, 1.0))
            self._backoff_seconds = min(2 * self._backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._unacknowledged or self._closing)
            return bool(self._unacknowledged)

    def _stream(self) -> None:
        # The order is read anew each time: a service that came back elsewhere writes its address into it.
        order = json_format.Parse(self._order.read_bytes(), worker_pb2.WorkOrder())
        over = threading.Event()
        with grpc.insecure_channel(order.report_to, options=_CHANNEL_OPTIONS) as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            try:
                for response in stub.PushReports(self._requests(order, over)):
                    self._acknowledge(response.worker_sequence)
            finally:
                self._end(over)

    def _requests(
        self, order: worker_pb2.WorkOrder, over: threading.Event
    ) -> Iterator[worker_pb2.PushReportsRequest]:
        sent = 0
        while reports := self._after(sent, over):
            for report in reports:
                sent = report.worker_sequence
                yield worker_pb2.PushReportsRequest(job_id=order.job_id, attempt=order.attempt, report=report)

    def _after(self, sent: int, over: threading.Event) -> list[worker_pb2.WorkerReport]:
        """Blocks until there are reports after `sent` and returns them; none at the end of the stream."""

        def fresh() -> list[worker_pb2.WorkerReport]:
            return [r for r in self._unacknowledged if r.worker_sequence > sent]

        with self._changed:
            self._changed.wait_for(lambda: over.is_set() or self._closing or bool(fresh()))
            return [] if over.is_set() else fresh()

    def _acknowledge(self, worker_sequence: int) -> None:
        with self._changed:
            self._backoff_seconds = _FIRST_BACKOFF_SECONDS
            self._unacknowledged = [r for r in self._unacknowledged if r.worker_sequence > worker_sequence]
            self._changed.notify_all()

    def _end(self, over: threading.Event) -> None:
        with self._changed:
            over.set()
            self._changed.notify_all()


def _stop_if_superseded(error: grpc.RpcError) -> None:
    """Ends the process where it is no longer wanted: winding down could harm its successor's files."""
    call = cast(grpc.Call, error)  # what the stubs raise is both, which grpc's own types do not say
    if call.code() in _STOP_CODES:
        log.warning("worker.superseded", message=call.details())
        os._exit(EXIT_SUPERSEDED)
