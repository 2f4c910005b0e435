"""Calls to Triton over its own gRPC protocol, and what its failures mean to our callers.

Knows the KServe v2 messages (those that tritonclient carries: a second compiled copy would collide);
knows nothing about batches, routes or tasks. The hot path, `infer`, uses the raw stub with raw tensor
bytes, which saves some 65 us of CPU a call over tritonclient's own classes.
"""

import asyncio
import itertools
import math
import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.errors import BackendUnavailable, DeadlineExceeded, NotFound, NotReady, ServiceError
from services.tasks.tensors import Array

Answer = TypeVar("Answer")

_DATATYPES = {"int64": "INT64", "float32": "FP32"}
_DTYPES = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32}
_READY_SECONDS = 5.0
_COLD_SECONDS = 10.0
_LOOK_SECONDS = 3.0
_LOAD_SECONDS = 300.0
# No keepalive pings: Triton, like every gRPC server, drops a client that pings more often than once in
# five minutes without data, and a call that hangs has its deadline anyway.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
# Else an error would be a message in the stream, without its code.
_ERRORS_AS_STATUS = (("triton_grpc_error", "true"),)
# What a Triton says with other statuses when it, or a backend process of its, is going down.
_GOING = ("Stub process", "RST_STREAM", "Server is stopping", "exiting", "unexpected shutdown")


class TritonError(Exception):
    """Triton refused or garbled a call in a way that only a bug of ours or of a model can cause."""


class Triton:
    """One Triton. Every call raises BackendUnavailable if it does not answer."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._address = address
        self._ids = itertools.count(1)
        self._calls: set[Any] = set()
        self.num_given_up = 0

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        output_names: Sequence[str],
        *,
        timeout_seconds: float | None = None,
    ) -> dict[str, Array]:
        """Returns the outputs by name, `(batch, ...)` each; inputs are int64 `(batch, sequence)` or, of
        parameters, int64 or float32 `(batch, 1)`.

        Triton gets the timeout both as the call's deadline and as the request's `timeout` parameter
        (microseconds), so that it stays out of Triton's queue too. Raises DeadlineExceeded if it
        passes, TritonError if the outputs are not what was asked for. Cancelling cancels at Triton.
        """
        request = _infer_request(model, version, inputs, output_names, self.next_id())
        if timeout_seconds is not None:
            timeout_seconds = max(timeout_seconds, 1e-6)
            request.parameters["timeout"].int64_param = max(1, round(timeout_seconds * 1e6))
        call = self._stub.ModelInfer(request, timeout=timeout_seconds)
        self._calls.add(call)
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise meaning(error, f"{model}@{version}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise given_up() from error
        finally:
            self._calls.discard(call)
        num_rows = next(iter(inputs.values())).shape[0]
        return {name: _tensor(response, name, num_rows) for name in output_names}

    def open_stream(self, *, timeout_seconds: float | None) -> Any:
        """Returns a new ModelStreamInfer call; its errors are gRPC statuses, which end it."""
        call = self._stub.ModelStreamInfer(timeout=timeout_seconds, metadata=_ERRORS_AS_STATUS)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def give_up(self) -> None:
        """Ends all calls for answers under way: they raise BackendUnavailable now, not at their deadlines."""
        self.num_given_up += 1
        for call in list(self._calls):
            call.cancel()

    def next_id(self) -> str:
        """Returns the id of one more request of this process."""
        return f"conch-{os.getpid()}-{next(self._ids)}"

    async def ready(self) -> bool:
        """Returns whether Triton answers; never raises.

        Asks for liveness: Triton calls itself not ready as soon as one version of one model failed to load.
        """
        try:
            answer = await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=_READY_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.live)

    async def model_ready(self, model: str, version: int) -> bool:
        """Returns whether this version is loaded; never raises."""
        request = service_pb2.ModelReadyRequest(name=model, version=str(version))
        try:
            return bool((await self._stub.ModelReady(request, timeout=_READY_SECONDS)).ready)
        except grpc.aio.AioRpcError:
            return False

    async def load(self, model: str) -> None:
        """Loads, or reloads, what the staged repository holds of a model.

        Raises NotReady with Triton's words if it cannot.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        try:
            await self._stub.RepositoryModelLoad(request, timeout=_LOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _load_failure(error, model) from error

    async def unload(self, model: str) -> None:
        """Unloads all versions of a model; one that is not loaded is fine."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        await self._cold(self._stub.RepositoryModelUnload(request, timeout=_COLD_SECONDS), model)

    async def model_config(self, model: str, version: int | str = "") -> Any:
        """Returns Triton's model_config_pb2.ModelConfig. Raises NotFound if the model is not loaded."""
        request = service_pb2.ModelConfigRequest(name=model, version=str(version))
        answer = await self._cold(self._stub.ModelConfig(request, timeout=_COLD_SECONDS), model)
        return answer.config

    async def metadata(self, model: str, version: int | str = "") -> Any:
        """Returns a ModelMetadataResponse: inputs, outputs. Raises NotFound if the model is not loaded."""
        request = service_pb2.ModelMetadataRequest(name=model, version=str(version))
        return await self._cold(self._stub.ModelMetadata(request, timeout=_COLD_SECONDS), model)

    async def index(self) -> Any:
        """Returns a RepositoryIndexResponse: which versions are loaded, and why others are not."""
        request = service_pb2.RepositoryIndexRequest()
        return await self._cold(self._stub.RepositoryIndex(request, timeout=_COLD_SECONDS), "")

    async def holdings(self) -> frozenset[tuple[str, int]]:
        """Returns the versions that are ready to answer. Raises ServiceError if it does not say."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        index = await self._cold(self._stub.RepositoryIndex(request, timeout=_LOOK_SECONDS), "its index")
        return frozenset((m.name, int(m.version)) for m in index.models if m.state == "READY")

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close()

    async def _cold(self, call: Awaitable[Answer], model: str) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise NotFound(f"{model}: {error.details()}", reason="MODEL_NOT_LOADED") from error
            raise meaning(error, model) from error


def _infer_request(
    model: str, version: int, inputs: Mapping[str, Array], output_names: Sequence[str], request_id: str
) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version), id=request_id)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=_DATATYPES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name in output_names:
        request.outputs.add(name=name)
    return request


def _tensor(response: Any, name: str, num_rows: int) -> Array:
    """Returns one output, floats as float32.

    A Triton whose environment has numpy 2 *succeeds* with empty ones.
    """
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name == name:
            return _array(output, raw, num_rows)
    raise TritonError(f"{response.model_name}: no bytes came for output {name!r}")


def _array(output: Any, raw: bytes, num_rows: int) -> Array:
    shape, dtype = tuple(output.shape), _DTYPES.get(output.datatype)
    if dtype is None:
        raise TritonError(f"output {output.name!r} has datatype {output.datatype}")
    if not raw or shape[0] != num_rows or len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise TritonError(
            f"output {output.name!r} of {num_rows} rows came as shape {shape} in {len(raw)} bytes"
        )
    array = np.frombuffer(raw, dtype=dtype).reshape(shape)
    return array.astype(np.float32) if dtype in (np.float16, np.float64) else array


def meaning(error: grpc.aio.AioRpcError, subject: str) -> Exception:
    """Returns what a failed call about `subject` ("sentiment@3") means to our caller."""
    code, words = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or "timeout expired" in words:
        return DeadlineExceeded(
            f"the deadline passed while Triton worked on {subject}", reason="DEADLINE_EXCEEDED_IN_TRITON"
        )
    # After SIGTERM Triton answers NOT_FOUND for models that it served a moment ago.
    if code is grpc.StatusCode.NOT_FOUND:
        return _unavailable(f"Triton no longer serves {subject}", "TRITON_LEAVING")
    gone = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    if gone or any(sign in words for sign in _GOING):
        return _unavailable("Triton does not answer", "TRITON_UNAVAILABLE")
    return TritonError(f"{subject}: {code.name}: {words}")


def _load_failure(error: grpc.aio.AioRpcError, model: str) -> ServiceError:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return _unavailable("Triton does not answer", "TRITON_UNAVAILABLE")
    return NotReady(f"Triton cannot load {model}: {error.details()}", reason="LOAD_REFUSED")


def given_up() -> BackendUnavailable:
    """Returns what the end of a call at a Triton that was given up means."""
    return _unavailable("Triton does not answer", "TRITON_UNAVAILABLE")


def _unavailable(message: str, reason: str) -> BackendUnavailable:
    return BackendUnavailable(message, reason=reason, retry_seconds=1.0)
