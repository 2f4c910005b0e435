"""Text generation from a text file to Triton, writing as the trained model does at every precision."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from conch.v1 import conversion_pb2, job_pb2, models_pb2, tasks_pb2, training_pb2, worker_pb2
from services.converter import run as converter
from services.jobs.reporting import Reporter
from services.repository import staging, versions
from services.tasks.next_tokens import NUM_WRITTEN, text_mismatch_rate
from services.trainer.run import run as train
from tests import causal_models
from tests.integration.generation_models import generate
from tests.integration.triton import RunningTriton, started

MODEL = "writer"
PRECISIONS = {1: job_pb2.PRECISION_FP32, 2: job_pb2.PRECISION_INT8, 3: job_pb2.PRECISION_BF16}

ALLOWED = {job_pb2.PRECISION_FP32: 0.0, job_pb2.PRECISION_INT8: 0.5, job_pb2.PRECISION_BF16: 0.5}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with versions 1 (fp32, and its portable graph), 2 (int8) and 3 (bf16) of one model."""
    folder = tmp_path_factory.mktemp("writer")
    causal_models.seeded()
    base, data = causal_models.save_llama(folder / "base"), folder / "novel.txt"
    data.write_text("\n\n".join(causal_models.documents(160)))
    _train(folder, base, data)
    for version in PRECISIONS:
        _convert(folder, version)
    return folder / "repository"


def _train(folder: Path, base: Path, data: Path) -> None:
    own = tasks_pb2.TextGenerationSpec(adaptation=tasks_pb2.TextGenerationSpec.ADAPTATION_FULL)
    spec = training_pb2.TrainingSpec(
        task="text-generation",
        base_model=str(base),
        dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.2),
        hyperparameters=training_pb2.Hyperparameters(
            num_epochs=6, learning_rate=1e-2, batch_size=8, evaluations_per_epoch=1, num_threads=1
        ),
        task_spec=tasks_pb2.TaskSpec(text_generation=own),
    )
    order = worker_pb2.WorkOrder(
        job_id="writer",
        attempt=1,
        work_dir=str(folder / "train"),
        output_uri=str(folder / "checkpoint"),
        training=spec,
    )
    train(order, Reporter(folder / "train-spool"))


def _convert(folder: Path, version: int) -> None:
    targets = [conversion_pb2.Target(runtime=job_pb2.RUNTIME_OPENVINO, precision=PRECISIONS[version])]
    if version == 1:
        fp32 = job_pb2.PRECISION_FP32
        targets.append(conversion_pb2.Target(runtime=job_pb2.RUNTIME_ONNXRUNTIME, precision=fp32))
    order = worker_pb2.WorkOrder(
        job_id=f"writer-{version}",
        attempt=1,
        work_dir=str(folder / f"convert-{version}"),
        output_uri=str(folder / "repository"),
        version=version,
        conversion=conversion_pb2.ConversionSpec(
            checkpoint_uri=str(folder / "checkpoint"), model=MODEL, targets=targets, num_parity_examples=32
        ),
    )
    converter.run(order, Reporter(folder / f"spool-{version}"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """A Triton of the default pool."""
    with started(tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.mark.parametrize("version", PRECISIONS)
def test_triton_writes_the_golden_texts_as_the_trained_model_did(
    triton: RunningTriton, repository: Path, version: int
) -> None:
    weights = [models_pb2.WeightedVersion(version=version, weight=1)]
    staging.stage(
        models_pb2.Routes(routes=[models_pb2.Route(model=MODEL, versions=weights)]),
        repository_uri=str(repository),
        staged=triton.repository,
        runtime="onnxruntime",
    )
    triton.load(MODEL)
    text = (repository / MODEL / str(version) / "golden.json").read_text()
    golden = json_format.Parse(text, models_pb2.GoldenExamples()).examples
    written = [
        generate(triton, MODEL, example.text, temperature=0, max_tokens=NUM_WRITTEN).text
        for example in golden
    ]
    mismatches = text_mismatch_rate([example.generated for example in golden], written)
    assert mismatches <= ALLOWED[PRECISIONS[version]]


def test_each_version_is_certified_for_every_file_that_the_engine_reads(repository: Path) -> None:
    for version, precision in PRECISIONS.items():
        found = versions.read_version(str(repository), MODEL, version)
        verdicts = {verdict.runtime: verdict for verdict in found.certificate.verdicts}
        engine = verdicts[job_pb2.RUNTIME_OPENVINO]
        assert (engine.precision, engine.passed) == (precision, True)
        assert {"openvino/openvino_model.xml", "openvino/openvino_model.bin"} <= set(engine.files)
        assert {"openvino/tokenizer.json", "openvino/properties.json"} <= set(engine.files)
