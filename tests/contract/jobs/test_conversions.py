"""What is particular to conversion jobs: version numbers, and a database shared with the trainer."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from conch.v1 import conversion_pb2, job_pb2, models_pb2
from services import storage
from tests.contract.jobs.conftest import Start
from tests.contract.jobs.running import Service

_S = job_pb2.JobStatus


@pytest.fixture
def converter(start: Start) -> Iterator[Service]:
    return start("converter")


@pytest.fixture
def spec(tmp_path: Path) -> conversion_pb2.ConversionSpec:
    """A spec whose worker does nothing but succeed."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "script.jsonl").write_text(json.dumps({"warn": 1}))
    content = models_pb2.CheckpointManifest(task="text-classification", labels=["a", "b"])
    storage.upload(folder, str(folder), models_pb2.Manifest(checkpoint=content))
    return conversion_pb2.ConversionSpec(checkpoint_uri=str(folder), model="sentiment")


def finish(converter: Service, job_id: str) -> conversion_pb2.ConversionJob:
    request = conversion_pb2.WatchConversionJobRequest(id=job_id)
    for _ in converter.conversion.WatchConversionJob(request, timeout=60):
        pass
    return converter.conversion.GetConversionJob(conversion_pb2.GetConversionJobRequest(id=job_id)).job


def test_conversions_created_at_once_get_numbers_of_their_own_above_the_published_ones(
    converter: Service, spec: conversion_pb2.ConversionSpec
) -> None:
    # A leftover without manifest takes its number with it.
    for number in ("2", "7"):
        (converter.home / "repository" / "sentiment" / number).mkdir(parents=True)

    def create(i: int) -> str:
        request = conversion_pb2.CreateConversionJobRequest(id=f"c{i}", spec=spec)
        return converter.conversion.CreateConversionJob(request).job.id

    with ThreadPoolExecutor(3) as pool:
        jobs = [finish(converter, job_id) for job_id in pool.map(create, range(3))]
    assert {job.status.state for job in jobs} == {_S.STATE_SUCCEEDED}
    assert {job.result.version for job in jobs} == {8, 9, 10}


def test_a_profile_that_is_not_there_is_refused_by_name(
    converter: Service, spec: conversion_pb2.ConversionSpec
) -> None:
    spec.profile = "no-such"
    with pytest.raises(grpc.RpcError) as caught:
        converter.conversion.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(spec=spec))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "spec.profile: " in caught.value.details()


def test_another_attempt_works_on_the_same_version(
    converter: Service, spec: conversion_pb2.ConversionSpec
) -> None:
    script = Path(spec.checkpoint_uri) / "script.jsonl"
    script.write_text(json.dumps({"attempt": 1, "end": "kill"}))
    converter.conversion.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(id="c", spec=spec))
    job = finish(converter, "c")
    assert (job.status.attempt, job.result.version) == (2, 1)


def test_trainer_and_converter_share_a_database_and_see_their_own_jobs_alone(
    start: Start, spec: conversion_pb2.ConversionSpec
) -> None:
    with ThreadPoolExecutor(2) as pool:
        trainer, converter = pool.map(start, ["trainer", "converter"])
    trainer.train([], job_id="t")
    converter.conversion.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(id="c", spec=spec))
    assert trainer.finish("t").status.state == _S.STATE_SUCCEEDED
    assert finish(converter, "c").status.state == _S.STATE_SUCCEEDED
    listed = converter.conversion.ListConversionJobs(conversion_pb2.ListConversionJobsRequest())
    assert [job.id for job in listed.jobs] == ["c"]
    with pytest.raises(grpc.RpcError) as caught:
        trainer.job("c")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        converter.conversion.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(id="t", spec=spec))
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


def test_a_conversion_is_cancelled_and_deleted_like_any_job(
    converter: Service, spec: conversion_pb2.ConversionSpec
) -> None:
    (Path(spec.checkpoint_uri) / "script.jsonl").write_text(json.dumps({"until_cancelled": 1}))
    converter.conversion.CreateConversionJob(conversion_pb2.CreateConversionJobRequest(id="c", spec=spec))
    converter.conversion.CancelConversionJob(conversion_pb2.CancelConversionJobRequest(id="c"))
    assert finish(converter, "c").status.state == _S.STATE_CANCELLED
    converter.conversion.DeleteConversionJob(conversion_pb2.DeleteConversionJobRequest(id="c"))
    listed = converter.conversion.ListConversionJobs(conversion_pb2.ListConversionJobsRequest())
    assert list(listed.jobs) == []
