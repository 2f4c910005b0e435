"""A Triton that speaks the real protocol on a real socket and fails on demand.

Its logits depend on the real tokens of a row alone: padding, order and company change nothing, so
answers through any batching must equal those of one-by-one calls bit for bit.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

Logits = Callable[[Any, Any], Any]


def sum_logits(ids: Any, mask: Any, num_labels: int = 3) -> Any:
    """Returns logits `(batch, label)` that differ for any two token sequences of practical interest."""
    places = np.arange(1, ids.shape[1] + 1)
    weights = ((ids * places) * mask).sum(axis=1) % 1009
    return np.stack([weights % (7 + 2 * k) for k in range(num_labels)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Call:
    """One ModelInfer as it arrived."""

    id: str
    model: str
    version: str
    shape: tuple[int, ...]
    num_real_tokens: int
    timeout_microseconds: int | None
    seconds_left: float | None
    ids: Any


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Start with `running()`; the knobs may be turned at any time."""

    def __init__(self, *, repository: Path | None = None, logits: Logits = sum_logits) -> None:
        self.repository = repository
        self.logits = logits
        self.loaded: dict[str, set[int]] = {}
        self.backend = "onnxruntime"
        self.calls: list[Call] = []
        self.num_cancelled = 0
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.refuse: Callable[[Any], str] | None = None
        """Returns why a call (its input ids) is refused with INTERNAL, or an empty string."""
        self.load_failures: dict[str, str] = {}
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.empty_outputs = False
        self.live = True
        self.frozen = False
        """Whether it says nothing any more, to nobody, as if its node had vanished."""
        self.changed = asyncio.Condition()
        self._gate = asyncio.Event()
        self._gate.set()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens, on the port of before if there was one."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 1)]
        self._server = grpc.aio.server(options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def die(self) -> None:
        """Drops every connection and call at once."""
        if self._server:
            await self._server.stop(0)
            self._server = None

    def hold(self) -> None:
        """Lets calls arrive and wait until `release`."""
        self._gate.clear()

    def release(self) -> None:
        """Lets the waiting calls, and all later ones, be answered."""
        self._gate.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something arrived or was cancelled that makes `condition` true."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=self.live)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.live)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        versions = self.loaded.get(request.name, set())
        ready = int(request.version) in versions if request.version else bool(versions)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        await self._check_loaded(request.name, request.version, context)
        config = model_config_pb2.ModelConfig(name=request.name, backend=self.backend)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            config.input.add(name=name, data_type=model_config_pb2.TYPE_INT64, dims=[-1])
        config.output.add(name="logits", data_type=model_config_pb2.TYPE_FP32, dims=[-1])
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await self._check_loaded(request.name, request.version, context)
        answer = service_pb2.ModelMetadataResponse(
            name=request.name, versions=[str(v) for v in sorted(self.loaded[request.name])]
        )
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            answer.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
        answer.outputs.add(name="logits", datatype="FP32", shape=[-1, -1])
        return answer

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        if self.frozen:
            await asyncio.Event().wait()
        answer = service_pb2.RepositoryIndexResponse()
        for model, versions in self.loaded.items():
            for version in sorted(versions):
                answer.models.add(name=model, version=str(version), state="READY")
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        model = request.model_name
        self.loads.append(model)
        if why := self.load_failures.get(model):
            await context.abort(grpc.StatusCode.INTERNAL, f"failed to load '{model}', {why}")
        if self.repository:
            found = {int(p.name) for p in (self.repository / model).glob("*") if p.name.isdigit()}
            if not found:
                await context.abort(grpc.StatusCode.INTERNAL, f"failed to load '{model}', no version")
            self.loaded[model] = found
        await self._tell()
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self.unloads.append(request.model_name)
        self.loaded.pop(request.model_name, None)
        await self._tell()
        return service_pb2.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        tensors = {
            tensor.name: np.frombuffer(raw, dtype=np.int64).reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        ids, mask = tensors["input_ids"], tensors["attention_mask"]
        self.calls.append(_call(request, context, ids, mask))
        await self._tell()
        await self._wait_at_the_gate()
        await self._check_loaded(request.model_name, request.model_version, context)
        if self.failures:
            await context.abort(*self.failures.pop(0))
        if self.refuse and (why := self.refuse(ids)):
            await context.abort(grpc.StatusCode.INTERNAL, why)
        return self._answer(request, self.logits(ids, mask))

    async def _wait_at_the_gate(self) -> None:
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            await asyncio.shield(self._tell())
            raise

    async def _check_loaded(self, model: str, version: str, context: Any) -> None:
        versions = self.loaded.get(model, set())
        if not versions or (version and int(version) not in versions):
            words = f"Request for unknown model: '{model}' version {version} is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, words)

    def _answer(self, request: Any, logits: Any) -> Any:
        answer = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        )
        shape = (0, 0) if self.empty_outputs else logits.shape
        answer.outputs.add(name="logits", datatype="FP32", shape=shape)
        answer.raw_output_contents.append(b"" if self.empty_outputs else logits.tobytes())
        return answer


def _call(request: Any, context: Any, ids: Any, mask: Any) -> Call:
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else None
    return Call(
        id=request.id,
        model=request.model_name,
        version=request.model_version,
        shape=ids.shape,
        num_real_tokens=int(mask.sum()),
        timeout_microseconds=timeout,
        seconds_left=context.time_remaining(),
        ids=ids,
    )


@asynccontextmanager
async def running(**knobs: Any) -> AsyncIterator[FakeTriton]:
    """Yields a fake Triton that listens on a free port."""
    triton = FakeTriton(**knobs)
    await triton.start()
    try:
        yield triton
    finally:
        triton.release()
        await triton.die()
