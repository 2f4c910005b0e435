"""Cleaning a graph up makes it smaller and changes no answer."""

import numpy as np
import onnx

from conch.v1 import job_pb2
from services.converter import optimize, parity, runtimes
from services.tasks.tensors import stacked
from tests.unit.converter.conftest import Exported


def test_folding_and_merging_change_no_answer(five_labels: Exported) -> None:
    held = parity.hold(five_labels.source, five_labels.inputs, num_examples=64, check=lambda: None)
    before, after = (
        parity.run_batches(held.plan, runtimes.open_graph(path, job_pb2.RUNTIME_ONNXRUNTIME), lambda: None)
        for path in (five_labels.raw, five_labels.portable)
    )
    np.testing.assert_allclose(stacked(after, "logits"), stacked(before, "logits"), rtol=0, atol=5e-7)


def test_the_graph_gets_smaller(five_labels: Exported) -> None:
    before, after = (onnx.load_model(p).graph for p in (five_labels.raw, five_labels.portable))
    assert len(after.node) < 0.6 * len(before.node)
    assert len(after.initializer) < len(before.initializer)


def test_the_portable_graph_has_standard_operators_only(five_labels: Exported) -> None:
    assert optimize.foreign_operators(onnx.load_model(five_labels.portable)) == set()
