"""A gateway for other teams' tests: a real gRPC server with deterministic answers and no model.

    from conch.testing import FakeGateway

    def test_angry_mail_goes_to_a_person():
        with FakeGateway(labels=["calm", "angry"]) as gateway:
            gateway.answer("WHERE IS MY ORDER", {"angry": 0.9, "calm": 0.1})
            assert triage(Conch(gateway.address), "WHERE IS MY ORDER") == "person"

It refuses what the real gateway refuses. Knows the contract and `conch.errors`; needs the base install.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc

from conch._fake.answers import FakeAnswers
from conch._fake.noise import deterministic_scores
from conch._fake.script import Script
from conch._fake.servicer import FakeServicer, ReceivedCall, to_status
from conch._fake.store import Answer
from conch.errors import ConchError
from conch.v1 import inference_pb2_grpc

__all__ = ["FakeGateway", "ReceivedCall", "deterministic_scores", "to_status"]


class FakeGateway:
    """Answers every rpc at `address` on a free local port from construction to `close()`; thread-safe.

    The same request always gets the same answer. `models` maps the models that exist to their newest
    version; by default every model exists and has version 1. `tasks` maps models to their Hugging Face task:
    rpcs of other tasks are refused; by default a model answers every rpc. `labels` are those of Classify,
    `entity_types` of ExtractEntities, and vectors have `num_dimensions`.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str] = ("negative", "positive"),
        models: Mapping[str, int] | None = None,
        tasks: Mapping[str, str] | None = None,
        entity_types: Sequence[str] = ("LOC", "ORG", "PER"),
        num_dimensions: int = 8,
    ) -> None:
        self._answers = FakeAnswers(labels, entity_types, num_dimensions)
        self._script = Script(self._answers, models, tasks or {})
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        self.add_to(self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    @property
    def calls(self) -> list[ReceivedCall]:
        """What arrived, oldest first."""
        return self._script.calls

    def answer(self, text: str, answer: Answer) -> None:
        """Sets the answer to one text from now on; its form says what it answers.

        | form | rpc, and what `text` is |
        |---|---|
        | `{"angry": 0.9, "calm": 0.1}` | Classify |
        | `3.5` | Classify by a regression model; a candidate's score in Rank |
        | `{"Ada Lovelace": "PER"}` | ExtractEntities: spans of the text with their types |
        | `"1843"` | AnswerQuestion (a question): a span of its context, "" for no answer; |
        | | Translate, Summarize, Generate (the prompt), Chat (the last message): what is written |
        | `[0.6, 0.8]` | Embed and Rank: the vector, as long as `num_dimensions` |

        Raises ValueError for spans that do not stand in the text and vectors of another length.
        """
        self._answers.set(text, answer)

    def fail(self, error: ConchError, *, times: int = 1) -> None:
        """Lets the next `times` calls end with `error`, as the real gateway would send it."""
        self._script.fail(error, times)

    def fail_after(self, pieces: int, error: ConchError) -> None:
        """Lets the next stream end with `error` once it has sent that many pieces, or all that it has."""
        self._script.fail_after(pieces, error)

    def delay(self, seconds: float) -> None:
        """Lets every answer from now on, and every piece of a stream, take at least that long."""
        self._script.delay_seconds = seconds

    def add_to(self, server: grpc.Server) -> None:
        """Lets a server of your own, not started yet, answer as this gateway does."""
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(FakeServicer(self._script), server)

    def close(self) -> None:
        """Stops answering; calls that wait for a delay end at once with UNAVAILABLE."""
        self._script.close()
        self._server.stop(grace=0.5).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
