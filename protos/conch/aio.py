"""The client for asyncio: every method as `conch.client.Conch` has it, to be awaited or looped over.

Cancelling the task cancels the call, also at the gateway. Knows nothing about models or tokens.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import grpc

from conch import requests
from conch.channels import CallSettings, Metadata, open_aio_channel, typed_errors
from conch.requests import Aggregation, Kind, Message, Sampling, Search, VectorType
from conch.streams import AsyncStream
from conch.v1 import inference_pb2, inference_pb2_grpc


class AsyncConch:
    """A gateway at `target`, for asyncio: see conch.client.Conch."""

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        self._call = CallSettings(timeout_seconds, metadata)
        self._channel = open_aio_channel(target, credentials)
        self._stub: inference_pb2_grpc.InferenceServiceAsyncStub
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    async def classify(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 0,
        text_pairs: Sequence[str] = (),
        candidate_labels: Sequence[str] = (),
        hypothesis_template: str = "",
        multi_label: bool = False,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.ClassifyResponse:
        """As Conch.classify."""
        request = requests.classify(
            texts, model, version, top_k, text_pairs, candidate_labels, hypothesis_template, multi_label
        )
        with typed_errors():
            return await self._stub.Classify(request, **self._call.options(timeout_seconds))

    async def extract_entities(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        aggregation: Aggregation = "simple",
        min_score: float = 0.0,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.ExtractEntitiesResponse:
        """As Conch.extract_entities."""
        request = requests.extract_entities(texts, model, version, aggregation, min_score)
        with typed_errors():
            return await self._stub.ExtractEntities(request, **self._call.options(timeout_seconds))

    async def answer_questions(
        self,
        questions: Sequence[str],
        contexts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 1,
        max_answer_tokens: int = 0,
        no_answer_threshold: float | None = None,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.AnswerQuestionResponse:
        """As Conch.answer_questions."""
        request = requests.answer_questions(
            questions, contexts, model, version, top_k, max_answer_tokens, no_answer_threshold
        )
        with typed_errors():
            return await self._stub.AnswerQuestion(request, **self._call.options(timeout_seconds))

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        kind: Kind = "passage",
        num_dimensions: int = 0,
        vector_type: VectorType = "float32",
        timeout_seconds: float | None = None,
    ) -> inference_pb2.EmbedResponse:
        """As Conch.embed."""
        request = requests.embed(texts, model, version, kind, num_dimensions, vector_type)
        with typed_errors():
            return await self._stub.Embed(request, **self._call.options(timeout_seconds))

    async def rank(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 0,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.RankResponse:
        """As Conch.rank."""
        request = requests.rank(query, candidates, model, version, top_k)
        with typed_errors():
            return await self._stub.Rank(request, **self._call.options(timeout_seconds))

    async def translate(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        source_language: str = "",
        target_language: str = "",
        timeout_seconds: float | None = None,
        **search: Unpack[Search],
    ) -> inference_pb2.TranslateResponse:
        """As Conch.translate."""
        request = requests.translate(texts, model, version, source_language, target_language, search)
        with typed_errors():
            return await self._stub.Translate(request, **self._call.options(timeout_seconds))

    async def summarize(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **search: Unpack[Search],
    ) -> inference_pb2.SummarizeResponse:
        """As Conch.summarize."""
        request = requests.summarize(texts, model, version, search)
        with typed_errors():
            return await self._stub.Summarize(request, **self._call.options(timeout_seconds))

    def generate(
        self,
        prompt: str,
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[inference_pb2.GenerateResponse]:
        """As Conch.generate."""
        request = requests.generate(prompt, model, version, sampling)
        return AsyncStream(self._stub.Generate(request, **self._call.options(timeout_seconds)))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[inference_pb2.ChatResponse]:
        """As Conch.chat."""
        request = requests.chat(messages, model, version, sampling)
        return AsyncStream(self._stub.Chat(request, **self._call.options(timeout_seconds)))

    async def close(self) -> None:
        """Closes the connections; calls under way end with Cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
