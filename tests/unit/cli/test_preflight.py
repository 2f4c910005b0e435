"""`conch preflight`: every sentence that stops an upgrade, all at once, and where Kubernetes shows it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from conch.v1 import models_pb2
from services.cli.__main__ import main
from tests.unit.repository.planned import H100, T4, publish, routes

Preflight = Callable[..., int]
POOLS = {
    "cpu": {"runtime": "openvino", "address": "triton-cpu:8001"},
    "gpu": {"runtime": "tensorrt", "tensorrt_version": H100[1]},
}


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return str(tmp_path / "repository")


@pytest.fixture
def preflight(tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch) -> Preflight:
    monkeypatch.setenv("CONCH_TERMINATION_LOG", str(tmp_path / "termination-log"))
    (tmp_path / "termination-log").touch()

    def run(
        wanted: models_pb2.Routes, *options: str, pools: Mapping[str, Any] = POOLS, uri: str = repository
    ) -> int:
        (tmp_path / "routes.json").write_text(json_format.MessageToJson(wanted))
        (tmp_path / "pools.json").write_text(json.dumps(pools))
        files = ["--routes", str(tmp_path / "routes.json"), "--pools", str(tmp_path / "pools.json")]
        return main(["preflight", *files, "--repository", uri, *options])

    return run


@pytest.fixture
def refused(
    preflight: Preflight, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., list[str]]:
    """Returns the sentences of a refusal, which are the same on stderr and in the termination log."""

    def run(*arguments: Any, code: int = 4, **others: Any) -> list[str]:
        assert preflight(*arguments, **others) == code
        first, *sentences = capsys.readouterr().err.splitlines()
        assert first.startswith("conch: preflight refuses these routes for ")
        assert (tmp_path / "termination-log").read_text().splitlines()[1:] == sentences
        return sentences

    return run


Refused = Callable[..., list[str]]


def test_good_routes_pass(
    preflight: Preflight, repository: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    publish(repository, 1)
    publish(repository, 2)
    publish(repository, model="topics")
    wanted = routes("sentiment@1", pool="cpu", shadow=2)
    wanted.MergeFrom(routes("topics@1", pool="cpu"))
    assert preflight(wanted) == 0
    assert capsys.readouterr().out == "preflight ok: 3 versions of 2 models\n"
    assert (tmp_path / "termination-log").read_text() == ""


def test_no_routes_pass(preflight: Preflight, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight(routes(), "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_every_problem_is_said_at_once(refused: Refused, repository: str) -> None:
    publish(repository, 1, certified=["onnxruntime"])
    publish(repository, 2, failed=["openvino"])
    wanted = routes("sentiment@1", "sentiment@2", "sentiment@9", pool="cpu")
    wanted.MergeFrom(routes("topics@1", pool="moon"))
    wanted.routes[0].versions[0].weight = 0
    assert refused(wanted) == [
        "- sentiment.versions: no version has a weight above 0: nobody would answer (INVALID_ROUTES)",
        "- sentiment@1 is not certified for openvino (CERTIFICATE_MISSING)",
        "- sentiment@2 on openvino failed its certificate: max_abs_logit_difference 0.5 is above 0.01 "
        "(CERTIFICATE_FAILED)",
        "- there is no version 9 of model sentiment (VERSION_NOT_FOUND)",
        '- topics: there is no pool "moon"; the pools are: cpu, gpu (POOL_UNKNOWN)',
    ]


def test_versions_that_do_not_exist_alone_end_with_3(refused: Refused) -> None:
    assert refused(routes("sentiment@1", pool="cpu"), code=3) == [
        "- there is no version 1 of model sentiment (VERSION_NOT_FOUND)"
    ]


def test_a_version_that_lacks_a_file_is_incomplete(refused: Refused, repository: str) -> None:
    publish(repository)
    (Path(repository) / "sentiment/1/openvino.onnx").unlink()
    assert refused(routes("sentiment@1", pool="cpu")) == [
        "- sentiment@1 is incomplete: openvino.onnx is missing (ARTIFACT_DAMAGED)"
    ]


def test_a_route_without_pool_is_of_the_only_one(
    preflight: Preflight, refused: Refused, repository: str
) -> None:
    publish(repository)
    assert preflight(routes("sentiment@1", pool=""), pools={"cpu": {"runtime": "openvino"}}) == 0
    [sentence] = refused(routes("sentiment@1", pool=""))
    assert sentence == "- sentiment: its route names no pool; the pools are: cpu, gpu (POOL_UNKNOWN)"


def test_pools_come_from_the_gateways_setting_too(
    tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository)
    (tmp_path / "routes.json").write_text(json_format.MessageToJson(routes("sentiment@1", pool="cpu")))
    monkeypatch.setenv("CONCH_POOLS", json.dumps(POOLS))
    monkeypatch.setenv("CONCH_ROUTES_FILE", str(tmp_path / "routes.json"))
    monkeypatch.setenv("CONCH_REPOSITORY_URI", repository)
    assert main(["preflight"]) == 0


def test_a_pool_of_gpus_is_told_by_what_each_model_would_be_served(
    preflight: Preflight, repository: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(repository, plans=[H100])
    publish(repository, model="topics")
    wanted = routes("sentiment@1", "topics@1")
    assert preflight(wanted) == 0
    assert capsys.readouterr().out.splitlines() == [
        "gpu: sentiment 1 by tensorrt on compute capability 9.0 and TensorRT 10.14.1.48",
        "gpu: sentiment 1 by onnxruntime elsewhere",
        "gpu: topics 1 by onnxruntime",
        "preflight ok: 2 versions of 2 models",
    ]
    unknown = {"gpu": {"runtime": "tensorrt"}}
    assert preflight(wanted, pools=unknown) == 0
    assert capsys.readouterr().out.splitlines()[0] == "gpu: sentiment 1 by onnxruntime"
    known = {"gpu": {"runtime": "tensorrt", "compute_capability": "7.5", "tensorrt_version": H100[1]}}
    assert preflight(wanted, pools=known) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "gpu: sentiment 1 by onnxruntime on compute capability 7.5 and TensorRT 10.14.1.48"


def test_a_pool_of_gpus_without_plan_or_twin_is_refused(refused: Refused, repository: str) -> None:
    publish(repository, plans=[T4], certified=["openvino", "tensorrt"])
    unknown = {"gpu": {"runtime": "tensorrt", "compute_capability": "7.5"}}
    [sentence] = refused(routes("sentiment@1"), pools=unknown)
    assert "TensorRT of unknown version, its plans are for 7.5" in sentence
    assert "sentiment@1 is not certified for onnxruntime" in sentence


def test_a_pool_that_cannot_serve_the_task_is_refused(refused: Refused, repository: str) -> None:
    publish(repository, task="text-generation")
    [sentence] = refused(routes("sentiment@1"))
    assert "pools of tensorrt cannot serve text-generation" in sentence


def test_a_pool_without_our_backends_is_no_place_for_what_needs_them(
    preflight: Preflight, refused: Refused, repository: str
) -> None:
    publish(repository, task="text2text-generation")
    wanted = routes("sentiment@1", pool="cpu")
    assert preflight(wanted) == 0
    [sentence] = refused(wanted, pools={"cpu": {"runtime": "openvino", "own_backends": False}})
    assert sentence == (
        "- sentiment@1 needs the backend seq2seq, which the pool cpu has not (BACKEND_MISSING)"
    )


def test_an_uncertified_version_must_hold_what_its_pool_reads(
    preflight: Preflight, refused: Refused, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, certified=[])
    publish(repository, model="writer", certified=[], task="text-generation")
    monkeypatch.setenv("CONCH_ALLOW_UNCERTIFIED", '["sentiment@1", "writer@1"]')
    assert preflight(routes("sentiment@1", pool="cpu")) == 0
    [sentence] = refused(routes("writer@1", pool="cpu"))
    assert sentence == "- writer@1 has no openvino/openvino_model.xml (FORM_MISSING)"


def test_a_store_that_does_not_answer_ends_with_5(
    preflight: Preflight, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONCH_STORE_PATIENCE_SECONDS", "0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert preflight(routes("sentiment@1", pool="cpu"), uri="s3://nowhere/models") == 5
    assert "storage did not answer" in (tmp_path / "termination-log").read_text()


def test_a_repository_that_can_be_none_is_a_usage_error(
    preflight: Preflight, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preflight(routes(), uri="http://models") == 2
    assert "'http://models' is no path and no URI of" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named(
    preflight: Preflight, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preflight(routes(), "--routes", str(tmp_path / "none.json")) == 3
    (tmp_path / "bad.json").write_text("{")
    assert preflight(routes(), "--pools", str(tmp_path / "bad.json")) == 2
    assert preflight(routes(), pools={"cpu": {"runtime": "cuda"}}) == 2
    assert "CONCH_POOLS_CPU_RUNTIME" in capsys.readouterr().err
    assert preflight(routes(), "--routes", str(tmp_path / "bad.json")) == 4
