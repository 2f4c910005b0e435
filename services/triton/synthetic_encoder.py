"""A BERT-like encoder with random weights as ONNX, for measuring where no version is published yet.

MiniLM's extents with half of its layers, inputs and outputs as text classification's. Knows ONNX;
its answers mean nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LAYERS, _HIDDEN, _HEADS, _INNER, _VOCABULARY, _LABELS = 3, 384, 12, 1536, 2000, 2


def write(path: Path) -> None:
    """Writes the encoder to `path` (28 MB); equal bytes every time."""
    onnx.save(_Builder().model(), path)


class _Builder:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self) -> Any:
        hidden = self._add("Gather", self._weight(_VOCABULARY, _HIDDEN), "input_ids")
        bias = self._mask_bias()
        for _ in range(_LAYERS):
            hidden = self._normalized(self._add("Add", hidden, self._attention(hidden, bias)))
            hidden = self._normalized(self._add("Add", hidden, self._feed_forward(hidden)))
        pooled = self._add("ReduceMean", hidden, self._constant([1]), keepdims=0)
        self._nodes.append(helper.make_node("MatMul", [pooled, self._weight(_HIDDEN, _LABELS)], ["logits"]))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "label"])]
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def _mask_bias(self) -> str:
        """Returns 0 where a token is, -10000 where padding is: (batch, 1, 1, sequence)."""
        mask = self._add("Cast", "attention_mask", to=TensorProto.FLOAT)
        wide = self._add("Unsqueeze", mask, self._constant([1, 2]))
        return self._add("Mul", self._add("Sub", self._scalar(1.0), wide), self._scalar(-10000.0))

    def _attention(self, hidden: str, bias: str) -> str:
        query, key, value = (self._split(self._dense(hidden, _HIDDEN, _HIDDEN)) for _ in range(3))
        key = self._add("Transpose", key, perm=[0, 1, 3, 2])
        scores = self._add("MatMul", query, key)
        scaled = self._add("Mul", scores, self._scalar((_HIDDEN / _HEADS) ** -0.5))
        weights = self._add("Softmax", self._add("Add", scaled, bias), axis=-1)
        mixed = self._add("Transpose", self._add("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self._dense(self._add("Reshape", mixed, self._constant([0, 0, _HIDDEN])), _HIDDEN, _HIDDEN)

    def _split(self, tensor: str) -> str:
        heads = self._add("Reshape", tensor, self._constant([0, 0, _HEADS, _HIDDEN // _HEADS]))
        return self._add("Transpose", heads, perm=[0, 2, 1, 3])

    def _feed_forward(self, hidden: str) -> str:
        inner = self._dense(hidden, _HIDDEN, _INNER)
        # GELU as PyTorch exports it.
        error = self._add("Erf", self._add("Mul", inner, self._scalar(2**-0.5)))
        half = self._add("Mul", inner, self._scalar(0.5))
        return self._dense(
            self._add("Mul", half, self._add("Add", error, self._scalar(1.0))), _INNER, _HIDDEN
        )

    def _dense(self, tensor: str, num_in: int, num_out: int) -> str:
        return self._add(
            "Add", self._add("MatMul", tensor, self._weight(num_in, num_out)), self._weight(num_out)
        )

    def _normalized(self, tensor: str) -> str:
        return self._add("LayerNormalization", tensor, self._weight(_HIDDEN), self._weight(_HIDDEN), axis=-1)

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def _weight(self, *shape: int) -> str:
        return self._initializer((self._rng.standard_normal(shape) * 0.02).astype(np.float32))

    def _constant(self, values: list[int]) -> str:
        return self._initializer(np.array(values, dtype=np.int64))

    def _scalar(self, value: float) -> str:
        return self._initializer(np.array(value, dtype=np.float32))

    def _initializer(self, array: Any) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name
