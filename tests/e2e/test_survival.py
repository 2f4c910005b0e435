"""What is killed comes back, and nothing is lost or doubled on the way."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from conch.client import Conch as Client
from conch.v1 import (
    conversion_pb2,
    conversion_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    job_pb2,
    training_pb2,
    training_pb2_grpc,
)
from examples.stack import Conch
from examples.waiting import wait_not_serving, wait_serving
from services import storage
from tests.e2e.shipped import Shipped

WAIT_SECONDS = 120
TERMINAL = (
    job_pb2.JobStatus.STATE_SUCCEEDED,
    job_pb2.JobStatus.STATE_FAILED,
    job_pb2.JobStatus.STATE_CANCELLED,
)


@pytest.fixture
def trainer(conch: Conch) -> Iterator[training_pb2_grpc.TrainingServiceStub]:
    with grpc.insecure_channel(conch.environment["CONCH_TRAINER_ADDRESS"]) as channel:
        yield training_pb2_grpc.TrainingServiceStub(channel)


@pytest.fixture
def converter(conch: Conch) -> Iterator[conversion_pb2_grpc.ConversionServiceStub]:
    with grpc.insecure_channel(conch.environment["CONCH_CONVERTER_ADDRESS"]) as channel:
        yield conversion_pb2_grpc.ConversionServiceStub(channel)


def _spec(reviews: Path, base: Path, **hyperparameters: float) -> training_pb2.TrainingSpec:
    chosen = {
        "num_epochs": 6,
        "batch_size": 8,
        "max_length": 32,
        "evaluations_per_epoch": 3,
        **hyperparameters,
    }
    return training_pb2.TrainingSpec(
        task="text-classification",
        base_model=str(base),
        dataset=training_pb2.Dataset(train_uri=str(reviews), max_validation_examples=64),
        hyperparameters=training_pb2.Hyperparameters(early_stopping_patience=0, **chosen),
    )


def _worker(job: str) -> psutil.Process:
    """The worker process of a job: the one whose order lies in the job's folder."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if ".run" in line and f"/{job}/" in line:
            return process
    raise AssertionError(f"no worker of {job} runs")


def _service(conch: Conch, name: str) -> int:
    processes = {process["name"]: process for process in conch("status")["processes"]}
    return int(processes[name]["pid"])


def _follow(watch: Callable[[int], Iterator[job_pb2.JobEvent]]) -> Iterator[job_pb2.JobEvent]:
    """Yields a job's events to the end, asking again from where it was when the stream breaks."""
    next_sequence = 1
    while True:
        try:
            for event in watch(next_sequence):
                next_sequence = event.sequence + 1
                yield event
                if event.state_changed.state in TERMINAL:
                    return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise


def _events(trainer: training_pb2_grpc.TrainingServiceStub, job: str) -> Iterator[job_pb2.JobEvent]:
    def watch(from_sequence: int) -> Iterator[job_pb2.JobEvent]:
        request = training_pb2.WatchTrainingJobRequest(id=job, from_sequence=from_sequence)
        return (r.event for r in trainer.WatchTrainingJob(request, timeout=WAIT_SECONDS, wait_for_ready=True))

    return _follow(watch)


def test_a_training_job_survives_kill_9_of_its_worker_and_of_the_service(
    conch: Conch, trainer: training_pb2_grpc.TrainingServiceStub, reviews: Path, tiny_bert: Path
) -> None:
    job = "survivor"
    trainer.CreateTrainingJob(
        training_pb2.CreateTrainingJobRequest(id=job, spec=_spec(reviews, tiny_bert)), timeout=10
    )
    seen, victims = (
        [],
        [lambda: _worker(job).kill(), lambda: os.kill(_service(conch, "trainer"), signal.SIGKILL)],
    )
    for event in _events(trainer, job):
        seen.append(event)
        if event.HasField("checkpoint_saved") and victims:
            victims.pop(0)()
    assert not victims
    assert seen[-1].state_changed.state == job_pb2.JobStatus.STATE_SUCCEEDED
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    first_steps = [e.training_step.step for e in seen if e.HasField("training_step") and e.attempt == 2]
    assert first_steps[0] > 1, "the second attempt began from the start, not from the checkpoint"
    stored = list(_events(trainer, job))
    assert stored == seen


def test_a_worker_that_dies_every_time_fails_the_job_with_the_reason(
    conch: Conch, trainer: training_pb2_grpc.TrainingServiceStub, reviews: Path, tiny_bert: Path
) -> None:
    job, spec = "doomed", _spec(reviews, tiny_bert, num_epochs=50)
    spec.max_attempts = 2
    trainer.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(id=job, spec=spec), timeout=10)
    for event in _events(trainer, job):
        if event.HasField("training_step"):
            _kill_if_running(job)
    status = trainer.GetTrainingJob(training_pb2.GetTrainingJobRequest(id=job), timeout=10).job.status
    assert (status.state, status.attempt) == (job_pb2.JobStatus.STATE_FAILED, 2)
    assert "SIGKILL" in status.error.message or "killed" in status.error.message


def _kill_if_running(job: str) -> None:
    try:
        _worker(job).kill()
    except (AssertionError, psutil.NoSuchProcess):
        return


def test_a_converter_killed_while_it_publishes_leaves_one_whole_version(
    conch: Conch, converter: conversion_pb2_grpc.ConversionServiceStub, sentiment: Shipped
) -> None:
    job = "killed-publisher"
    spec = conversion_pb2.ConversionSpec(
        checkpoint_uri=str(sentiment.checkpoint), model="survivor", num_parity_examples=32
    )
    converter.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(id=job, spec=spec), timeout=10)

    def watch(from_sequence: int) -> Iterator[job_pb2.JobEvent]:
        request = conversion_pb2.WatchConversionJobRequest(id=job, from_sequence=from_sequence)
        answers = converter.WatchConversionJob(request, timeout=WAIT_SECONDS, wait_for_ready=True)
        return (answer.event for answer in answers)

    killed = False
    for event in _follow(watch):
        if event.stage_started.name == "publish" and not killed:
            _kill_if_running(job)
            killed = True
    job_now = converter.GetConversionJob(conversion_pb2.GetConversionJobRequest(id=job), timeout=10).job
    assert killed
    assert job_now.status.state == job_pb2.JobStatus.STATE_SUCCEEDED
    folder = conch.home / "model_repository" / "survivor"
    assert sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "configs") == ["1"]
    manifest = json.loads((folder / "1" / "manifest.json").read_text(encoding="utf-8"))
    assert {f["path"]: f["sha256"] for f in manifest["files"]} == {
        f.path: f.sha256 for f in storage.describe(folder / "1")
    }


def test_when_triton_is_killed_under_load_callers_see_unavailable_or_success_and_it_recovers(
    conch: Conch, sentiment: Shipped
) -> None:
    stop, codes = threading.Event(), set()

    def call() -> None:
        with grpc.insecure_channel(conch.gateway) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            while not stop.is_set():
                request = inference_pb2.ClassifyRequest(model="sentiment", texts=["a film"])
                try:
                    stub.Classify(request, timeout=20)
                    codes.add(grpc.StatusCode.OK)
                except grpc.RpcError as error:
                    codes.add(error.code())
                    stop.wait(0.02)

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call) for _ in range(8)]
        os.kill(_service(conch, "triton"), signal.SIGKILL)
        wait_not_serving(conch.gateway, "conch.v1.InferenceService/sentiment")
        wait_serving(conch.gateway, "conch.v1.InferenceService/sentiment")
        stop.set()
        for caller in callers:
            caller.result()
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    with Client(conch.gateway) as client:
        assert client.classify(["a film"], model="sentiment").served_by.version == 1


def test_a_version_with_a_damaged_byte_is_never_served_and_the_old_route_holds(
    conch: Conch, sentiment: Shipped
) -> None:
    second = conch(
        "convert", str(sentiment.checkpoint), "--model", "sentiment", "--parity-examples", "32",
        "--target", "onnxruntime=fp32",
    )  # fmt: skip
    assert second
    weights = sentiment.versions / "2" / "model.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Exception, match="returned non-zero"):
        conch("route", "sentiment", "2=100")
    with Client(conch.gateway) as client:
        assert client.classify(["a film"], model="sentiment").served_by.version == 1
