"""`conch stage` as an init container runs it: by its environment, with its exit codes and what it tells."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from services.cli.__main__ import main
from tests.cluster.api_server import ApiServer
from tests.unit.repository.planned import H100, T4, publish, routes

Stage = Callable[..., int]


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return str(tmp_path / "repository")


@pytest.fixture
def stage(tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Runs the verb in the environment that the chart gives it, with `names` routed."""
    variables = {
        "POOL": "gpu",
        "ROUTES_FILE": str(tmp_path / "routes.json"),
        "STAGED": str(tmp_path / "staged"),
        "REPOSITORY_URI": repository,
        "RUNTIME": "tensorrt",
        "COMPUTE_CAPABILITY": "9.0",
        "TENSORRT_VERSION": "10.14.1.48",
        "TERMINATION_LOG": str(tmp_path / "termination-log"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"CONCH_{name}", value)
    (tmp_path / "termination-log").touch()

    def run(*names: str, options: tuple[str, ...] = ()) -> int:
        (tmp_path / "routes.json").write_text(json_format.MessageToJson(routes(*names)))
        return main(["stage", *options])

    return run


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster that knows this pod."""
    with ApiServer() as api:
        for name, value in {
            "KUBERNETES_URL": api.url,
            "POD_NAME": "pod-1",
            "POD_NAMESPACE": "models",
            "POD_UID": "uid-1",
        }.items():
            monkeypatch.setenv(f"CONCH_{name}", value)
        yield api


def status(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "staged" / "stage.json").read_text())
    return found


def told(api: ApiServer) -> dict[str, str]:
    """Returns the messages of the pod's events by their reason."""
    return {event["reason"]: event["message"] for event in api.objects.all("Event", "models")}


def test_a_pod_gets_what_its_pool_serves(
    stage: Stage, repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], pod: ApiServer
) -> None:
    publish(repository, plans=[H100])
    assert stage("sentiment@1") == 0
    printed = capsys.readouterr()
    assert printed.out == "staged 1 version of 1 model for the pool gpu\n"
    assert "this pod has compute capability 9.0 and TensorRT 10.14.1.48" in printed.err
    assert "sentiment@1: plans/sm90-10.14.1.48.plan, 0.0 MB" in printed.err
    [model] = status(tmp_path)["models"]
    assert (model["runtime"], model["versions"]) == ("tensorrt", [1])
    assert pod.calls == []


def test_with_nothing_to_stage_the_pod_starts_empty(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage() == 0
    assert capsys.readouterr().out == "staged 0 versions of 0 models for the pool gpu\n"
    assert status(tmp_path)["models"] == []


def test_options_go_before_the_environment(stage: Stage, repository: str, tmp_path: Path) -> None:
    publish(repository)
    assert stage("sentiment@1", options=("--runtime", "openvino")) == 0
    assert status(tmp_path)["runtime"] == "openvino"
    assert (tmp_path / "staged/sentiment/1/openvino.onnx").is_file()


def test_an_unfit_plan_is_told_as_an_event_and_the_twin_serves(
    stage: Stage, repository: str, tmp_path: Path, pod: ApiServer
) -> None:
    publish(repository, plans=[T4])
    assert stage("sentiment@1") == 0
    [message] = told(pod).values()
    assert list(told(pod)) == ["PlanUnfit"]
    assert "this pod has compute capability 9.0 and TensorRT 10.14.1.48, its plans are for 7.5" in message
    [model] = status(tmp_path)["models"]
    assert (model["runtime"], model["fallback"]) == ("onnxruntime", message.partition(": ")[2])


def test_bad_versions_are_told_and_no_reason_to_fail(
    stage: Stage, repository: str, pod: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(repository, certified=[])
    publish(repository, model="topics")
    assert stage("sentiment@1", "topics@1", options=("--json",)) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(m["model"], m["versions"]) for m in record["models"]] == [("sentiment", []), ("topics", [1])]
    assert record["models"][0]["left_out"][0]["reason"] == "CERTIFICATE_MISSING"
    assert "sentiment@1 has no certificate" in told(pod)["VersionLeftOut"]
    assert told(pod)["ModelLeftOut"].startswith("no version of sentiment could be staged")


def test_a_store_that_does_not_answer_ends_with_5_and_its_reason(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: ApiServer
) -> None:
    monkeypatch.setenv("CONCH_STORE_PATIENCE_SECONDS", "0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert stage("sentiment@1", options=("--repository", "s3://nowhere/models")) == 5
    assert "storage did not answer" in (tmp_path / "termination-log").read_text()
    assert "storage did not answer" in told(pod)["StoreUnavailable"]
    assert not (tmp_path / "staged" / "stage.json").exists()


def test_routes_that_are_none_are_a_usage_error(stage: Stage, tmp_path: Path) -> None:
    assert stage(options=("--routes", str(tmp_path / "none.json"))) == 3
    (tmp_path / "broken.json").write_text("{")
    assert stage(options=("--routes", str(tmp_path / "broken.json"))) == 2
    assert "is no conch.v1.Routes" in (tmp_path / "termination-log").read_text()


def test_a_missing_or_wrong_setting_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(options=("--runtime", "cuda")) == 2
    assert "CONCH_RUNTIME" in capsys.readouterr().err
    monkeypatch.delenv("CONCH_POOL")
    assert stage() == 2
    assert "CONCH_POOL: Field required" in capsys.readouterr().err


@pytest.mark.parametrize(("gpus", "runtime"), [("9.0\n9.0\n", "tensorrt"), ("9.0\n7.5\n", "onnxruntime")])
def test_auto_asks_nvidia_smi(
    stage: Stage, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, runtime: str
) -> None:
    publish(repository, plans=[H100])
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] && printf "{gpus}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert stage("sentiment@1", options=("--compute-capability", "auto")) == 0
    [model] = status(tmp_path)["models"]
    assert model["runtime"] == runtime
    if runtime == "onnxruntime":
        assert "compute capability 7.5 and 9.0" in model["fallback"]


def test_without_a_gpu_the_twin_serves(
    stage: Stage, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, plans=[H100])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stage("sentiment@1", options=("--compute-capability", "auto")) == 0
    assert "this pod has no GPU" in status(tmp_path)["models"][0]["fallback"]
