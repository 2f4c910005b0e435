"""Graph clean-up that changes no answer: constants folded, duplicates merged, dead nodes dropped.

Standard ONNX operators only, so that onnxruntime, OpenVINO and TensorRT read the same file. Fusions
into onnxruntime's own operators are left to onnxruntime, which makes them while it loads.
"""

from pathlib import Path

import onnx
import onnx_ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer

from services.converter.onnx_export import IR_VERSION

_STANDARD_DOMAINS = ("", "ai.onnx")


def optimize(source: Path, target: Path) -> None:
    """Writes the graph at `source`, cleaned up, to `target`."""
    model = onnx_ir.load(source)
    optimizer.optimize_ir(model)
    for clean in (
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        clean(model)
    proto = onnx_ir.to_proto(model)
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    onnx.checker.check_model(proto)
    onnx.save_model(proto, target)


def foreign_operators(graph: onnx.ModelProto) -> set[str]:
    """Returns the operators that are not standard ONNX, as domain::name; empty for a portable graph."""
    return {f"{n.domain}::{n.op_type}" for n in graph.graph.node if n.domain not in _STANDARD_DOMAINS}
