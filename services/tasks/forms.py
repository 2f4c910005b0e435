"""The forms in which a version is served: which backend of Triton reads which file, at which precision.

Knows runtimes, backends and file names; knows nothing about any one task or how files are made.
"""

from dataclasses import dataclass

from conch.v1 import job_pb2

OWN_BACKENDS = frozenset({"seq2seq", "openvino_generation"})
"""Backends that are Conch's own: Triton's stock image has them only where they were brought along."""


@dataclass(frozen=True)
class Form:
    """One runtime's way to serve a task's versions.

    `file` is what the backend opens, relative to the version's folder. The first of `precisions` is the
    default. `pools` are the runtimes that pools of Triton are started for in which this form answers;
    none for a form that is certified and published, but not served. `is_default`: it is made where a
    conversion names no target.
    """

    runtime: job_pb2.Runtime.ValueType
    backend: str
    file: str
    precisions: tuple[job_pb2.Precision.ValueType, ...]
    pools: tuple[job_pb2.Runtime.ValueType, ...]
    is_default: bool = True


ENCODER_FORMS = (
    Form(
        job_pb2.RUNTIME_ONNXRUNTIME,
        backend="onnxruntime",
        file="model.onnx",
        precisions=(job_pb2.PRECISION_FP32, job_pb2.PRECISION_INT8),
        pools=(job_pb2.RUNTIME_ONNXRUNTIME,),
    ),
    # Triton's official openvino backend has no way to ask for fp32 where the CPU's default is bf16, so a
    # certificate for it would not hold there.
    Form(
        job_pb2.RUNTIME_OPENVINO,
        backend="openvino",
        file="openvino.onnx",
        precisions=(job_pb2.PRECISION_BF16,),
        pools=(job_pb2.RUNTIME_OPENVINO,),
    ),
    # A version may hold several plans, each for one kind of GPU: the one that fits is staged as this file.
    Form(
        job_pb2.RUNTIME_TENSORRT,
        backend="tensorrt",
        file="model.plan",
        precisions=(job_pb2.PRECISION_BF16, job_pb2.PRECISION_FP32, job_pb2.PRECISION_INT8),
        pools=(job_pb2.RUNTIME_TENSORRT,),
        is_default=False,
    ),
)
"""One graph, one pass: classification, token, answer and embedding heads."""

ENCODER_DECODER_FORMS = (
    Form(
        job_pb2.RUNTIME_ONNXRUNTIME,
        backend="seq2seq",
        file="decoder.onnx",
        precisions=(job_pb2.PRECISION_FP32,),
        pools=(job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.RUNTIME_OPENVINO),
    ),
)
"""An encoder and a decoder that is asked once a token."""

DECODER_FORMS = (
    Form(
        job_pb2.RUNTIME_OPENVINO,
        backend="openvino_generation",
        file="openvino/openvino_model.xml",
        precisions=(job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16, job_pb2.PRECISION_INT8),
        pools=(job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.RUNTIME_OPENVINO),
    ),
    Form(
        job_pb2.RUNTIME_ONNXRUNTIME,
        backend="onnxruntime",
        file="model.onnx",
        precisions=(job_pb2.PRECISION_FP32, job_pb2.PRECISION_INT8),
        pools=(),
    ),
    Form(
        job_pb2.RUNTIME_VLLM,
        backend="vllm",
        file="model.json",
        precisions=(job_pb2.PRECISION_BF16, job_pb2.PRECISION_FP32),
        pools=(job_pb2.RUNTIME_VLLM,),
        is_default=False,
    ),
)
"""A causal language model: generation engines read their own forms, ONNX is the portable one."""
