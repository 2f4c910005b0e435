"""What both backends do with the requests that Triton hands over: gather, run once, hand out.

Runs inside Triton's python stubs (numpy < 2) and cannot import Conch. Knows requests, responses and
model configurations; knows nothing about runtimes.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb

Array = npt.NDArray[Any]
Config = dict[str, Any]


class Graph(Protocol):
    """A loaded model."""

    outputs: Sequence[str]
    """Names of all its outputs."""

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Returns the named outputs; they stay valid until the next `run`."""


def execute(requests: Sequence[Any], graph: Graph, *, batched: bool) -> list[Any]:
    """Returns one response a request, in order.

    Requests that Triton's dynamic batcher put together run as one batch if `batched`. If that fails
    they run one by one, so that a bad request fails alone.
    """
    if batched and len(requests) > 1:
        try:
            return _together(requests, graph)
        except Exception:
            # The culprit is found by running each alone; its error is answered there.
            pass
    return [_alone(request, graph, keep=len(requests) > 1) for request in requests]


def parameter(config: Config, name: str, default: str = "") -> str:
    """Returns a parameter of config.pbtxt."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))


def integer(config: Config, name: str) -> int:
    """Returns a whole-number parameter of config.pbtxt, 0 if it is not set. Raises TritonModelException."""
    text = parameter(config, name, "0")
    try:
        return int(text)
    except ValueError as error:
        raise pb.TritonModelException(f"parameter {name} must be a whole number, not {text!r}") from error


def switch(config: Config, name: str, default: bool) -> bool:
    """Returns a yes-or-no parameter of config.pbtxt, as the official backends spell them."""
    text = parameter(config, name, str(default)).lower()
    if text not in ("1", "true", "yes", "0", "false", "no"):
        raise pb.TritonModelException(f"parameter {name} must be true or false, not {text!r}")
    return text in ("1", "true", "yes")


def load_config(arguments: dict[str, str]) -> Config:
    """Returns the model's configuration from what `initialize` is given."""
    config: Config = json.loads(arguments["model_config"])
    return config


def _together(requests: Sequence[Any], graph: Graph) -> list[Any]:
    feeds = [_inputs(request) for request in requests]
    inputs = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    if any(feed.keys() != inputs.keys() for feed in feeds):
        raise ValueError("requests give different inputs")
    sizes = [len(next(iter(feed.values()))) for feed in feeds]
    offsets = np.cumsum(sizes)
    results = graph.run(inputs, graph.outputs)
    if any(len(result) != offsets[-1] for result in results):
        raise ValueError("an output has another batch size than the inputs")
    rows = [np.split(result, offsets[:-1]) for result in results]
    named = [dict(zip(graph.outputs, part, strict=True)) for part in zip(*rows, strict=True)]
    return [_response(request, part) for request, part in zip(requests, named, strict=True)]


def _alone(request: Any, graph: Graph, *, keep: bool) -> Any:
    names = _requested(request, graph)
    try:
        results = graph.run(_inputs(request), names)
    except Exception as error:
        return pb.InferenceResponse(error=_error(error))
    tensors = [
        pb.Tensor(name, result.copy() if keep else result)
        for name, result in zip(names, results, strict=True)
    ]
    return pb.InferenceResponse(output_tensors=tensors)


def _response(request: Any, arrays: dict[str, Array]) -> Any:
    return pb.InferenceResponse(output_tensors=[pb.Tensor(n, a) for n, a in arrays.items()])


def _requested(request: Any, graph: Graph) -> Sequence[str]:
    return request.requested_output_names() or graph.outputs


def _inputs(request: Any) -> dict[str, Array]:
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _error(error: Exception) -> Any:
    return pb.TritonError(str(error), pb.TritonError.INVALID_ARG)
