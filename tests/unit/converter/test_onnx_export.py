"""The graph answers as the model does and says of itself what Triton's backends want to hear."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import transformers

from conch.v1 import job_pb2
from services.converter import onnx_export, parity, runtimes
from services.errors import NotReady
from services.tasks import find_task
from tests.unit.converter import checkpoints
from tests.unit.converter.conftest import Exported

TASK = find_task("text-classification")


@pytest.mark.parametrize("labels", ["two_labels", "five_labels"])
@pytest.mark.parametrize("shape", [(1, 2), (1, 48), (3, 17), (9, 5)])
def test_any_batch_and_sequence_answers_as_pytorch_does(
    labels: str, shape: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(labels)
    inputs = _random_inputs(shape)
    want = parity.torch_runner(exported.source.model, TASK.outputs)(inputs)["logits"]
    got = runtimes.open_graph(exported.portable, job_pb2.RUNTIME_ONNXRUNTIME)(inputs)["logits"]
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_models_with_two_and_five_labels_have_one_signature(
    two_labels: Exported, five_labels: Exported
) -> None:
    two, five = (onnx.load_model(e.portable) for e in (two_labels, five_labels))
    assert onnx_export.signature(two) == onnx_export.signature(five)
    assert onnx_export.signature(two)["logits"] == (onnx.TensorProto.FLOAT, ("batch", "label"))


def test_no_runtime_infers_the_number_of_labels(two_labels: Exported) -> None:
    """The stock backends compare the inferred shape, not the declared one, with config.pbtxt."""
    session = onnxruntime.InferenceSession(two_labels.portable, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["batch", "label"]
    shape = openvino.Core().read_model(two_labels.portable).outputs[0].get_partial_shape()
    assert [(dim.is_dynamic, dim.get_max_length()) for dim in shape] == [(True, -1)] * 2


@pytest.mark.parametrize("make", [checkpoints.distilbert, checkpoints.roberta])
def test_a_model_that_reads_no_token_types_is_exported_without_them(make, tmp_path: Path) -> None:
    model = make(["a", "b"])
    inputs = onnx_export.model_inputs(model, TASK)
    assert [spec.name for spec in inputs] == ["input_ids", "attention_mask"]
    path = tmp_path / "model.onnx"
    onnx_export.export(model, TASK, max_length=48, path=path)
    fed = {name: array for name, array in _random_inputs((3, 11)).items() if name != "token_type_ids"}
    want = parity.torch_runner(model, TASK.outputs)(fed)["logits"]
    got = runtimes.open_graph(path, job_pb2.RUNTIME_ONNXRUNTIME)(fed)["logits"]
    np.testing.assert_allclose(got, want, atol=3e-6)


def test_the_graph_is_one_file_that_onnxruntime_1_17_reads(two_labels: Exported) -> None:
    graph = onnx.load_model(two_labels.portable, load_external_data=False)
    assert graph.ir_version <= 9
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 20)]
    assert not any(weight.external_data for weight in graph.graph.initializer)


def test_nothing_of_this_machine_gets_into_the_graph(two_labels: Exported) -> None:
    content = two_labels.raw.read_bytes() + two_labels.portable.read_bytes()
    assert b"site-packages" not in content
    assert str(Path.cwd()).encode() not in content


def test_the_exporter_prints_nothing_and_leaves_the_model_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = checkpoints.bert(["a", "b"])
    attention = model.config._attn_implementation
    onnx_export.export(model, TASK, max_length=48, path=tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""
    assert model.config._attn_implementation == attention


def test_a_model_that_torch_cannot_trace_is_refused_with_its_name(tmp_path: Path) -> None:
    model = checkpoints.bert(["a", "b"])
    model.bert.forward = _untraceable  # type: ignore[method-assign]
    with pytest.raises(NotReady, match="BertForSequenceClassification") as refused:
        onnx_export.export(model, TASK, max_length=48, path=tmp_path / "model.onnx")
    assert refused.value.reason == "EXPORT_FAILED"


def test_a_model_past_two_gigabytes_is_refused_before_it_is_traced(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=1_000_000, num_hidden_layers=1)
        )
    with pytest.raises(NotReady) as refused:
        onnx_export.export(model, TASK, max_length=48, path=tmp_path / "model.onnx")
    assert refused.value.reason == "GRAPH_TOO_LARGE"


def _untraceable(*args: torch.Tensor, **kwargs: torch.Tensor) -> transformers.utils.ModelOutput:
    raise RuntimeError("a part of this model is not traceable")


def _random_inputs(shape: Sequence[int]) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(5)
    mask = np.ones(shape, dtype=np.int64)
    mask[-1, shape[1] // 2 + 1 :] = 0
    return {
        "input_ids": dice.integers(4, 16, shape),
        "attention_mask": mask,
        "token_type_ids": dice.integers(0, 2, shape),
    }
