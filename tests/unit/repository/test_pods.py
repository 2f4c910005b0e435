"""What a pod of a pool holds: what its routes name, in the form that fits, a bad version beside none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from conch.v1 import models_pb2
from services.errors import NotReady
from services.repository import certificates, pods, versions
from services.repository.choosing import Pool
from services.repository.plans import Device
from services.repository.pods import StagedModel

from .planned import CONFIGS, H100, T4, publish, routes

Stage = Callable[..., list[StagedModel]]
TENSORRT = Pool("tensorrt", Device(*H100))


@pytest.fixture
def stage(tmp_path: Path, repository: str) -> Stage:
    def run(
        wanted: models_pb2.Routes, pool: Pool = TENSORRT, *, name: str = "gpu", said: list[str] | None = None
    ) -> list[StagedModel]:
        return pods.stage_pool(
            wanted,
            name,
            pool,
            repository_uri=repository,
            staged=tmp_path / "staged",
            say=(said if said is not None else []).append,
        )

    return run


def held(tmp_path: Path, model: str = "sentiment") -> list[str]:
    """Returns the files of a staged model."""
    folder = tmp_path / "staged" / model
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def config(tmp_path: Path, path: str) -> ModelConfig:
    return text_format.Parse((tmp_path / "staged" / "sentiment" / path).read_text(), ModelConfig())


SMALL = ["certificate.json", "golden.json", "manifest.json", "tokenizer.json"]


def below(version: int, *names: str) -> list[str]:
    return sorted(f"{version}/{name}" for name in (*SMALL, *names))


@pytest.mark.parametrize(("runtime", "graph"), [("onnxruntime", "model.onnx"), ("openvino", "openvino.onnx")])
def test_a_pod_holds_the_files_of_its_runtime_and_no_others(
    stage: Stage, repository: str, tmp_path: Path, runtime: str, graph: str
) -> None:
    publish(repository, plans=[H100])
    [found] = stage(routes("sentiment@1"), Pool(runtime))
    assert (found.versions, found.runtime, found.left_out) == ((1,), runtime, {})
    own = ["configs/openvino.pbtxt"] if runtime == "openvino" else []
    assert held(tmp_path) == [*below(1, graph), "config.pbtxt", *own]


def test_a_pod_holds_its_own_pools_versions_those_without_weight_and_shadows_too(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        publish(repository, version)
    publish(repository, model="topics")
    wanted = routes("sentiment@1", "sentiment@2", shadow=3)
    wanted.MergeFrom(routes("topics@1", pool="other"))
    found = stage(wanted, Pool("onnxruntime"))
    assert [(one.model, one.versions) for one in found] == [("sentiment", (1, 2, 3))]
    assert not (tmp_path / "staged" / "topics").exists()
    stage(routes("sentiment@2"), Pool("onnxruntime"))
    assert held(tmp_path) == [*below(2, "model.onnx"), "config.pbtxt"]


def test_the_plan_that_fits_the_pod_is_staged_where_the_backend_looks(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    publish(repository, plans=[T4, H100])
    [found] = stage(routes("sentiment@1"))
    assert (found.runtime, found.fallback) == ("tensorrt", "")
    assert held(tmp_path) == [*below(1, "model.plan"), "config.pbtxt", "configs/tensorrt.pbtxt"]
    assert (
        tmp_path / "staged/sentiment/1/model.plan"
    ).read_bytes() == b"plan plans/sm90-10.14.1.48.plan of 1"
    assert config(tmp_path, "configs/tensorrt.pbtxt").backend == "tensorrt"


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        (
            Device(*T4),
            "this pod has compute capability 7.5 and TensorRT 10.14.1.48, its plans are for 9.0 with",
        ),
        (Device("9.0", "10.9.0.34"), "this pod has compute capability 9.0 and TensorRT 10.9.0.34"),
        (Device("9.0"), "TensorRT of unknown version"),
        (Device("", "10.14.1.48"), "this pod has no GPU"),
    ],
)
def test_where_no_plan_fits_the_onnx_twin_is_served_in_its_place(
    stage: Stage, repository: str, tmp_path: Path, device: Device, sentence: str
) -> None:
    publish(repository, plans=[H100])
    [found] = stage(routes("sentiment@1"), Pool("tensorrt", device))
    assert (found.runtime, found.versions) == ("onnxruntime", (1,))
    assert sentence in found.fallback
    assert held(tmp_path) == [*below(1, "model.onnx"), "config.pbtxt", "configs/tensorrt.pbtxt"]
    assert config(tmp_path, "configs/tensorrt.pbtxt").backend == "onnxruntime"


@pytest.mark.parametrize(("gpu", "kind"), [("7.5", "KIND_GPU"), ("", "KIND_CPU")])
def test_a_twin_computes_on_the_gpu_in_fp32_if_there_is_one(
    stage: Stage, repository: str, tmp_path: Path, gpu: str, kind: str
) -> None:
    publish(repository)
    stage(routes("sentiment@1"), Pool("tensorrt", Device(gpu)))
    made = config(tmp_path, "configs/tensorrt.pbtxt")
    assert [ModelInstanceGroup.Kind.Name(group.kind) for group in made.instance_group] == [kind]
    options = made.optimization.execution_accelerators.gpu_execution_accelerator
    assert [dict(option.parameters) for option in options] == ([{"use_tf32": "0"}] if gpu else [])
    assert config(tmp_path, "config.pbtxt").instance_group[0].kind == ModelInstanceGroup.KIND_CPU


def test_a_configuration_that_is_none_is_said_of_the_version(stage: Stage, repository: str) -> None:
    publish(repository)
    (Path(repository) / "sentiment/config.pbtxt").write_bytes(b"\xff{")
    [found] = stage(routes("sentiment@1"))
    assert found.left_out[1].reason == "CONFIG_DAMAGED"


def test_one_version_without_plan_takes_its_whole_model_to_the_twins(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    publish(repository, 1, plans=[H100])
    publish(repository, 2)
    publish(repository, 1, model="topics", plans=[H100])
    found = stage(routes("sentiment@1", "sentiment@2", "topics@1"))
    assert [(one.model, one.runtime, one.versions) for one in found] == [
        ("sentiment", "onnxruntime", (1, 2)),
        ("topics", "tensorrt", (1,)),
    ]
    assert "sentiment@2: this pod has" in found[0].fallback
    assert "it has no plan" in found[0].fallback


def test_the_form_that_serves_most_versions_is_taken(stage: Stage, repository: str) -> None:
    publish(repository, 1, plans=[H100])
    publish(repository, 2, plans=[H100], certified=["tensorrt"])
    publish(repository, 3, certified=["onnxruntime"])
    [found] = stage(routes("sentiment@1", "sentiment@2", "sentiment@3"))
    assert (found.runtime, found.versions) == ("tensorrt", (1, 2))
    assert found.left_out[3].reason == "PLAN_UNFIT"


def test_a_plan_without_certificate_is_never_staged(stage: Stage, repository: str) -> None:
    publish(repository, plans=[H100], failed=["tensorrt"])
    [found] = stage(routes("sentiment@1"))
    assert found.runtime == "onnxruntime"
    assert "sentiment@1 on tensorrt failed its certificate" in found.fallback


def test_a_plan_that_is_damaged_gives_way_to_its_twin(stage: Stage, repository: str, tmp_path: Path) -> None:
    publish(repository, plans=[H100])
    plan = Path(repository) / "sentiment/1/plans/sm90-10.14.1.48.plan"
    plan.chmod(0o644)
    plan.write_bytes(b"?")
    [found] = stage(routes("sentiment@1"))
    assert (found.runtime, found.versions) == ("onnxruntime", (1,))
    assert "sm90-10.14.1.48.plan is damaged" in found.fallback
    assert held(tmp_path) == [*below(1, "model.onnx"), "config.pbtxt", "configs/tensorrt.pbtxt"]


def test_neither_plan_nor_twin_says_both_reasons(stage: Stage, repository: str) -> None:
    publish(repository, plans=[T4], certified=["tensorrt"])
    [found] = stage(routes("sentiment@1"))
    assert found.versions == ()
    assert "its plans are for 7.5" in str(found.left_out[1])
    assert "is not certified for onnxruntime" in str(found.left_out[1])


def test_a_model_without_tensorrt_configuration_is_served_by_its_twin(stage: Stage, repository: str) -> None:
    texts = {path: text for path, text in CONFIGS.items() if "tensorrt" not in path}
    publish(repository, plans=[H100], configs=texts)
    [found] = stage(routes("sentiment@1"))
    assert found.runtime == "onnxruntime"
    assert "has no configs/tensorrt.pbtxt" in found.fallback


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])
def test_pools_of_tensorrt_serve_encoders_alone(stage: Stage, repository: str, task: str) -> None:
    publish(repository, task=task)
    [found] = stage(routes("sentiment@1"))
    assert found.versions == ()
    assert f"pools of tensorrt cannot serve {task}" in str(found.left_out[1])


def test_bad_versions_are_left_out_and_keep_no_good_one_from_starting(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    for version in (1, 2):
        publish(repository, version)
    publish(repository, 3, certified=[])
    publish(repository, 4, failed=["openvino"])
    graph = Path(repository) / "sentiment/2/openvino.onnx"
    graph.chmod(0o644)
    graph.write_bytes(b"?")
    [found] = stage(routes(*(f"sentiment@{n}" for n in (1, 2, 3, 4, 5))), Pool("openvino"))
    assert found.versions == (1,)
    assert {number: error.reason for number, error in found.left_out.items()} == {
        2: "ARTIFACT_DAMAGED",
        3: "CERTIFICATE_MISSING",
        4: "CERTIFICATE_FAILED",
        5: "VERSION_NOT_FOUND",
    }
    assert held(tmp_path)[: len(SMALL) + 1] == below(1, "openvino.onnx")


def test_a_damaged_file_of_another_runtime_does_not_matter(stage: Stage, repository: str) -> None:
    publish(repository)
    (Path(repository) / "sentiment/1/model.onnx").unlink()
    [found] = stage(routes("sentiment@1"), Pool("openvino"))
    assert found.versions == (1,)


def test_a_model_without_any_version_keeps_an_empty_place(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    publish(repository, 1)
    stage(routes("sentiment@1"))
    stage(routes("sentiment@7"))
    assert held(tmp_path) == ["config.pbtxt"]
    assert stage(routes()) == []
    assert not (tmp_path / "staged/sentiment").exists()


def test_a_name_that_is_none_makes_no_folder(stage: Stage, tmp_path: Path) -> None:
    [found] = stage(routes("../evil@1"))
    assert found.left_out[1].reason == "BAD_MODEL_NAME"
    assert not (tmp_path / "evil").exists()


def test_a_version_that_is_named_needs_no_certificate(stage: Stage, repository: str, tmp_path: Path) -> None:
    publish(repository, certified=[])
    allowed = Pool("openvino", allow_uncertified=frozenset({"sentiment@1"}))
    [found] = stage(routes("sentiment@1"), allowed)
    assert found.versions == (1,)
    assert "1/openvino.onnx" in held(tmp_path)


def test_staging_again_brings_nothing(stage: Stage, repository: str, tmp_path: Path) -> None:
    publish(repository, plans=[H100])
    said: list[str] = []
    stage(routes("sentiment@1"), said=said)
    assert "sentiment@1: plans/sm90-10.14.1.48.plan, 0.0 MB" in said
    paths = [path for path in (tmp_path / "staged/sentiment").rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in paths}
    said.clear()
    stage(routes("sentiment@1"), said=said)
    assert said == []
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_what_a_killed_run_brought_is_kept_if_it_is_whole(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    publish(repository)
    partial = tmp_path / "staged/sentiment/.1.partial"
    partial.mkdir(parents=True)
    (partial / "openvino.onnx").write_bytes(b"openvino")
    (partial / "tokenizer.json").write_bytes(b"ha")
    (partial / ".golden.json.12.partial").write_bytes(b"ha")
    said: list[str] = []
    stage(routes("sentiment@1"), Pool("openvino"), said=said)
    assert [sentence.split(",")[0] for sentence in said] == [
        f"sentiment@1: {name}.json" for name in ("certificate", "golden", "tokenizer")
    ]
    assert held(tmp_path) == [*below(1, "openvino.onnx"), "config.pbtxt", "configs/openvino.pbtxt"]


def test_a_place_that_cannot_be_written_is_no_fault_of_a_version(
    stage: Stage, repository: str, tmp_path: Path
) -> None:
    publish(repository)
    (tmp_path / "staged").write_text("a file")
    with pytest.raises(NotReady, match="cannot read or write") as caught:
        stage(routes("sentiment@1"))
    assert caught.value.reason == "UNUSABLE_URI"


def test_a_pool_of_tensorrt_may_serve_by_plan_or_by_twin(repository: str) -> None:
    publish(repository, 1, plans=[T4, H100])
    publish(repository, 2, plans=[H100], failed=["tensorrt"])
    publish(repository, 3, plans=[H100], certified=["openvino"])
    both, twin, none = (versions.read_version(repository, "sentiment", n) for n in (1, 2, 3))
    assert certificates.check(both, "tensorrt").runtime == 3
    assert certificates.check(twin, "tensorrt").runtime == 1
    with pytest.raises(NotReady, match="not certified for onnxruntime"):
        certificates.check(none, "tensorrt")
