"""Brings a worker's reports to the service: in order, each until it is acknowledged.

Knows WorkerService and the order that says where it is; knows nothing about what the reports say. A
service that is down costs nothing: the background thread reconnects and resends.
"""

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import grpc
import structlog
from google.protobuf import json_format

from conch.v1 import worker_pb2, worker_pb2_grpc
from services.jobs import credentials
from services.jobs.orders import read_order

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.05
_LONGEST_BACKOFF_SECONDS = 1.0
_BEGIN_SECONDS = 10.0
_STOP_CODES = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
# A proxy of the machine's own has no business between two processes of it. A service that is frozen, or whose
# machine is gone, says nothing: unasked, TCP waits for it for a quarter of an hour, and last words are lost.
_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)
EXIT_SUPERSEDED = 75
"""Exit code of a worker that was told that another attempt or runner took over, or that its job is gone."""


class Delivery:
    """Begins the attempt as a runner of its own, then sends reports over one stream at a time.

    A report without a number gets one as soon as the service said where this attempt's go on.
    """

    def __init__(self, order: Path) -> None:
        self._order = order
        self._runner = secrets.token_hex(16)
        self._changed = threading.Condition()
        self._unacknowledged: list[worker_pb2.WorkerReport] = []
        self._begun = False
        self._last = 0
        self._closing = False
        self._problem: grpc.StatusCode | None = None
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        threading.Thread(target=self._run, name="report-delivery", daemon=True).start()

    def add(self, report: worker_pb2.WorkerReport) -> None:
        """Takes a report to deliver, after those that it was given before."""
        with self._changed:
            self._unacknowledged.append(report)
            if self._begun:
                self._number(report)
            self._changed.notify_all()

    def close(self, flush_seconds: float) -> bool:
        """Waits at most `flush_seconds` until all is acknowledged; returns whether it is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._unacknowledged, timeout=flush_seconds)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._deliver()
            except grpc.RpcError as error:
                self._refused(error)
            except (OSError, json_format.ParseError) as error:
                log.warning("reports.undelivered", problem=str(error))
            # Jitter keeps many workers from coming back in step after a restart of their service.
            time.sleep(self._backoff_seconds * random.uniform(0.5, 1.0))
            self._backoff_seconds = min(2 * self._backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._unacknowledged or self._closing or not self._begun)
            return bool(self._unacknowledged) or not self._closing

    def _deliver(self) -> None:
        # The order is read anew each time: a service that came back elsewhere writes its address into it.
        order = read_order(self._order)
        with grpc.insecure_channel(order.report_to, options=_CHANNEL_OPTIONS) as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            if not self._begun:
                self._begin(stub, order)
            self._stream(stub, order)

    def _begin(self, stub: worker_pb2_grpc.WorkerServiceStub, order: worker_pb2.WorkOrder) -> None:
        request = worker_pb2.BeginAttemptRequest(
            job_id=order.job_id, attempt=order.attempt, runner=self._runner
        )
        metadata = credentials.header(order.token)
        response = stub.BeginAttempt(request, metadata=metadata, timeout=_BEGIN_SECONDS)
        with self._changed:
            self._begun, self._last = True, response.worker_sequence
            for report in self._unacknowledged:
                self._number(report)
        self._acknowledge(response.worker_sequence)

    def _number(self, report: worker_pb2.WorkerReport) -> None:
        if not report.worker_sequence:
            self._last += 1
            report.worker_sequence = self._last

    def _stream(self, stub: worker_pb2_grpc.WorkerServiceStub, order: worker_pb2.WorkOrder) -> None:
        over = threading.Event()
        metadata = credentials.header(order.token)
        try:
            for response in stub.PushReports(self._requests(order, over), metadata=metadata):
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
                yield worker_pb2.PushReportsRequest(
                    job_id=order.job_id, attempt=order.attempt, report=report, runner=self._runner
                )

    def _after(self, sent: int, over: threading.Event) -> list[worker_pb2.WorkerReport]:
        """Blocks until there are reports after `sent` and returns them; none at the end of the stream."""

        def fresh() -> list[worker_pb2.WorkerReport]:
            return [r for r in self._unacknowledged if r.worker_sequence > sent]

        with self._changed:
            self._changed.wait_for(lambda: over.is_set() or self._closing or bool(fresh()))
            return [] if over.is_set() else fresh()

    def _acknowledge(self, worker_sequence: int) -> None:
        with self._changed:
            self._backoff_seconds, self._problem = _FIRST_BACKOFF_SECONDS, None
            self._unacknowledged = [r for r in self._unacknowledged if r.worker_sequence > worker_sequence]
            self._changed.notify_all()

    def _end(self, over: threading.Event) -> None:
        with self._changed:
            over.set()
            self._changed.notify_all()

    def _refused(self, error: grpc.RpcError) -> None:
        """Ends the process where it is no longer wanted: winding down could harm its successor's files.

        A token may be refused because the order was written anew a moment ago: that passes.
        """
        call = cast(grpc.Call, error)  # what the stubs raise is both, which grpc's own types do not say
        if call.code() in _STOP_CODES:
            log.warning("worker.superseded", message=call.details())
            os._exit(EXIT_SUPERSEDED)
        if call.code() != self._problem:
            self._problem = call.code()
            log.warning("reports.delayed", code=str(call.code()), problem=call.details())
