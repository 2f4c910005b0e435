"""The tensors of a text-generation request and of its answers: those of Triton's vLLM backend.

Runs inside Triton's python stubs (numpy < 2) and cannot import Conch. Knows Triton's requests and responses;
knows nothing about engines. Upstream: triton-inference-server/vllm_backend, src/model.py and src/utils.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from writing import Piece

_SWITCHES = ("stream", "exclude_input_in_output")
_EXTRAS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
_OUTPUTS = {
    "text_output": ("TYPE_STRING", -1),
    "finish_reason": ("TYPE_STRING", -1),
    "cumulative_logprob": ("TYPE_FP32", -1),
    "logprobs": ("TYPE_STRING", -1),
    "num_input_tokens": ("TYPE_UINT32", 1),
    "num_output_tokens": ("TYPE_UINT32", -1),
}


@dataclass(frozen=True)
class Ask:
    """What a request asks for."""

    prompt: str
    sampling_parameters: str
    stream: bool
    prepend_input: bool
    extras: frozenset[str]
    """Names of the outputs wanted beside text_output."""


def complete(model: Any) -> Any:
    """Returns `model` (a pb ModelConfig) with the inputs, outputs and the policy that it lacks."""
    config = model.as_dict()
    named = {entry["name"] for entry in (*config["input"], *config["output"])}
    for entry in _inputs():
        if entry["name"] not in named:
            model.add_input(entry)
    for name, (dtype, width) in _OUTPUTS.items():
        if name not in named:
            model.add_output({"name": name, "data_type": dtype, "dims": [width]})
    model.set_max_batch_size(0)
    model.set_model_transaction_policy({"decoupled": True})
    return model


def _inputs() -> list[dict[str, Any]]:
    strings = [{"name": name, "data_type": "TYPE_STRING"} for name in ("text_input", "sampling_parameters")]
    switches = [*_SWITCHES, *(f"return_{extra}" for extra in _EXTRAS)]
    entries = [*strings, *({"name": name, "data_type": "TYPE_BOOL"} for name in switches)]
    return [entry | {"dims": [1], "optional": entry["name"] != "text_input"} for entry in entries]


def read(request: Any) -> Ask:
    """Returns what `request` asks for. Raises ValueError; its message starts with the tensor's name."""
    given = {tensor.name(): tensor.as_numpy().ravel() for tensor in request.inputs()}
    wrong = [name for name, values in given.items() if len(values) != 1]
    if wrong:
        raise ValueError(f"{wrong[0]}: must hold one element")
    stream = bool(given["stream"][0]) if "stream" in given else False
    # The prompt comes back unless the caller streams or says that it shall not, as in vLLM's backend.
    prepend = not given["exclude_input_in_output"][0] if "exclude_input_in_output" in given else not stream
    if stream and prepend:
        raise ValueError("exclude_input_in_output: must be true when streaming")
    return Ask(
        prompt=_text(given, "text_input"),
        sampling_parameters=_text(given, "sampling_parameters"),
        stream=stream,
        prepend_input=bool(prepend),
        extras=frozenset(e for e in _EXTRAS if f"return_{e}" in given and given[f"return_{e}"][0]),
    )


def _text(given: dict[str, Any], name: str) -> str:
    try:
        return bytes(given[name][0]).decode() if name in given else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: no UTF-8: {error.reason}") from error


def response(ask: Ask, piece: Piece, *, num_input_tokens: int, decode: Callable[[int], str]) -> Any:
    """Returns Triton's response of a piece; `decode` gives one token's text."""
    text = ask.prompt + piece.text if ask.prepend_input else piece.text
    values: dict[str, Callable[[], Any]] = {
        "finish_reason": lambda: str(piece.finish_reason).encode(),
        "cumulative_logprob": lambda: piece.cumulative_logprob,
        "logprobs": lambda: _logprobs(piece, decode),
        "num_input_tokens": lambda: num_input_tokens,
        "num_output_tokens": lambda: len(piece.choices),
    }
    dtypes = {"TYPE_STRING": np.object_, "TYPE_FP32": np.float32, "TYPE_UINT32": np.uint32}
    tensors = [pb.Tensor("text_output", np.array([text.encode()], np.object_))]
    tensors += [
        pb.Tensor(name, np.array([values[name]()], dtypes[_OUTPUTS[name][0]]))
        for name in _EXTRAS
        if name in ask.extras
    ]
    return pb.InferenceResponse(output_tensors=tensors)


def _logprobs(piece: Piece, decode: Callable[[int], str]) -> bytes:
    if not any(choice.top for choice in piece.choices):
        return b"null"
    found = [
        {
            str(e.token): {"logprob": e.logprob, "rank": e.rank, "decoded_token": decode(e.token)}
            for e in c.top
        }
        for c in piece.choices
    ]
    return json.dumps(found).encode()


def failure(error: Exception) -> Any:
    """Returns the response that carries `error`: INVALID_ARG for ValueError, else what the error says."""
    code = pb.TritonError.INVALID_ARG if isinstance(error, ValueError) else pb.TritonError.INTERNAL
    if isinstance(error, RowGoneError):
        code = error.code
    return pb.InferenceResponse(error=pb.TritonError(str(error), code))


class RowGoneError(Exception):
    """The row is no more: cancelled, or its model is going; `code` is Triton's."""

    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.code = code
