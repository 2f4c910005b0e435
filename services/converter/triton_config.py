"""config.pbtxt of a model for each runtime, from its TensorSpecs alone.

Knows the official backends' demands and parameter names; knows nothing about any one version, because
all versions of a model share one config.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

from services.converter import generation_tensors
from services.repository import layout
from services.tasks import Task, TensorSpec
from services.tasks.forms import Form

MAX_BATCH_SIZE = 64
"""Most rows that one onnxruntime call takes. The gateway batches by tokens and stays below it."""

_HEADER = "# Made by Conch from the task's TensorSpecs; a conversion that would change it is refused.\n"
_DTYPES = {"int64": DataType.TYPE_INT64, "int32": DataType.TYPE_INT32, "float32": DataType.TYPE_FP32}


@dataclass(frozen=True)
class _Backend:
    """How a backend wants to be configured; `batched` ones have max_batch_size and no batch axis in dims."""

    parameters: Mapping[str, str]
    batched: bool = True
    warmed: bool = True
    decoupled: bool = False
    ragged: bool = False
    """Whether it takes calls of different lengths together."""
    kind: int = ModelInstanceGroup.KIND_CPU


# 0 = as many threads as the machine has cores, for both runtimes.
_BACKENDS: dict[str, _Backend] = {
    "onnxruntime": _Backend({"intra_op_thread_count": "0"}),
    # The official openvino backend turns max_batch_size into a fixed batch; 0 leaves the axis free.
    "openvino": _Backend(
        {"HINT_BF16": "YES", "INFERENCE_NUM_THREADS": "0", "PERFORMANCE_HINT": "LATENCY"}, batched=False
    ),
    "tensorrt": _Backend({}, kind=ModelInstanceGroup.KIND_GPU),
    "seq2seq": _Backend({"intra_op_thread_count": "0"}, warmed=False, ragged=True),
    # cache_size is GB of keys and values for all rows that are written at once.
    "openvino_generation": _Backend(
        {"max_num_seqs": "16", "cache_size": "1", "num_threads": "0"}, warmed=False, decoupled=True
    ),
    # The engine chooses its devices itself.
    "vllm": _Backend({}, warmed=False, decoupled=True, kind=ModelInstanceGroup.KIND_MODEL),
}

# (batch, sequence) of zeros that Triton runs before a version counts as loaded. It faults the weights in
# and sets the runtime's pools up; 8 tokens is the shortest max_length there is. The shapes that are
# really asked for are warmed by the gateway, which knows them.
_WARMUP_SHAPES = ((1, 8), (8, 8))


def config_texts(model: str, task: Task, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Returns the text of every pool's config by its path in the model's folder.

    TensorRT's and vLLM's are there only where a target asks for them: see the task's forms.
    """
    return {
        layout.config_file(pool): config_text(model, task, inputs, form)
        for form in task.forms
        for pool in form.pools
        if form.is_default
    }


def config_text(model: str, task: Task, inputs: Sequence[TensorSpec], form: Form) -> str:
    """Returns the config of `model` for one form in protobuf's text format."""
    backend = _BACKENDS[form.backend]
    config = _base(model, form, backend)
    if backend.decoupled:
        config.input.extend(generation_tensors.inputs())
        config.output.extend(generation_tensors.outputs())
        return _text(config)
    batched = backend.batched
    if batched:
        config.max_batch_size = MAX_BATCH_SIZE
        config.dynamic_batching.CopyFrom(ModelDynamicBatching())
    config.input.extend(
        ModelInput(
            name=spec.name,
            data_type=_DTYPES[spec.dtype],
            dims=_dims(spec, batched=batched),
            allow_ragged_batch=backend.ragged and "sequence" in spec.axes,
        )
        for spec in inputs
    )
    config.output.extend(
        ModelOutput(name=spec.name, data_type=_DTYPES[spec.dtype], dims=_dims(spec, batched=batched))
        for spec in task.outputs
    )
    if backend.warmed:
        config.model_warmup.extend(
            _warmup(batch, sequence, inputs, batched=batched) for batch, sequence in _WARMUP_SHAPES
        )
    return _text(config)


def _text(config: ModelConfig) -> str:
    return _HEADER + text_format.MessageToString(config, as_utf8=True)


def _base(model: str, form: Form, backend: _Backend) -> ModelConfig:
    config = ModelConfig(
        name=model,
        backend=form.backend,
        default_model_filename=form.file,
        version_policy=ModelVersionPolicy(all=ModelVersionPolicy.All()),
        instance_group=[ModelInstanceGroup(count=1, kind=backend.kind)],
        parameters={key: ModelParameter(string_value=value) for key, value in backend.parameters.items()},
    )
    if backend.decoupled:
        config.model_transaction_policy.decoupled = True
    return config


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
