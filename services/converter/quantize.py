"""Dynamic int8 quantization: weights per channel ahead of time, activations while running.

Knows onnxruntime's quantizer; knows nothing about parity. The result uses standard ONNX operators, but
is meant for onnxruntime alone.
"""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

# Matrix products alone: embeddings gain nothing, and fused attention would hide its products.
_OPERATORS = ["MatMul", "Gemm"]


def quantize(source: Path, target: Path) -> None:
    """Writes the fp32 graph at `source` to `target` with int8 weights."""
    # Its one message asks for onnxruntime's own pre-processing, whose place `optimize` takes.
    logging.getLogger().addFilter(_is_not_preprocessing_advice)
    try:
        quantize_dynamic(
            _without_initializer_shapes(source),
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=_OPERATORS,
        )
    finally:
        logging.getLogger().removeFilter(_is_not_preprocessing_advice)
    onnx.checker.check_model(str(target))


def _without_initializer_shapes(source: Path) -> onnx.ModelProto:
    """Returns the graph without value_info of initializers, which the quantizer leaves behind stale."""
    graph = onnx.load_model(source)
    weights = {weight.name for weight in graph.graph.initializer}
    kept = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)
    return graph


def _is_not_preprocessing_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
