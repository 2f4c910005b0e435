"""What is particular to one task's rpc; the paths that all rpcs share are the gateway's.

Knows requests, answers and what a served version says of itself; knows nothing about gRPC or Triton.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from conch.v1 import inference_pb2
from services.tasks.encoding import Encoder, Tokens
from services.tasks.example import Encoded, Example, Facts
from services.tasks.tensors import Answer


@dataclass(frozen=True)
class TextField:
    """A field of a request that holds texts: how many there may be and whether they may be blank.

    `most` 0 leaves it to the gateway's setting. A field that is not repeated has `is_single` set. Where the
    elements are messages, `part` is the field of theirs that holds the text.
    """

    name: str
    texts: Sequence[str]
    least: int = 1
    most: int = 0
    is_single: bool = False
    part: str = ""

    def path(self, index: int) -> str:
        """Returns what a text is called in a complaint: prompt, texts[3], messages[3].content."""
        element = self.name if self.is_single else f"{self.name}[{index}]"
        return f"{element}.{self.part}" if self.part else element


class Served(Protocol):
    """A version that answers, as far as its task's rpcs need to know it."""

    @property
    def facts(self) -> Facts:
        """What its checkpoint says of it."""

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer."""


Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class UnaryRpc(Protocol, Generic[Request, Response]):
    """A request for answers that come all at once."""

    def texts(self, request: Request) -> Sequence[TextField]:
        """Returns the texts of a request, whose number, size and emptiness the gateway checks."""

    def examples(self, request: Request, served: Served) -> list[Example]:
        """Returns what the model is to read, whose targets are None.

        Raises InvalidRequest that names a field for what can never succeed.
        """

    def respond(
        self, request: Request, encoded: Sequence[Encoded], answers: Sequence[Answer], served: Served
    ) -> Response:
        """Returns the response to the model's `answers`, one an example; who answered is added later."""


@dataclass(frozen=True)
class Prompt:
    """What a generation engine is asked: `parameters` are vLLM's SamplingParams by name.

    `fields` say which field of the request each parameter, and "text_input", was made of.
    """

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """What a generation engine has written since the piece before; `is_last` ends the stream."""

    text: str
    logprobs: Sequence[inference_pb2.TokenLogprob] = ()
    is_last: bool = False
    finish_reason: inference_pb2.FinishReason.ValueType = inference_pb2.FINISH_REASON_UNSPECIFIED
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0


class StreamRpc(Protocol, Generic[Request, Response]):
    """A request for an answer that comes piece by piece."""

    def texts(self, request: Request) -> Sequence[TextField]:
        """As UnaryRpc.texts."""

    def prompt(self, request: Request, served: Served) -> Prompt:
        """Returns what the engine is asked. Raises InvalidRequest, NotReady."""

    def respond(self, piece: Piece) -> Response:
        """Returns the response that carries a piece; who answered and timings are added later."""


def input_tokens(windows: Sequence[Tokens]) -> inference_pb2.InputTokens:
    """Returns how a text was read, in one window or in several."""
    return inference_pb2.InputTokens(
        num_tokens=sum(map(len, windows)),
        truncated=any(window.truncated for window in windows),
        num_windows=len(windows),
    )
