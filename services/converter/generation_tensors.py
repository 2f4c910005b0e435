"""The tensors of text-generation: those of Triton's vLLM backend, which makes pools interchangeable.

Upstream: triton-inference-server/vllm_backend, src/model.py. Knows names, dtypes and dims.
"""

from tritonclient.grpc.model_config_pb2 import DataType, ModelInput, ModelOutput

_EXTRAS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
_INPUTS = {
    "text_input": DataType.TYPE_STRING,
    "stream": DataType.TYPE_BOOL,
    "sampling_parameters": DataType.TYPE_STRING,
    "exclude_input_in_output": DataType.TYPE_BOOL,
} | {f"return_{extra}": DataType.TYPE_BOOL for extra in _EXTRAS}
_OUTPUTS = {
    "text_output": (DataType.TYPE_STRING, -1),
    "finish_reason": (DataType.TYPE_STRING, -1),
    "cumulative_logprob": (DataType.TYPE_FP32, -1),
    "logprobs": (DataType.TYPE_STRING, -1),
    "num_input_tokens": (DataType.TYPE_UINT32, 1),
    "num_output_tokens": (DataType.TYPE_UINT32, -1),
}


def inputs() -> list[ModelInput]:
    """Returns the inputs: a prompt, sampling parameters as JSON, and what is wanted beside the text."""
    return [
        ModelInput(name=name, data_type=dtype, dims=[1], optional=name != "text_input")
        for name, dtype in _INPUTS.items()
    ]


def outputs() -> list[ModelOutput]:
    """Returns the outputs, of which each response carries those that were asked for."""
    return [ModelOutput(name=name, data_type=dtype, dims=[dim]) for name, (dtype, dim) in _OUTPUTS.items()]
