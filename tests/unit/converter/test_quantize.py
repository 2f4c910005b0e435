"""int8 holds the weights of matrix products per channel and answers nearly the same."""

from pathlib import Path

import numpy as np
import onnx

from conch.v1 import job_pb2
from services.converter import parity, quantize, runtimes
from tests.unit.converter.conftest import Exported


def test_every_matrix_product_with_weights_becomes_int8_per_channel(
    two_labels: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    quantize.quantize(two_labels.portable, path)
    graph = onnx.load_model(path).graph
    kinds = [node.op_type for node in graph.node]
    # Two layers of q, k, v, output and two feed-forward products; pooler and classifier.
    assert kinds.count("MatMulInteger") == 2 * 6 + 2
    assert kinds.count("MatMul") == 2 * 2, "query x key and scores x value have no weights"
    scales = [weight for weight in graph.initializer if weight.name.endswith("_scale")]
    assert any(list(scale.dims) == [64] for scale in scales), "one scale a channel"


def test_int8_answers_nearly_as_fp32_does(two_labels: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    quantize.quantize(two_labels.portable, path)
    rows = two_labels.source.encoder.encode(["good long story", "bad"])
    batch = parity.batch_of(rows, two_labels.source.encoder, two_labels.inputs, step=1)
    want, got = (
        runtimes.open_graph(p, job_pb2.RUNTIME_ONNXRUNTIME)(batch)["logits"]
        for p in (two_labels.portable, path)
    )
    assert 0 < np.abs(got - want).max() < 0.05
