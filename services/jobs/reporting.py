"""What a worker tells: spooled first where somebody reads the spool later, and delivered to the service.

Knows reports; knows nothing about training, conversion or the database. What was never acknowledged the
service reads from the spool once the worker is gone. In a pod, whose folder goes with it, there is no
spool: there the service's own word on where the attempt's reports go on numbers them.
"""

import threading
from pathlib import Path
from typing import Any

from conch.v1 import job_pb2, worker_pb2
from services.jobs.delivery import Delivery
from services.jobs.spool import SpoolWriter

DEFAULT_FLUSH_SECONDS = 2.0


class Reporter:
    """Takes a worker's events and outcome to disk, and on to the service that `order` names.

    With a spool path alone nothing is delivered, with an order alone nothing is on disk. Safe to call from
    several threads.
    """

    def __init__(self, spool: Path | None, *, order: Path | None = None, attempt: int = 1) -> None:
        self._spool = SpoolWriter(spool) if spool is not None else None
        self._attempt = attempt
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._last = 0
        self._delivery = Delivery(order) if order is not None else None

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
        """Reports how the attempt ended: the last report, on the platter before this returns if spooled."""
        self._append(worker_pb2.WorkerReport(outcome=outcome), durable=True)

    def close(self, *, flush_seconds: float = DEFAULT_FLUSH_SECONDS) -> bool:
        """Waits at most `flush_seconds` until the service acknowledged all; returns whether it is safe.

        What is in a spool is safe anyway.
        """
        delivered = self._delivery is None or self._delivery.close(flush_seconds)
        if self._spool is None:
            return delivered
        self._spool.close()
        return True

    def _append(self, report: worker_pb2.WorkerReport, *, durable: bool = False) -> None:
        with self._lock:
            if self._spool is not None:
                self._last += 1
                report.worker_sequence = self._last
                self._spool.append(report, durable=durable)
            if self._delivery is not None:
                self._delivery.add(report)
