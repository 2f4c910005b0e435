"""Training and conversion jobs behind one face: their services have the same verbs over different messages.

Knows the two generated services; knows nothing about printing.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from conch.errors import from_rpc_error
from conch.v1 import conversion_pb2, job_pb2, training_pb2
from services.cli.failures import USAGE, CliError
from services.cli.stubs import Stubs

FINAL = (job_pb2.JobStatus.STATE_SUCCEEDED, job_pb2.JobStatus.STATE_FAILED, job_pb2.JobStatus.STATE_CANCELLED)
_PATIENCE_SECONDS = 120.0
_LAST_WAIT_SECONDS = 5.0

# training_pb2.TrainingJob | conversion_pb2.ConversionJob: same fields but for spec and result.
Job = Any


class JobKind:
    """The verbs of one kind of job; `name` is "training" or "conversion"."""

    def __init__(self, name: str, *, messages: Any, stub: Any) -> None:
        self.name = name
        self._title = name.capitalize() + "Job"
        self._messages = messages
        self._stub = stub

    def create(self, job_id: str, spec: Any) -> Job:
        """Creates the job, or returns the one with this id and this spec."""
        return self._call("Create", id=job_id, spec=spec).job

    def get(self, job_id: str) -> Job:
        """Returns the job as it is now."""
        return self._call("Get", id=job_id).job

    def list(self, states: list[int], limit: int) -> list[Job]:
        """Returns up to `limit` jobs, newest first."""
        jobs: list[Job] = []
        token = ""
        while len(jobs) < limit:
            size = min(1000, limit - len(jobs))
            page = self._call("List", plural="s", page_size=size, page_token=token, states=states)
            jobs += page.jobs
            token = page.next_page_token
            if not token:
                break
        return jobs

    def cancel(self, job_id: str) -> Job:
        """Asks the job to stop and returns it."""
        return self._call("Cancel", id=job_id).job

    def delete(self, job_id: str) -> None:
        """Deletes the job."""
        self._call("Delete", id=job_id)

    def follow(
        self, job_id: str, *, from_sequence: int = 1, on_break: Callable[[str], None] = lambda _: None
    ) -> Iterator[job_pb2.JobEvent]:
        """Yields the job's events up to its final state, each once, through broken streams and restarts.

        Raises grpc.RpcError for what the service says, and for a service that is away for two minutes.
        """
        follower = _Follower(self._watch, job_id, from_sequence, on_break)
        return follower.events()

    def _watch(self, job_id: str, from_sequence: int) -> Iterator[Any]:
        request = getattr(self._messages, f"Watch{self._title}Request")
        responses: Iterator[Any] = getattr(self._stub, f"Watch{self._title}")(
            request(id=job_id, from_sequence=from_sequence)
        )
        return responses

    def _call(self, verb: str, *, plural: str = "", **fields: Any) -> Any:
        request = getattr(self._messages, f"{verb}{self._title}{plural}Request")
        return getattr(self._stub, f"{verb}{self._title}{plural}")(request(**fields))


def training(stubs: Stubs) -> JobKind:
    """Returns the trainer's jobs."""
    return JobKind("training", messages=training_pb2, stub=stubs.training)


def conversion(stubs: Stubs) -> JobKind:
    """Returns the converter's jobs."""
    return JobKind("conversion", messages=conversion_pb2, stub=stubs.conversion)


def kinds(stubs: Stubs, kind: str = "") -> list[JobKind]:
    """Returns both kinds, or the one named. Raises CliError for another name."""
    found = [k for k in (training(stubs), conversion(stubs)) if kind in ("", k.name)]
    if not found:
        raise CliError(f"--kind {kind!r}: training or conversion", exit_code=USAGE)
    return found


def find(stubs: Stubs, job_id: str, kind: str = "") -> tuple[JobKind, Job]:
    """Returns the job with this id and its kind, training before conversion. Raises grpc.RpcError."""
    candidates = kinds(stubs, kind)
    for candidate in candidates[:-1]:
        try:
            return candidate, candidate.get(job_id)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    return candidates[-1], candidates[-1].get(job_id)


class _Follower:
    """One pass over a job's event log, resumed where a stream broke off."""

    def __init__(
        self,
        watch: Callable[[str, int], Iterator[Any]],
        job_id: str,
        from_sequence: int,
        on_break: Callable[[str], None],
    ) -> None:
        self._watch = watch
        self._job_id = job_id
        self._next = max(1, from_sequence)
        self._on_break = on_break
        self._breaks = 0
        self._broken_since = 0.0

    def events(self) -> Iterator[job_pb2.JobEvent]:
        while True:
            try:
                for response in self._watch(self._job_id, self._next):
                    self._breaks = 0
                    if response.event.sequence < self._next:
                        continue
                    self._next = response.event.sequence + 1
                    yield response.event
                    if is_final(response.event):
                        return
                self._wait("the stream ended early")
            except grpc.RpcError as error:
                if not _is_break(error) or self._out_of_patience():
                    raise
                self._wait(error.details() or "the stream broke")

    def _out_of_patience(self) -> bool:
        return bool(self._breaks) and time.monotonic() - self._broken_since > _PATIENCE_SECONDS

    def _wait(self, why: str) -> None:
        if not self._breaks:
            self._broken_since = time.monotonic()
            self._on_break(why)
        self._breaks += 1
        time.sleep(min(0.1 * 2 ** (self._breaks - 1), _LAST_WAIT_SECONDS))


def is_final(event: job_pb2.JobEvent) -> bool:
    """True if the event brings the job into a state that it never leaves."""
    return event.WhichOneof("event") == "state_changed" and event.state_changed.state in FINAL


def _is_break(error: grpc.RpcError) -> bool:
    """True if the connection or a service on its way down failed, rather than the service having said no."""
    typed = from_rpc_error(error)
    return typed.code is grpc.StatusCode.UNAVAILABLE or (
        not typed.reason and typed.code is not grpc.StatusCode.UNIMPLEMENTED
    )
