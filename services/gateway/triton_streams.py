"""Texts that a generation engine in Triton writes: Triton's vLLM backend's tensors over ModelStreamInfer.

Knows that backend's contract (triton-inference-server/vllm_backend, src/model.py and src/utils/request.py),
which the openvino engine of our own keeps too; knows nothing about rpcs. One text is one call: cancelling
it is how the engine learns that nobody waits any more.
"""

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from conch.v1 import inference_pb2
from services.errors import BackendUnavailable, InvalidRequest
from services.gateway.triton import Triton, TritonError, given_up, meaning
from services.tasks.rpcs import Piece, Prompt

INPUTS = ("text_input", "stream", "sampling_parameters", "exclude_input_in_output")
OUTPUTS = ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens")
_ALWAYS = ("stream", "exclude_input_in_output")
_RETURNED = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
_FINISH = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}
_UNFINISHED = ("", "None")
_END_SECONDS = 0.5


class TritonWriter:
    """Writes texts with one loaded version; `on_lost` hears of each call that Triton did not answer."""

    def __init__(self, triton: Triton, model: str, version: int, on_lost: Callable[[], None]) -> None:
        self._triton, self._model, self._version, self._on_lost = triton, model, version, on_lost
        self._calls: set[Any] = set()
        self._subject = f"{model}@{version}"

    async def write(self, prompt: Prompt, *, deadline: float | None = None) -> AsyncGenerator[Piece, None]:
        """Yields the pieces of one text; none but the last is empty. Closing it cancels at Triton.

        Raises InvalidRequest for what the engine refuses, DeadlineExceeded, BackendUnavailable, and
        TritonError for what only a bug can cause.
        """
        seconds = None if deadline is None else max(1e-3, deadline - asyncio.get_running_loop().time())
        num_given_up = self._triton.num_given_up
        call = self._triton.open_stream(timeout_seconds=seconds)
        self._calls.add(call)
        try:
            with self._meaning_of_errors(prompt, num_given_up):
                await call.write(self._request(prompt, seconds))
                await call.done_writing()
            text = _Text(self._subject, num_alternatives=prompt.parameters.get("logprobs"))
            while not text.is_finished:
                with self._meaning_of_errors(prompt, num_given_up):
                    piece = text.read(await call.read())
                if piece:
                    yield piece
            self._calls.discard(call)
            await _read_out(call)
        finally:
            self._calls.discard(call)
            call.cancel()

    def end(self) -> None:
        """Cancels all calls under way: their texts raise BackendUnavailable."""
        for call in self._calls:
            call.cancel()

    def _request(self, prompt: Prompt, seconds: float | None) -> Any:
        request = service_pb2.ModelInferRequest(
            model_name=self._model, model_version=str(self._version), id=self._triton.next_id()
        )
        # An engine may tell its end apart from its last piece.
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        if seconds is not None:
            request.parameters["timeout"].int64_param = max(1, round(seconds * 1e6))
        _add_text(request, "text_input", prompt.text)
        _add_text(request, "sampling_parameters", json.dumps(dict(prompt.parameters)))
        for name in (
            *_ALWAYS,
            *_RETURNED,
            *(("return_logprobs",) if "logprobs" in prompt.parameters else ()),
        ):
            request.inputs.add(name=name, datatype="BOOL", shape=[1])
            request.raw_input_contents.append(b"\x01")
        return request

    @contextmanager
    def _meaning_of_errors(self, prompt: Prompt, num_given_up: int) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            meant = _refusal(error, prompt) or meaning(error, self._subject)
            if isinstance(meant, BackendUnavailable):
                self._on_lost()
            raise meant from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            if self._triton.num_given_up > num_given_up:
                self._on_lost()
                raise given_up() from error
            # Not our caller's doing: the version is being unloaded, or the gateway closes.
            raise BackendUnavailable(
                f"{self._subject} is being unloaded", reason="VERSION_UNLOADING"
            ) from error


@dataclass
class _Text:
    """One text as far as it has come."""

    subject: str
    num_alternatives: int | None
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    is_finished: bool = False
    _logprobs: list[inference_pb2.TokenLogprob] = field(default_factory=list)

    def read(self, message: Any) -> Piece | None:
        """Returns the piece that a ModelStreamInferResponse brings, None if it brings no text.

        Raises TritonError, BackendUnavailable if the text ends without its end.
        """
        if message is grpc.aio.EOF:
            raise self._gave_up("the stream ended in the middle of the text")
        if message.error_message:
            raise TritonError(f"{self.subject}: {message.error_message}")
        tensors = _tensors(message.infer_response)
        self._count(tensors)
        reason = _first_text(tensors, "finish_reason")
        if reason in _FINISH:
            self.is_finished = True
            return self._piece(tensors, _FINISH[reason])
        if reason not in _UNFINISHED or _is_final(message.infer_response):
            raise self._gave_up(f"the engine gave the text up ({reason or 'no reason'})")
        return self._piece(tensors) if tensors.get("text_output", b"")[4:] else None

    def _count(self, tensors: dict[str, bytes]) -> None:
        self.num_prompt_tokens = _first_number(tensors, "num_input_tokens") or self.num_prompt_tokens
        self.num_generated_tokens += _first_number(tensors, "num_output_tokens")
        if self.num_alternatives is not None and (told := _first_text(tensors, "logprobs")):
            self._logprobs += [_logprob(e, self.num_alternatives) for e in json.loads(told) or () if e]

    def _piece(
        self,
        tensors: dict[str, bytes],
        finish_reason: inference_pb2.FinishReason.ValueType = inference_pb2.FINISH_REASON_UNSPECIFIED,
    ) -> Piece:
        logprobs, self._logprobs = self._logprobs, []
        return Piece(
            _first_text(tensors, "text_output"),
            logprobs,
            is_last=self.is_finished,
            finish_reason=finish_reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_generated_tokens=self.num_generated_tokens,
        )

    def _gave_up(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"{self.subject}: {what}", reason="TEXT_GIVEN_UP")


def _logprob(entry: dict[str, Any], num_alternatives: int) -> inference_pb2.TokenLogprob:
    """Returns what vLLM's entry says of one token: entries by token id, the chosen one first."""
    chosen, ranked = next(iter(entry.values())), sorted(entry.values(), key=lambda e: e["rank"])
    return inference_pb2.TokenLogprob(
        token=chosen["decoded_token"] or "",
        logprob=chosen["logprob"],
        alternatives=[
            inference_pb2.TokenLogprob(token=e["decoded_token"] or "", logprob=e["logprob"])
            for e in ranked
            if e["rank"] <= num_alternatives
        ],
    )


async def _read_out(call: Any) -> None:
    """Lets Triton end a call by itself once its text is complete; cancelling is for texts that are not."""
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(_END_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass


def _refusal(error: grpc.aio.AioRpcError, prompt: Prompt) -> InvalidRequest | None:
    """Returns the caller's fault if the engine names a parameter, as in "stop: is empty", else None."""
    name, _, words = (error.details() or "").partition(": ")
    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or name not in prompt.fields:
        return None
    return InvalidRequest.field(prompt.fields[name], words, reason="ENGINE_REFUSED")


def _add_text(request: Any, name: str, text: str) -> None:
    data = text.encode()
    request.inputs.add(name=name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)


def _tensors(response: Any) -> dict[str, bytes]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=False)
    return {output.name: raw for output, raw in pairs}


def _first_text(tensors: dict[str, bytes], name: str) -> str:
    raw = tensors.get(name, b"")
    length = int.from_bytes(raw[:4], "little")
    return raw[4 : 4 + length].decode("utf-8", errors="replace")


def _first_number(tensors: dict[str, bytes], name: str) -> int:
    return int.from_bytes(tensors.get(name, b"")[:4], "little")


def _is_final(response: Any) -> bool:
    name = "triton_final_response"
    return name in response.parameters and bool(response.parameters[name].bool_param)
