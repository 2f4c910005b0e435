"""Causal language models in the converter: the portable graph, vLLM's files, configs, figures."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch.v1 import conversion_pb2, job_pb2, models_pb2
from services import storage
from services.converter import causal_export, checkpoint, logits, parity, teacher_forcing, triton_config
from services.converter.checkpoint import Checkpoint
from services.converter.decoder import DecoderRecipe
from services.converter.recipe import Stages
from services.errors import NotReady
from services.jobs.reporting import Reporter
from services.repository import signature
from services.tasks import Example
from services.tasks.base import SpecialTokens
from services.tasks.example import grouped
from services.tasks.forms import DECODER_FORMS
from services.tasks.text_generation.task import TextGeneration
from services.trainer import base_model, golden_texts
from tests import causal_models

GOLDEN = Path(__file__).parents[2] / "golden"
TASK = TextGeneration()
SERVED = {form.backend: form for form in DECODER_FORMS if form.pools}
KINDS = {"gpt2": causal_models.save_gpt2, "llama": causal_models.save_llama}
MAX_LENGTH = 48


def save_artifact(base: Path, folder: Path) -> str:
    """Writes what the trainer leaves of an untrained base model, and returns its URI."""
    facts = TASK.settle([], models_pb2.CheckpointManifest().task_spec)
    shutil.copytree(base, folder)
    base_model.save_tokenizer(str(base), folder, max_length=MAX_LENGTH, pads_with_eos=True)
    facts = TASK.with_special_tokens(facts, SpecialTokens("", causal_models.EOS, ""))
    examples = [Example(text, "", None, row) for row, text in enumerate(causal_models.documents(40), 1)]
    rows = [{"text": e.text, "text_pair": "", "target": None} for e in examples]
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)))
    encoder = checkpoint.Encoder.from_file(folder / "tokenizer.json", MAX_LENGTH)
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    golden = golden_texts.golden_texts(examples[:8], model, encoder, facts)
    (folder / "golden.json").write_text(json_format.MessageToJson(golden))
    manifest = models_pb2.CheckpointManifest(
        task=TASK.id, max_length=MAX_LENGTH, seed=7, task_spec=facts.spec
    )
    storage.upload(folder, str(folder), models_pb2.Manifest(checkpoint=manifest))
    return str(folder)


@pytest.fixture(scope="module", params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param)
    causal_models.seeded()
    uri = save_artifact(KINDS[request.param](folder / "base"), folder / "artifact")
    return checkpoint.load(uri, folder / "checkpoint")


@pytest.fixture(scope="module")
def graph(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    causal_export.export(source.model, TASK, max_length=MAX_LENGTH, path=path)
    return path


def test_the_graph_gives_torchs_logits_whichever_side_is_padded(source: Checkpoint, graph: Path) -> None:
    ids = np.random.default_rng(0).integers(5, 300, (3, 20))
    mask = np.ones_like(ids)
    mask[1, 9:], mask[2, :5] = 0, 0
    got = logits.of_onnx(graph)({"input_ids": ids, "attention_mask": mask})
    for row, kept in enumerate((slice(0, 20), slice(0, 9), slice(5, 20))):
        alone = ids[row : row + 1, kept]
        want = logits.of_torch(source.model)({"input_ids": alone, "attention_mask": np.ones_like(alone)})
        np.testing.assert_allclose(got[row, kept], want[0], atol=1e-5)


def target(runtime: str, precision: str = "FP32") -> conversion_pb2.Target:
    return conversion_pb2.Target(
        runtime=job_pb2.Runtime.Value(f"RUNTIME_{runtime}"),
        precision=job_pb2.Precision.Value(f"PRECISION_{precision}"),
    )


def held_of(source: Checkpoint) -> teacher_forcing.Held:
    run = logits.of_torch(source.model)
    return teacher_forcing.hold(source, run, num_examples=32, check=lambda: None)


def test_the_graph_is_certified_by_its_logits(source: Checkpoint, graph: Path, tmp_path: Path) -> None:
    held = held_of(source)
    rows = teacher_forcing.rows_of(held, logits.of_onnx(graph), lambda: None, held.reference)
    figures = TASK.compare(
        held.encoded, grouped(held.encoded, held.reference), grouped(held.encoded, rows), source.facts
    )
    verdict = parity.verdict(
        target("ONNXRUNTIME"), TASK, figures, [graph.name], 32, folder=graph.parent, limits={}
    )
    assert verdict.passed
    assert figures["max_abs_logit_difference"] < 1e-4


def test_another_model_is_not(source: Checkpoint) -> None:
    held = held_of(source)
    other = transformers.AutoModelForCausalLM.from_pretrained(source.folder)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    rows = teacher_forcing.rows_of(held, logits.of_torch(other), lambda: None, held.reference)
    figures = TASK.compare(
        held.encoded, grouped(held.encoded, held.reference), grouped(held.encoded, rows), source.facts
    )
    limits = TASK.limits(job_pb2.PRECISION_FP32)
    assert figures["max_abs_logit_difference"] > limits["max_abs_logit_difference"]
    assert figures["token_flip_rate"] > limits["token_flip_rate"]


def test_a_window_is_scored_alike_alone_and_padded_in_a_batch(source: Checkpoint) -> None:
    held = held_of(source)
    alone = teacher_forcing.Held(source, held.encoded, [[i] for i in range(len(held.windows))], [])
    rows = teacher_forcing.rows_of(alone, logits.of_torch(source.model), lambda: None)
    assert any(len(batch) > 4 for batch in held.batches)
    for ours, theirs in zip(rows, held.reference, strict=True):
        np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-4)


def recipe_for(source: Checkpoint, *targets: conversion_pb2.Target) -> DecoderRecipe:
    spec = conversion_pb2.ConversionSpec(model="writer", targets=targets, num_parity_examples=32)
    return DecoderRecipe(source, spec)


def test_vllms_form_is_the_checkpoint_itself_with_where_it_lies_in_the_repository(
    source: Checkpoint, tmp_path: Path
) -> None:
    recipe, folder = recipe_for(source, target("VLLM", "BF16")), tmp_path / "writer" / "3"
    folder.mkdir(parents=True)
    stages = Stages(Reporter(tmp_path / "spool"), recipe.num_stages(recipe._spec))
    recipe.build(folder, tmp_path, stages)
    arguments = json.loads((folder / "model.json").read_text())
    assert arguments == {"model": "writer/3/checkpoint", "dtype": "bfloat16", "max_model_len": MAX_LENGTH}
    transformers.AutoTokenizer.from_pretrained(tmp_path / arguments["model"])
    [verdict] = recipe.judge(folder, stages)
    assert {"model.json", "checkpoint/model.safetensors", "checkpoint/tokenizer.json"} <= set(verdict.files)
    figures = {figure.name: figure.value for figure in verdict.figures}
    assert 0 < figures["max_abs_logit_difference"] < 0.1
    assert set(figures) == set(TASK.limits(job_pb2.PRECISION_BF16))


def test_weights_that_write_other_texts_than_recorded_are_refused(source: Checkpoint, tmp_path: Path) -> None:
    recipe = recipe_for(source, target("VLLM", "BF16"))
    kept = [example.generated for example in source.golden.examples]
    try:
        for example in source.golden.examples:
            example.generated += " and more"
        with pytest.raises(NotReady) as caught:
            recipe.build(tmp_path, tmp_path, Stages(Reporter(tmp_path / "spool"), 3))
    finally:
        for example, text in zip(source.golden.examples, kept, strict=True):
            example.generated = text
    assert caught.value.reason == "GOLDEN_MISMATCH"


@pytest.mark.parametrize("backend", SERVED)
def test_the_config_is_the_golden_one(backend: str) -> None:
    """`make golden` writes what this compares with."""
    text = triton_config.config_text("text-generation", TASK, TASK.inputs, SERVED[backend])
    path = GOLDEN / f"text-generation.{backend}.pbtxt"
    if os.environ.get("CONCH_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    config = text_format.Parse(text, ModelConfig())
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0


def test_pools_of_all_kinds_describe_the_same_tensors(source: Checkpoint) -> None:
    configs = recipe_for(source, target("OPENVINO"), target("VLLM", "BF16")).configs("writer")
    assert set(configs) == {"config.pbtxt", "configs/openvino.pbtxt", "configs/vllm.pbtxt"}
    first, *others = [signature.read(text, source=path) for path, text in configs.items()]
    assert all(other == first for other in others)
    assert set(recipe_for(source, target("OPENVINO")).configs("writer")) == {
        "config.pbtxt",
        "configs/openvino.pbtxt",
    }
