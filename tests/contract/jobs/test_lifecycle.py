"""What callers see of jobs: through a real trainer with real worker processes."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import job_pb2, training_pb2
from tests.contract.jobs.conftest import Start
from tests.contract.jobs.everywhere import PLACES
from tests.contract.jobs.running import Service, sequences, states, training_spec, warnings

_S = job_pb2.JobStatus


@pytest.fixture(scope="module", params=PLACES)
def trainer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One trainer for all, a place: nothing here harms it."""
    with PLACES[request.param](tmp_path_factory.mktemp("place")) as place:
        service = Service("trainer", tmp_path_factory.mktemp("home"), place)
        yield service
        service.end()


def cancel(trainer: Service, job_id: str) -> training_pb2.TrainingJob:
    return trainer.training.CancelTrainingJob(training_pb2.CancelTrainingJobRequest(id=job_id)).job


def refused(call: grpc.Call) -> tuple[grpc.StatusCode, set[str]]:
    """Returns the status code of a refused call and the fields that it names."""
    status = rpc_status.from_call(call)
    assert status is not None
    fields = set()
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            fields = {violation.field for violation in request.field_violations}
    return call.code(), fields


def test_a_job_runs_and_tells_everything_in_order(trainer: Service) -> None:
    job_id = trainer.train([{"warn": 3}], job_id="first")
    events = list(trainer.watch(job_id))
    assert sequences(events) == [1, 2, 3, 4, 5, 6]
    assert states(events) == [_S.STATE_PENDING, _S.STATE_RUNNING, _S.STATE_SUCCEEDED]
    assert warnings(events) == ["1", "2", "3"]
    job = trainer.job(job_id)
    assert job.status.state == _S.STATE_SUCCEEDED
    assert job.status.last_sequence == 6
    assert job.result.checkpoint_uri == str(trainer.home / "artifacts" / "training" / "first")
    assert job.status.create_time.ToNanoseconds() <= job.status.start_time.ToNanoseconds()
    assert job.status.start_time.ToNanoseconds() < job.status.end_time.ToNanoseconds()


def test_defaults_are_filled_in(trainer: Service) -> None:
    spec = trainer.job(trainer.train([])).spec
    assert (spec.hyperparameters.learning_rate, spec.hyperparameters.seed) == (5e-5, 42)


def test_a_create_that_is_sent_again_returns_the_job_that_exists(trainer: Service) -> None:
    trainer.train([], job_id="same")
    trainer.finish("same")
    # Even though the data is gone by now.
    spec = trainer.job("same").spec
    (trainer.home / "same.jsonl").unlink()
    request = training_pb2.CreateTrainingJobRequest(id="same", spec=spec)
    again = trainer.training.CreateTrainingJob(request).job
    assert again.status.state == _S.STATE_SUCCEEDED
    request.spec.hyperparameters.seed = 7
    with pytest.raises(grpc.RpcError) as caught:
        trainer.training.CreateTrainingJob(request)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


def test_a_spec_that_can_never_succeed_is_refused_with_every_field_named(trainer: Service) -> None:
    spec = training_spec("/no/such/file.jsonl")
    spec.task = "mind-reading"
    spec.hyperparameters.learning_rate = 2
    with pytest.raises(grpc.RpcError) as caught:
        trainer.training.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(id="bad", spec=spec))
    assert refused(caught.value) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"spec.task", "spec.dataset.train_uri", "spec.hyperparameters.learning_rate"},
    )


def test_machines_that_nobody_has_are_refused_by_name(trainer: Service) -> None:
    (trainer.home / "data.jsonl").touch()
    spec = training_spec(trainer.home / "data.jsonl", profile="no-such", num_nodes=65)
    with pytest.raises(grpc.RpcError) as caught:
        trainer.training.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(spec=spec))
    assert refused(caught.value) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"spec.profile", "spec.num_nodes"},
    )


@pytest.mark.parametrize("job_id", ["-a", "A", "a_b", "a" * 64, "../x"])
def test_an_id_is_short_and_plain(trainer: Service, job_id: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        trainer.training.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(id=job_id))
    assert refused(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, {"id"})


def test_no_more_than_the_limit_run_at_once_and_the_oldest_goes_first(start: Start) -> None:
    trainer = start(CONCH_MAX_CONCURRENT_JOBS="2")
    go = {name: trainer.home / f"go-{name}" for name in "abcd"}
    for name, path in go.items():
        trainer.train([{"warn": 1}, {"wait": str(path)}], job_id=name)
    for name in "ab":
        trainer.wait_for(name, "SCRIPTED")
    assert [trainer.job(name).status.state for name in "cd"] == [_S.STATE_PENDING] * 2
    go["b"].touch()
    trainer.wait_for("c", "SCRIPTED")
    assert trainer.job("d").status.state == _S.STATE_PENDING
    for path in go.values():
        path.touch()
    assert [trainer.finish(name).status.state for name in "abcd"] == [_S.STATE_SUCCEEDED] * 4


def test_a_job_that_waits_is_cancelled_at_once(trainer: Service) -> None:
    trainer.train([{"until_cancelled": 1}], job_id="runs")
    trainer.train([], job_id="waits")
    assert cancel(trainer, "waits").status.state == _S.STATE_CANCELLED
    assert states(list(trainer.watch("waits"))) == [_S.STATE_PENDING, _S.STATE_CANCELLED]
    assert trainer.job("waits").status.attempt == 0
    cancel(trainer, "runs")
    assert trainer.finish("runs").status.state == _S.STATE_CANCELLED


def test_a_running_job_winds_down_when_it_is_cancelled(trainer: Service) -> None:
    trainer.train([{"warn": 1}, {"until_cancelled": 1}], job_id="winds-down")
    trainer.wait_for("winds-down", "SCRIPTED")
    status = cancel(trainer, "winds-down").status
    assert (status.state, status.cancel_requested) == (_S.STATE_RUNNING, True)
    assert trainer.finish("winds-down").status.state == _S.STATE_CANCELLED
    assert cancel(trainer, "winds-down").status.last_sequence == 4


def test_a_worker_that_does_not_wind_down_is_killed_after_the_grace(start: Start) -> None:
    trainer = start(CONCH_CANCEL_GRACE_SECONDS="0.1")
    trainer.train([{"warn": 1}, {"ignore_cancel": 1}], job_id="stuck")
    trainer.wait_for("stuck", "SCRIPTED")
    cancel(trainer, "stuck")
    events = list(trainer.watch("stuck"))
    assert states(events)[-1] == _S.STATE_CANCELLED
    assert "before it had wound down" in warnings(events, "WORKER_DIED")[0]


def test_a_job_is_deleted_only_when_it_is_over(trainer: Service) -> None:
    trainer.train([{"until_cancelled": 1}], job_id="gone")
    request = training_pb2.DeleteTrainingJobRequest(id="gone")
    with pytest.raises(grpc.RpcError) as caught:
        trainer.training.DeleteTrainingJob(request)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    cancel(trainer, "gone")
    trainer.finish("gone")
    trainer.training.DeleteTrainingJob(request)
    assert not (trainer.home / "jobs" / "gone").exists()
    with pytest.raises(grpc.RpcError) as caught:
        trainer.job("gone")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_pages_go_from_new_to_old_and_keep_their_filter(trainer: Service) -> None:
    trainer.train([{"until_cancelled": 1}], job_id="holds")
    trainer.wait_for("holds", "STATE_RUNNING")
    for i in range(4):
        trainer.train([], job_id=f"j{i}")
    request = training_pb2.ListTrainingJobsRequest(page_size=3, states=[_S.STATE_PENDING])
    first = trainer.training.ListTrainingJobs(request)
    request.page_token = first.next_page_token
    second = trainer.training.ListTrainingJobs(request)
    assert [job.id for job in (*first.jobs, *second.jobs)] == ["j3", "j2", "j1", "j0"]
    assert second.next_page_token == ""
    for request.page_token in ("nonsense", first.next_page_token + "x"):
        with pytest.raises(grpc.RpcError) as caught:
            trainer.training.ListTrainingJobs(request)
        assert refused(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, {"page_token"})
    cancel(trainer, "holds")


def test_a_watch_begins_where_it_is_asked_to(trainer: Service) -> None:
    trainer.train([{"warn": 3}], job_id="w")
    trainer.finish("w")
    assert sequences(list(trainer.watch("w", 4))) == [4, 5, 6]
    assert sequences(list(trainer.watch("w", 99))) == []
    with pytest.raises(grpc.RpcError) as caught:
        list(trainer.watch("nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_an_error_that_is_final_fails_the_job_with_its_own_status(trainer: Service) -> None:
    trainer.train([{"end": "error"}], job_id="bad")
    status = trainer.finish("bad").status
    assert (status.state, status.attempt) == (_S.STATE_FAILED, 1)
    assert (status.error.code, "bad row 3" in status.error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        True,
    )


def test_an_error_that_may_pass_is_tried_again(trainer: Service) -> None:
    trainer.train([{"attempt": 1, "end": "unavailable"}], job_id="flaky")
    events = list(trainer.watch("flaky"))
    assert warnings(events, "STORAGE_UNAVAILABLE") == ["attempt 1 of 3: storage is away"]
    assert events[-3].state_changed.reason == "another attempt follows in 0.2 s"
    assert events[-2].time.ToNanoseconds() - events[-3].time.ToNanoseconds() >= 0.19e9
    assert states(events)[-1] == _S.STATE_SUCCEEDED
