"""config.pbtxt of a model for each runtime, from its TensorSpecs alone.

Knows the official backends' demands and parameter names; knows nothing about any one version, because
all versions of a model share one config.
"""

from collections.abc import Sequence

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelParameter,
    ModelVersionPolicy,
    ModelWarmup,
)

from conch.v1 import job_pb2
from services.repository import layout
from services.targets import runtime_name
from services.tasks import Task, TensorSpec

MAX_BATCH_SIZE = 64
"""Most rows that one onnxruntime call takes. The gateway batches by tokens and stays below it."""

_HEADER = "# Made by Conch from the task's TensorSpecs; a conversion that would change it is refused.\n"
_DTYPES = {"int64": DataType.TYPE_INT64, "int32": DataType.TYPE_INT32, "float32": DataType.TYPE_FP32}

# 0 = as many threads as the machine has cores, for both runtimes.
_PARAMETERS: dict[job_pb2.Runtime.ValueType, dict[str, str]] = {
    job_pb2.RUNTIME_ONNXRUNTIME: {"intra_op_thread_count": "0"},
    job_pb2.RUNTIME_OPENVINO: {
        "HINT_BF16": "YES",
        "INFERENCE_NUM_THREADS": "0",
        "PERFORMANCE_HINT": "LATENCY",
    },
}

# (batch, sequence) of zeros that Triton runs before a version counts as loaded. It faults the weights in
# and sets the runtime's pools up; 8 tokens is the shortest max_length there is. The shapes that are
# really asked for are warmed by the gateway, which knows them.
_WARMUP_SHAPES = ((1, 8), (8, 8))


def config_texts(model: str, task: Task, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Returns the text of every runtime's config by its path in the model's folder."""
    return {layout.config_file(runtime): config_text(model, task, inputs, runtime) for runtime in _PARAMETERS}


def config_text(
    model: str, task: Task, inputs: Sequence[TensorSpec], runtime: job_pb2.Runtime.ValueType
) -> str:
    """Returns the config of `model` for `runtime` in protobuf's text format."""
    config = _base(model, runtime)
    # The official openvino backend turns max_batch_size into a fixed batch; 0 leaves the axis free.
    batched = runtime == job_pb2.RUNTIME_ONNXRUNTIME
    if batched:
        config.max_batch_size = MAX_BATCH_SIZE
        config.dynamic_batching.CopyFrom(ModelDynamicBatching())
    config.input.extend(
        ModelInput(name=spec.name, data_type=_DTYPES[spec.dtype], dims=_dims(spec, batched=batched))
        for spec in inputs
    )
    config.output.extend(
        ModelOutput(name=spec.name, data_type=_DTYPES[spec.dtype], dims=_dims(spec, batched=batched))
        for spec in task.outputs
    )
    config.model_warmup.extend(
        _warmup(batch, sequence, inputs, batched=batched) for batch, sequence in _WARMUP_SHAPES
    )
    return _HEADER + text_format.MessageToString(config, as_utf8=True)


def _base(model: str, runtime: job_pb2.Runtime.ValueType) -> ModelConfig:
    return ModelConfig(
        name=model,
        backend=runtime_name(runtime),
        default_model_filename=layout.served_file(runtime),
        version_policy=ModelVersionPolicy(all=ModelVersionPolicy.All()),
        instance_group=[ModelInstanceGroup(count=1, kind=ModelInstanceGroup.KIND_CPU)],
        parameters={key: ModelParameter(string_value=value) for key, value in _PARAMETERS[runtime].items()},
    )


def _dims(spec: TensorSpec, *, batched: bool) -> list[int]:
    return spec.dims if batched else [-1, *spec.dims]


def _warmup(batch: int, sequence: int, inputs: Sequence[TensorSpec], *, batched: bool) -> ModelWarmup:
    warmup = ModelWarmup(name=f"batch {batch}, {sequence} tokens", batch_size=batch if batched else 1)
    for spec in inputs:
        extents = [dim if dim > 0 else sequence for dim in spec.dims]
        warmup.inputs[spec.name].data_type = _DTYPES[spec.dtype]
        warmup.inputs[spec.name].dims.extend(extents if batched else [batch, *extents])
        warmup.inputs[spec.name].zero_data = True
    return warmup
