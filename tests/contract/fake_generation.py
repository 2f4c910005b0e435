"""A Triton whose models are generation engines: the tensors of Triton's vLLM backend, scripted text.

Speaks the real protocol on a real socket: ModelStreamInfer, one response a piece, the error of a stream as
its gRPC status (what a Triton does that is asked for triton_grpc_error).
"""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import model_config_pb2, service_pb2

from conch.v1 import job_pb2
from services.tasks import find_task
from tests.contract.fake_triton import FakeTriton

_INPUTS = {
    "text_input": "BYTES",
    "sampling_parameters": "BYTES",
    **dict.fromkeys(("stream", "exclude_input_in_output"), "BOOL"),
    **dict.fromkeys(("return_finish_reason", "return_cumulative_logprob", "return_logprobs"), "BOOL"),
    **dict.fromkeys(("return_num_input_tokens", "return_num_output_tokens"), "BOOL"),
}
_OUTPUTS = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "cumulative_logprob": "FP32",
    "logprobs": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}


def backwards(prompt: str) -> list[str]:
    """Returns the words of a prompt as pieces, the last word first."""
    return [f"{word} " for word in reversed(prompt.split())]


@dataclass(eq=False)
class Ask:
    """One text that was asked for, and how far it came."""

    id: str
    model: str
    version: str
    prompt: str
    parameters: dict[str, Any]
    switches: dict[str, bool]
    timeout_microseconds: int | None
    seconds_left: float | None
    metadata: dict[str, str]
    num_sent: int = 0
    is_cancelled: bool = False


@dataclass(frozen=True)
class Failure:
    """How a text ends early: after so many pieces, with a status; OK is a stream that just ends."""

    after: int
    code: grpc.StatusCode
    words: str


@dataclass(frozen=True)
class Wrote:
    """One piece: a token, unless `num_tokens` says otherwise; `logprobs` are vLLM's entries, one a token."""

    text: str
    num_tokens: int = 1
    reason: str = "None"
    logprobs: list[dict[str, Any]] = field(default_factory=list)


Script = Callable[[Ask], Sequence["str | Wrote"]]


def default(ask: Ask) -> Sequence[str]:
    """Writes the prompt backwards."""
    return backwards(ask.prompt)


class FakeGeneration(FakeTriton):
    """Its knobs may be turned at any time."""

    def __init__(self, **knobs: Any) -> None:
        super().__init__(**knobs)
        form = find_task("text-generation").form_in(job_pb2.RUNTIME_ONNXRUNTIME)
        assert form, "every pool has a form of decoders"
        self.backend = form.backend
        self.script: Script = default
        self.asks: list[Ask] = []
        self.running: set[Ask] = set()
        self.hold_after = 0
        """While it is held, texts stop after so many pieces."""
        self.stream_failures: list[Failure] = []
        self.reason = "stop"
        """Why texts end that are not cut by max_tokens."""
        self.ends_apart = False
        """Whether the end is a message of its own after the last piece."""
        self.outputs = dict(_OUTPUTS)

    def hold(self, *, after: int = 0) -> None:
        """Lets texts come to so many pieces and wait there until `release`."""
        self.hold_after = after
        super().hold()

    def fail(self, code: grpc.StatusCode, words: str, *, after: int = 0) -> None:
        """Lets the next text end with a status after so many pieces."""
        self.stream_failures.append(Failure(after, code, words))

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        await self._check_loaded(request.name, request.version, context)
        config = model_config_pb2.ModelConfig(name=request.name, backend=self.backend)
        config.model_transaction_policy.decoupled = True
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await self._check_loaded(request.name, request.version, context)
        versions = [str(v) for v in sorted(self.loaded[request.name])]
        answer = service_pb2.ModelMetadataResponse(name=request.name, versions=versions)
        for name, datatype in _INPUTS.items():
            answer.inputs.add(name=name, datatype=datatype, shape=[1])
        for name, datatype in self.outputs.items():
            answer.outputs.add(name=name, datatype=datatype, shape=[-1])
        return answer

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> None:
        async for request in request_iterator:
            await self._check_loaded(request.model_name, request.model_version, context)
            ask = _ask(request, context)
            self.asks.append(ask)
            self.running.add(ask)
            await self._tell()
            try:
                await self._write(ask, context)
            except (asyncio.CancelledError, grpc.aio.InternalError):  # InternalError: while it sent
                ask.is_cancelled = True
                self.num_cancelled += 1
                raise
            finally:
                self.running.discard(ask)
                await asyncio.shield(self._tell())

    async def _write(self, ask: Ask, context: Any) -> None:
        failure = self.stream_failures.pop(0) if self.stream_failures else None
        for wrote in self._pieces(ask):
            if failure and ask.num_sent == failure.after:
                if failure.code is grpc.StatusCode.OK:
                    return
                await context.abort(failure.code, failure.words)
            if ask.num_sent >= self.hold_after:
                await self._gate.wait()
            is_last = wrote.reason != "None"
            await context.write(_response(ask, wrote, is_final=is_last and not self.ends_apart))
            ask.num_sent += 1
            await self._tell()
        if self.ends_apart:
            empty = service_pb2.ModelInferResponse(model_name=ask.model, id=ask.id)
            empty.parameters["triton_final_response"].bool_param = True
            await context.write(service_pb2.ModelStreamInferResponse(infer_response=empty))

    def _pieces(self, ask: Ask) -> Iterator[Wrote]:
        """Yields what is written, the reason of the end in the last piece."""
        wrote = (Wrote(p) if isinstance(p, str) else p for p in self.script(ask))
        left, last = ask.parameters["max_tokens"], Wrote("", 0, self.reason)
        for piece in wrote:
            left -= piece.num_tokens
            if left <= 0:
                yield Wrote(piece.text, piece.num_tokens, "length", piece.logprobs)
                return
            yield piece
        yield last


def _ask(request: Any, context: Any) -> Ask:
    raw = dict(zip((tensor.name for tensor in request.inputs), request.raw_input_contents, strict=True))
    assert {tensor.name: tensor.datatype for tensor in request.inputs}.items() <= _INPUTS.items()
    assert all(list(tensor.shape) == [1] for tensor in request.inputs)
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else None
    return Ask(
        id=request.id,
        model=request.model_name,
        version=request.model_version,
        prompt=_text(raw["text_input"]),
        parameters=json.loads(_text(raw["sampling_parameters"])),
        switches={name: raw[name] == b"\x01" for name in raw if _INPUTS[name] == "BOOL"},
        timeout_microseconds=timeout,
        seconds_left=context.time_remaining(),
        metadata={key: str(value) for key, value in context.invocation_metadata()},
    )


def _response(ask: Ask, wrote: Wrote, *, is_final: bool) -> Any:
    answer = service_pb2.ModelInferResponse(model_name=ask.model, model_version=ask.version, id=ask.id)
    answer.parameters["triton_final_response"].bool_param = is_final
    values = {
        "text_output": _bytes(wrote.text),
        "finish_reason": _bytes(wrote.reason),
        "num_input_tokens": struct.pack("<I", len(ask.prompt.split())),
        "num_output_tokens": struct.pack("<I", wrote.num_tokens),
        "logprobs": _bytes(json.dumps(wrote.logprobs or None)),
    }
    for name, value in values.items():
        if name == "text_output" or ask.switches.get(f"return_{name}"):
            answer.outputs.add(name=name, datatype=_OUTPUTS[name], shape=[1])
            answer.raw_output_contents.append(value)
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


def _text(raw: bytes) -> str:
    (length,) = struct.unpack("<I", raw[:4])
    assert length == len(raw) - 4
    return raw[4:].decode()


def _bytes(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data
