"""A worker that does what its training file says, through the real Reporter: one JSON step a line.

{"warn": 3}            reports three warnings, numbered on from the last
{"append": "path"}     adds the job's id to a file, as a line
{"wait": "path"}       waits until the file exists
{"end": "success"}     or "error", "unavailable", "crash", "kill" (SIGKILL to itself)
{"until_cancelled": 1} waits for SIGTERM, then winds down
{"ignore_cancel": 1}   waits for SIGKILL
{"attempt": 1, ...}    the step is for this attempt alone
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from conch.v1 import conversion_pb2, job_pb2, training_pb2, worker_pb2
from services.errors import BackendUnavailable, Cancelled, InvalidRequest
from services.jobs import worker
from services.jobs.reporting import Reporter


def run(order: worker_pb2.WorkOrder, report: Reporter) -> worker.Result:
    """Plays the script; the result carries what the order said."""
    numbers = iter(range(1, 1_000_000))
    for step in _script(order):
        if step.get("attempt", order.attempt) == order.attempt:
            _play(step, order, report, numbers)
    if order.HasField("conversion"):
        return conversion_pb2.ConversionResult(model=order.conversion.model, version=order.version)
    evaluation = job_pb2.Evaluation(split="validation", metrics={"accuracy": 1.0})
    return training_pb2.TrainingResult(checkpoint_uri=order.output_uri, evaluation=evaluation)


def _script(order: worker_pb2.WorkOrder) -> list[dict[str, Any]]:
    uri = order.training.dataset.train_uri or str(Path(order.conversion.checkpoint_uri) / "script.jsonl")
    return [json.loads(line) for line in Path(uri).read_text().splitlines()]


def _play(step: dict[str, Any], order: worker_pb2.WorkOrder, report: Reporter, numbers: Any) -> None:
    if "append" in step:
        with Path(step["append"]).open("a") as file:
            file.write(f"{order.job_id}\n")
    for _ in range(step.get("warn", 0)):
        report.warning("SCRIPTED", str(next(numbers)))
    if "wait" in step:
        _wait(lambda: Path(step["wait"]).exists())
    if "until_cancelled" in step:
        _wait(lambda: report.cancelled)
        raise Cancelled("asked to stop", reason="CANCELLED")
    if "ignore_cancel" in step:
        _wait(lambda: False)
    if "end" in step:
        _end(step["end"])


def _wait(ready: Any) -> None:
    # A worker under test has nothing better to do than to look.
    while not ready():
        time.sleep(0.005)


def _end(how: str) -> None:
    if how == "error":
        raise InvalidRequest.field("spec.dataset.train_uri", "bad row 3", reason="BAD_DATA")
    if how == "unavailable":
        raise BackendUnavailable("storage is away", reason="STORAGE_UNAVAILABLE")
    if how == "crash":
        print("about to crash", file=sys.stderr)
        raise ZeroDivisionError("scripted crash")
    if how == "kill":
        print("about to be killed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    worker.main(run)
