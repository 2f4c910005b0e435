"""Runtimes and precisions as people, Triton and the settings call them: "openvino", "bf16".

Knows the contract's enums; knows nothing about files or graphs.
"""

from conch.v1 import job_pb2


def runtime_name(runtime: "job_pb2.Runtime.ValueType | str") -> str:
    """Returns "openvino" for RUNTIME_OPENVINO; a name stays what it is."""
    if isinstance(runtime, str):
        return runtime
    return job_pb2.Runtime.Name(runtime).removeprefix("RUNTIME_").lower()


def runtime_of(runtime: "job_pb2.Runtime.ValueType | str") -> job_pb2.Runtime.ValueType:
    """Returns RUNTIME_OPENVINO for "openvino", RUNTIME_UNSPECIFIED for a name that is none."""
    if not isinstance(runtime, str):
        return runtime
    names: dict[str, job_pb2.Runtime.ValueType] = dict(job_pb2.Runtime.items())
    return names.get(f"RUNTIME_{runtime.upper()}", job_pb2.RUNTIME_UNSPECIFIED)


def precision_name(precision: job_pb2.Precision.ValueType) -> str:
    """Returns "bf16" for PRECISION_BF16."""
    return job_pb2.Precision.Name(precision).removeprefix("PRECISION_").lower()


def target_name(runtime: job_pb2.Runtime.ValueType, precision: job_pb2.Precision.ValueType) -> str:
    """Returns "openvino bf16"."""
    return f"{runtime_name(runtime)} {precision_name(precision)}"
