"""What both backends do with the requests that Triton hands over: gather, run once, hand out.

Runs inside Triton's python stubs (numpy < 2) and cannot import Conch. Knows requests and responses;
knows nothing about runtimes and nothing about config.pbtxt.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb

Array = npt.NDArray[Any]


class Graph(Protocol):
    """A loaded model."""

    outputs: Sequence[str]
    """Names of all its outputs."""

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Returns the named outputs, valid until the next `run`."""


def execute(requests: Sequence[Any], graph: Graph, *, batched: bool) -> list[Any]:
    """Returns one response a request, in order.

    What Triton's dynamic batcher put together runs as one batch if `batched`. If that fails, each
    runs alone, so that a bad request fails alone. A request that was cancelled meanwhile does not run.
    """
    # Triton 2.51 hands over what its caller has given up; asking costs some 50 us, running it a batch.
    cancelled = [request.is_cancelled() for request in requests]
    live = [request for request, gone in zip(requests, cancelled, strict=True) if not gone]
    responses = iter(_answered(live, graph, batched=batched))
    return [_cancelled() if gone else next(responses) for gone in cancelled]


def _answered(requests: Sequence[Any], graph: Graph, *, batched: bool) -> list[Any]:
    if len(requests) == 1:
        return [_alone(requests[0], graph)]
    if batched and requests:
        try:
            return _together(requests, graph)
        except Exception as error:
            pb.Logger.log_warn(f"a batch of {len(requests)} requests failed, each runs alone: {error}")
    return [_alone(request, graph, copy=True) for request in requests]


def _alone(request: Any, graph: Graph, *, copy: bool = False) -> Any:
    names = _requested([request], graph)
    try:
        results = graph.run(_inputs(request), names)
    except Exception as error:
        return pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
    return _response(names, [result.copy() for result in results] if copy else results)


def _cancelled() -> Any:
    return pb.InferenceResponse(error=pb.TritonError("cancelled", pb.TritonError.CANCELLED))


def _together(requests: Sequence[Any], graph: Graph) -> list[Any]:
    feeds = [_inputs(request) for request in requests]
    names = _requested(requests, graph)
    offsets = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])
    results = graph.run(_gathered(feeds), names)
    if any(len(result) != offsets[-1] for result in results):
        raise ValueError("an output's first axis is not the batch")
    rows = zip(*(np.split(result, offsets[:-1]) for result in results), strict=True)
    return [_response(names, row) for row in rows]


def _gathered(feeds: Sequence[dict[str, Array]]) -> dict[str, Array]:
    names = feeds[0].keys()
    if any(feed.keys() != names for feed in feeds):
        raise ValueError("the requests of a batch give different inputs")
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in names}


def _inputs(request: Any) -> dict[str, Array]:
    """Returns views into Triton's shared memory, which live as long as the request; strings are copies."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _requested(requests: Sequence[Any], graph: Graph) -> Sequence[str]:
    wanted = {name for request in requests for name in request.requested_output_names()}
    return [name for name in graph.outputs if name in wanted] if wanted else graph.outputs


def _response(names: Sequence[str], arrays: Sequence[Array]) -> Any:
    tensors = [pb.Tensor(name, array) for name, array in zip(names, arrays, strict=True)]
    return pb.InferenceResponse(output_tensors=tensors)
