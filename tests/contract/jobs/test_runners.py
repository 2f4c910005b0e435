"""WorkerService: who may report on an attempt, and how one runner goes on where another stopped."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from conch.v1 import job_pb2, worker_pb2, worker_pb2_grpc
from services.jobs.reporting import Reporter
from tests.contract.jobs.running import Service, sequences, warnings

_BAD = grpc.StatusCode.UNAUTHENTICATED
_OVER = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One trainer for all: nothing here harms it."""
    service = Service("trainer", tmp_path_factory.mktemp("home"), CONCH_MAX_CONCURRENT_JOBS="64")
    yield service
    service.end()


@dataclass
class Impostor:
    """Calls WorkerService by hand, as a runner of its own choice."""

    trainer: Service
    job_id: str
    attempt: int = 1
    runner: str = "other"
    token: str | None = None

    def begin(self) -> int:
        request = worker_pb2.BeginAttemptRequest(job_id=self.job_id, attempt=self.attempt, runner=self.runner)
        return self._stub.BeginAttempt(request, metadata=self._metadata, timeout=30).worker_sequence

    def push(self, *numbers: int) -> int:
        """Pushes a warning for each number; returns the last acknowledged."""
        requests = (
            worker_pb2.PushReportsRequest(
                job_id=self.job_id, attempt=self.attempt, runner=self.runner, report=report(number)
            )
            for number in numbers
        )
        answers = list(self._stub.PushReports(requests, metadata=self._metadata, timeout=30))
        return answers[-1].worker_sequence

    @property
    def _stub(self) -> worker_pb2_grpc.WorkerServiceStub:
        return worker_pb2_grpc.WorkerServiceStub(self.trainer.channel)

    @property
    def _metadata(self) -> Any:
        return None if self.token is None else (("authorization", f"Bearer {self.token}"),)


def report(number: int) -> worker_pb2.WorkerReport:
    warning = job_pb2.Warning(reason="SCRIPTED", message=str(number))
    return worker_pb2.WorkerReport(worker_sequence=number, event=job_pb2.JobEvent(warning=warning))


def code(call: Any, *arguments: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code()


def order_path(trainer: Service, job_id: str) -> Path:
    return trainer.home / "jobs" / job_id / "attempt-1" / "order.json"


def waiting(trainer: Service, job_id: str) -> Impostor:
    """Starts a job whose worker told one thing and waits; returns who may tell more in its name."""
    trainer.train([{"warn": 1}, {"wait": str(trainer.home / f"go-{job_id}")}], job_id=job_id)
    trainer.wait_for(job_id, "SCRIPTED")
    token = json.loads(order_path(trainer, job_id).read_text())["token"]
    return Impostor(trainer, job_id, token=token)


def test_only_the_token_of_the_order_opens_an_attempt(trainer: Service) -> None:
    caller = waiting(trainer, "closed")
    right = caller.token
    for caller.token in (None, "", "wrong", f"{right}x"):
        assert (code(caller.begin), code(caller.push, 2)) == (_BAD, _BAD)
    caller.token = right
    assert caller.begin() == 1


def test_a_token_is_of_one_attempt_and_only_its_digest_is_kept(trainer: Service) -> None:
    tokens = [waiting(trainer, name).token for name in ("one", "two")]
    assert tokens[0] != tokens[1]
    assert code(Impostor(trainer, "two", token=tokens[0]).begin) == _BAD
    for token in tokens:
        assert token
        assert token.encode() not in b"".join(path.read_bytes() for path in trainer.home.glob("conch.db*"))
        assert token not in str(trainer.log)


def test_an_order_is_read_by_its_owner_alone(trainer: Service) -> None:
    waiting(trainer, "mine")
    assert order_path(trainer, "mine").stat().st_mode & 0o777 == 0o600


def test_a_worker_of_an_attempt_that_is_over_is_told_to_stop(trainer: Service) -> None:
    trainer.train([{"end": "error"}], job_id="over")
    trainer.finish("over")
    for job_id, expected in (("over", _OVER), ("nobody", grpc.StatusCode.NOT_FOUND)):
        caller = Impostor(trainer, job_id, token="any")
        assert (code(caller.begin), code(caller.push, 1)) == (expected, expected)


def test_a_runner_that_never_began_is_refused(trainer: Service) -> None:
    assert code(waiting(trainer, "foreign").push, 2) == _OVER


@pytest.mark.parametrize("runner", ["", "x" * 129])
def test_a_runner_has_a_name_of_1_to_128_characters(trainer: Service, runner: str) -> None:
    caller = waiting(trainer, f"named-{len(runner)}")
    caller.runner = runner
    assert code(caller.begin) == grpc.StatusCode.INVALID_ARGUMENT


def test_a_second_runner_goes_on_where_the_first_stopped_and_the_first_ends_itself(trainer: Service) -> None:
    second = waiting(trainer, "handed")
    assert [second.begin(), second.begin()] == [1, 1]
    assert second.push(2, 3) == 3
    # The first one is told as soon as it has something to say.
    (trainer.home / "go-handed").touch()
    trainer.finish("handed")
    log = order_path(trainer, "handed").with_name("worker.log")
    assert "worker.superseded" in log.read_text()


def in_a_pod(trainer: Service, job_id: str, folder: Path, *, report_to: str = "") -> Path:
    """Returns an order as a pod gets it: its spool would be lost with it, so it has to be flushed."""
    order = json.loads(order_path(trainer, job_id).read_text())
    order |= {"flushTimeout": "30s", "reportTo": report_to or trainer.address}
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    return path


def test_runners_that_follow_each_other_leave_neither_gap_nor_repeat(
    trainer: Service, tmp_path: Path
) -> None:
    first = waiting(trainer, "pods")
    for pod in range(3):
        reporter = Reporter(None, order=in_a_pod(trainer, "pods", tmp_path))
        for n in range(5):
            reporter.warning("SCRIPTED", f"{pod}-{n}")
        assert reporter.close(flush_seconds=30)
    events = list(trainer.events("pods"))
    assert sequences(events) == list(range(1, 19))
    assert warnings(events) == ["1", *(f"{pod}-{n}" for pod in range(3) for n in range(5))]
    assert first.begin() == 16


def test_what_a_pod_reports_before_its_service_answers_is_delivered_once_it_does(
    trainer: Service, tmp_path: Path
) -> None:
    waiting(trainer, "early")
    path = in_a_pod(trainer, "early", tmp_path, report_to="127.0.0.1:1")
    reporter = Reporter(None, order=path)
    reporter.warning("SCRIPTED", "early")
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(reporter.close, flush_seconds=30)
        in_a_pod(trainer, "early", tmp_path)
        assert closed.result()
    assert warnings(list(trainer.events("early"))) == ["1", "early"]


def test_a_pod_that_cannot_deliver_says_so(trainer: Service, tmp_path: Path) -> None:
    waiting(trainer, "mute")
    reporter = Reporter(None, order=in_a_pod(trainer, "mute", tmp_path, report_to="127.0.0.1:1"))
    reporter.warning("SCRIPTED", "never heard")
    assert not reporter.close(flush_seconds=0.1)


def test_a_renewed_order_brings_a_worker_back_in(trainer: Service, tmp_path: Path) -> None:
    waiting(trainer, "renewed")
    path = in_a_pod(trainer, "renewed", tmp_path)
    right = path.read_text()
    path.write_text(json.dumps(json.loads(right) | {"token": "of yesterday"}))
    reporter = Reporter(None, order=path)
    reporter.warning("SCRIPTED", "back")
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(reporter.close, flush_seconds=30)
        path.write_text(right)
        assert closed.result()
