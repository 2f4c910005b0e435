"""config.pbtxt is what the task's TensorSpecs say, in the words of the official backends."""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from services.converter import triton_config
from services.tasks import find_task
from services.tasks.forms import ENCODER_FORMS

GOLDEN = Path(__file__).parents[2] / "golden"
TASK = find_task("text-classification")
FORMS = {form.backend: form for form in ENCODER_FORMS}


@pytest.mark.parametrize("runtime", FORMS)
def test_the_config_is_the_golden_one(runtime: str) -> None:
    """`make golden` writes what this compares with."""
    text = triton_config.config_text("text-classification", TASK, TASK.inputs, FORMS[runtime])
    path = GOLDEN / f"text-classification.{runtime}.pbtxt"
    if os.environ.get("CONCH_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_onnxruntime_batches_and_openvino_keeps_the_batch_axis_free() -> None:
    ours, openvino = _config("onnxruntime"), _config("openvino")
    assert (ours.max_batch_size, ours.HasField("dynamic_batching")) == (64, True)
    assert (openvino.max_batch_size, openvino.HasField("dynamic_batching")) == (0, False)
    assert {tuple(tensor.dims) for tensor in (*ours.input, *ours.output)} == {(-1,)}
    assert {tuple(tensor.dims) for tensor in (*openvino.input, *openvino.output)} == {(-1, -1)}


@pytest.mark.parametrize("runtime", FORMS)
def test_warm_up_feeds_every_input_with_extents_that_triton_can_make(runtime: str) -> None:
    config = _config(runtime)
    for sample in config.model_warmup:
        assert set(sample.inputs) == {tensor.name for tensor in config.input}
        assert all(dim > 0 for tensor in sample.inputs.values() for dim in tensor.dims)
        # Triton's own rule: models without a batch axis take samples of batch size 1.
        assert sample.batch_size == 1 or config.max_batch_size >= sample.batch_size


def test_a_model_with_fewer_inputs_is_asked_for_fewer() -> None:
    text = triton_config.config_text("m", TASK, TASK.inputs[:2], FORMS["onnxruntime"])
    assert "token_type_ids" not in text


def _config(runtime: str) -> ModelConfig:
    text = triton_config.config_text("text-classification", TASK, TASK.inputs, FORMS[runtime])
    return text_format.Parse(text, ModelConfig())
