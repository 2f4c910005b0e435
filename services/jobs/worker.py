"""The life of a worker process: read the order, run, report how it ended.

A worker module ends with `if __name__ == "__main__": worker.main(run)`. Knows nothing about what
`run` does, nor about the database.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from conch.v1 import conversion_pb2, training_pb2, worker_pb2
from services import logs
from services.errors import Cancelled, ServiceError
from services.jobs.orders import read_order
from services.jobs.reporting import DEFAULT_FLUSH_SECONDS, Reporter
from services.jobs.spool import SPOOL
from services.jobs.torchrun_settings import TorchrunSettings
from services.settings import SharedSettings

Result = training_pb2.TrainingResult | conversion_pb2.ConversionResult
Run = Callable[[worker_pb2.WorkOrder, Reporter], Result]
EXIT_CRASHED = 1
"""Exit code after an exception that is no ServiceError: the traceback is in the worker's log."""
EXIT_UNDELIVERED = 74
"""Exit code of a worker that could tell nobody how it ended: it had no spool, and no service answered."""


EXIT_CANCELLED = 143
"""Exit code of a worker that wound down because it was asked to: one that was not the last word, as when a
pod is preempted, must not look like success. What a shell says of SIGTERM."""


def main(run: Run) -> NoReturn:
    """Runs the order at the path `sys.argv[1]` and ends the process.

    Returning from `run` is success; a ServiceError fails the job (another attempt follows if it is
    retryable); Cancelled is a wish fulfilled; any other exception is a crash, which another attempt
    may survive.
    """
    logs.configure(service="worker", level=SharedSettings().log_level)
    path = Path(sys.argv[1])
    order = read_order(path)
    # Nobody reads a spool that goes with its pod, and an order that is mounted leaves no room for one.
    spool = None if order.HasField("flush_timeout") else path.with_name(SPOOL)
    # Of several processes that work on one order only the first one reports.
    first = TorchrunSettings().rank == 0
    report = Reporter(spool if first else None, order=path if first else None, attempt=order.attempt)
    signal.signal(signal.SIGTERM, lambda *_: report.cancel())
    code = _attempt(run, order, report)
    delivered = report.close(flush_seconds=_flush_seconds(order))
    _exit(code if delivered else EXIT_UNDELIVERED)


def _flush_seconds(order: worker_pb2.WorkOrder) -> float:
    flush = order.flush_timeout
    return flush.ToNanoseconds() / 1e9 if order.HasField("flush_timeout") else DEFAULT_FLUSH_SECONDS


def _attempt(run: Run, order: worker_pb2.WorkOrder, report: Reporter) -> int:
    try:
        outcome = _outcome(run, order, report)
        report.outcome(outcome)
    except Exception:
        traceback.print_exc()
        return EXIT_CRASHED
    return EXIT_CANCELLED if outcome.HasField("cancelled") else 0


def _outcome(run: Run, order: worker_pb2.WorkOrder, report: Reporter) -> worker_pb2.Outcome:
    try:
        result = run(order, report)
    except Cancelled:
        return worker_pb2.Outcome(cancelled=worker_pb2.Cancelled())
    except ServiceError as error:
        traceback.print_exc()
        return worker_pb2.Outcome(error=error.to_status(), retryable=error.retryable)
    if isinstance(result, training_pb2.TrainingResult):
        return worker_pb2.Outcome(training=result)
    return worker_pb2.Outcome(conversion=result)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads and exit hooks of the libraries that ran may hang; nothing is left that they are needed for.
    os._exit(code)
