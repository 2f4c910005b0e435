"""What is left after kill -9, of a worker and of a service: everything that was told, once."""

import os
import signal

import grpc
import pytest
from google.rpc import error_details_pb2

from conch.v1 import job_pb2, training_pb2
from tests.contract.jobs.conftest import Start
from tests.contract.jobs.running import Service, forget_worker, sequences, states, wait_for_exit, warnings

_S = job_pb2.JobStatus


def test_a_killed_worker_is_followed_by_another_attempt(trainer: Service) -> None:
    script = [{"warn": 2}, {"attempt": 1, "wait": "/never"}]
    trainer.train(script, job_id="k")
    trainer.wait_for("k", '"2"')
    os.kill(trainer.worker_pid("k"), signal.SIGKILL)
    events = list(trainer.watch("k"))
    assert sequences(events) == list(range(1, len(events) + 1))
    assert warnings(events) == ["1", "2", "1", "2"]
    assert [event.attempt for event in events if event.warning.reason == "SCRIPTED"] == [1, 1, 2, 2]
    assert "attempt 1 of 3: the worker was killed by SIGKILL" in warnings(events, "WORKER_DIED")[0]
    assert states(events)[-3:] == [_S.STATE_PENDING, _S.STATE_RUNNING, _S.STATE_SUCCEEDED]


@pytest.mark.parametrize(
    ("end", "reason"), [("kill", "was killed by SIGKILL"), ("crash", "ended with exit code 1")]
)
def test_a_worker_that_dies_every_time_fails_the_job_with_reason_and_log(
    trainer: Service, end: str, reason: str
) -> None:
    trainer.train([{"end": end}], job_id="k", max_attempts=2)
    status = trainer.finish("k").status
    assert (status.state, status.attempt) == (_S.STATE_FAILED, 2)
    assert status.error.code == grpc.StatusCode.INTERNAL.value[0]
    assert f"attempt 2 of 2: the worker {reason}" in status.error.message
    info, log = error_details_pb2.ErrorInfo(), error_details_pb2.DebugInfo()
    assert status.error.details[0].Unpack(info)
    assert status.error.details[1].Unpack(log)
    assert info.reason == "WORKER_DIED"
    assert any("about to" in line for line in log.stack_entries)


def test_a_killed_service_finds_its_living_worker_again(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 2}, {"wait": str(go)}, {"warn": 3}], job_id="k")
    seen = trainer.wait_for("k", '"2"')
    pid = trainer.worker_pid("k")
    trainer.kill()
    trainer.start()
    assert trainer.job("k").status.state == _S.STATE_RUNNING
    go.touch()
    rest = list(trainer.watch("k", seen[-1].sequence + 1))
    assert sequences(seen + rest) == list(range(1, 9))
    assert warnings(seen + rest) == ["1", "2", "3", "4", "5"]
    assert states(seen + rest) == [_S.STATE_PENDING, _S.STATE_RUNNING, _S.STATE_SUCCEEDED]
    assert trainer.worker_pid("k") == pid


def test_live_events_of_an_adopted_worker_arrive_while_it_runs(trainer: Service) -> None:
    more, end = trainer.home / "more", trainer.home / "end"
    trainer.train([{"warn": 1}, {"wait": str(more)}, {"warn": 1}, {"wait": str(end)}], job_id="k")
    trainer.wait_for("k", '"1"')
    trainer.kill()
    # On another port: the worker learns of it from its order.
    trainer.start()
    more.touch()
    trainer.wait_for("k", '"2"')
    assert trainer.job("k").status.state == _S.STATE_RUNNING
    end.touch()
    assert trainer.finish("k").status.state == _S.STATE_SUCCEEDED


def test_a_worker_killed_while_no_service_ran_is_followed_by_another(trainer: Service) -> None:
    trainer.train([{"warn": 1}, {"attempt": 1, "wait": "/never"}], job_id="k")
    trainer.wait_for("k", '"1"')
    pid = trainer.worker_pid("k")
    trainer.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for_exit(pid)
    trainer.start()
    events = list(trainer.watch("k"))
    assert "attempt 1 of 3" in warnings(events, "WORKER_DIED")[0]
    assert trainer.job("k").status.attempt == 2
    assert states(events)[-1] == _S.STATE_SUCCEEDED


def test_a_worker_whose_pid_was_never_noted_is_found_and_not_started_twice(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 1}, {"wait": str(go)}], job_id="k")
    trainer.wait_for("k", '"1"')
    pid = trainer.worker_pid("k")
    trainer.kill()
    forget_worker(trainer.home)
    trainer.start()
    assert trainer.worker_pid("k") == pid
    go.touch()
    job = trainer.finish("k")
    assert (job.status.state, job.status.attempt, job.status.last_sequence) == (_S.STATE_SUCCEEDED, 1, 4)


def test_a_service_killed_as_soon_as_a_worker_runs_never_starts_it_twice(start: Start) -> None:
    trainer = start(CONCH_MAX_CONCURRENT_JOBS="4")
    go = trainer.home / "go"
    for name in "abcd":
        trainer.train([{"warn": 5}, {"wait": str(go)}], job_id=name)
        trainer.wait_for_log("job.started", job=name)
        trainer.kill()
        trainer.start()
    go.touch()
    for name in "abcd":
        job = trainer.finish(name)
        assert (job.status.state, job.status.attempt) == (_S.STATE_SUCCEEDED, 1)
        events = list(trainer.watch(name))
        assert sequences(events) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert warnings(events) == ["1", "2", "3", "4", "5"]
    started = [entry["job"] for entry in trainer.log if entry["event"] == "job.started"]
    assert sorted(started) == ["a", "b", "c", "d"]


def test_a_cancelled_job_stays_cancelled_over_a_restart(trainer: Service) -> None:
    trainer.train([{"warn": 1}, {"until_cancelled": 1}], job_id="k")
    trainer.wait_for("k", '"1"')
    pid = trainer.worker_pid("k")
    os.kill(pid, signal.SIGSTOP)
    trainer.training.CancelTrainingJob(training_pb2.CancelTrainingJobRequest(id="k"))
    trainer.kill()
    trainer.start()
    os.kill(pid, signal.SIGCONT)
    assert trainer.finish("k").status.state == _S.STATE_CANCELLED


def test_a_stopped_service_ends_watches_at_once_and_leaves_the_worker(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 1}, {"wait": str(go)}], job_id="k")
    trainer.wait_for("k", '"1"')
    watch = trainer.watch("k")
    next(watch)
    trainer.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert trainer.process.wait(timeout=30) == 0
    os.kill(trainer.worker_pid("k"), 0)
    trainer.start()
    go.touch()
    assert trainer.finish("k").status.state == _S.STATE_SUCCEEDED
