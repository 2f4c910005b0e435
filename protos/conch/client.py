"""The client that other teams install: typed answers, a deadline on every call, typed errors.

    from conch.client import Conch

    with Conch("conch-gateway:50051") as conch:
        answer = conch.classify(["great film"], model="sentiment")
        print(answer.classifications[0].labels[0].label)

Answers are the contract's own messages (`conch.v1.inference_pb2`); errors are `conch.errors`. Calls
are spread over all addresses behind the target (round robin) and repeated by the channel, with
growing waits, while the service is UNAVAILABLE. Knows nothing about models or tokens.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import grpc

from conch import requests
from conch.aio import AsyncConch
from conch.channels import CallSettings, Metadata, channel_options, open_channel, typed_errors
from conch.errors import ConchError
from conch.requests import Aggregation, Kind, Message, Sampling, Search, VectorType
from conch.streams import Stream, text_of
from conch.v1 import inference_pb2, inference_pb2_grpc

__all__ = ["AsyncConch", "Conch", "ConchError", "Stream", "channel_options", "text_of"]


class Conch:
    """A gateway at `target` (host:port, or any gRPC name such as dns:///gateway:50051); thread-safe.

    `timeout_seconds` is the deadline of every call that brings none of its own; a stream's is for the
    whole of it. `credentials` turns TLS on (`grpc.ssl_channel_credentials()`); without it the connection
    is plaintext. `metadata` goes with every call.

    Of every method: `model` is required, `version` 0 lets the route decide, and a subclass of
    `conch.errors.ConchError` is raised.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        self._call = CallSettings(timeout_seconds, metadata)
        self._channel = open_channel(target, credentials)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    def classify(
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
        """Returns for each text (or pair of texts) its labels with scores, best first.

        `top_k` 0 asks for all labels. With `candidate_labels` the labels are yours (zero-shot): each is put
        into `hypothesis_template` where {} stands, and with `multi_label` several may fit one text.
        Regression models give a `value` instead of labels.
        """
        request = requests.classify(
            texts, model, version, top_k, text_pairs, candidate_labels, hypothesis_template, multi_label
        )
        with typed_errors():
            return self._stub.Classify(request, **self._call.options(timeout_seconds))

    def extract_entities(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        aggregation: Aggregation = "simple",
        min_score: float = 0.0,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.ExtractEntitiesResponse:
        """Returns the entities of each text, in its order; offsets are indices into the str.

        `aggregation` says how the tokens of a word that disagree are settled; entities below `min_score`
        are left out. Texts of any length are read whole.
        """
        request = requests.extract_entities(texts, model, version, aggregation, min_score)
        with typed_errors():
            return self._stub.ExtractEntities(request, **self._call.options(timeout_seconds))

    def answer_questions(
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
        """Returns for each question the spans of its context that answer it, best first.

        One context alone serves all questions. Without `no_answer_threshold` the best span is always given;
        with it there is none where "no answer" is at least as probable.
        """
        request = requests.answer_questions(
            questions, contexts, model, version, top_k, max_answer_tokens, no_answer_threshold
        )
        with typed_errors():
            return self._stub.AnswerQuestion(request, **self._call.options(timeout_seconds))

    def embed(
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
        """Returns each text's vector, packed; `conch.vectors` makes numbers of it.

        `kind` "query" is for what is searched with. `num_dimensions` 0 asks for all; int8 vectors are a
        quarter of the size on the wire.
        """
        request = requests.embed(texts, model, version, kind, num_dimensions, vector_type)
        with typed_errors():
            return self._stub.Embed(request, **self._call.options(timeout_seconds))

    def rank(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        model: str,
        version: int = 0,
        top_k: int = 0,
        timeout_seconds: float | None = None,
    ) -> inference_pb2.RankResponse:
        """Returns places and scores of the candidates, best first; `top_k` 0 asks for all of them."""
        request = requests.rank(query, candidates, model, version, top_k)
        with typed_errors():
            return self._stub.Rank(request, **self._call.options(timeout_seconds))

    def translate(
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
        """Returns each text's translation.

        Languages are BCP 47 tags such as "en"; both may be left out if the model knows a single pair.
        `search` are the fields of SearchOptions, such as `num_beams=4`.
        """
        request = requests.translate(texts, model, version, source_language, target_language, search)
        with typed_errors():
            return self._stub.Translate(request, **self._call.options(timeout_seconds))

    def summarize(
        self,
        texts: Sequence[str],
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **search: Unpack[Search],
    ) -> inference_pb2.SummarizeResponse:
        """Returns each text's summary; `search` as for translate."""
        request = requests.summarize(texts, model, version, search)
        with typed_errors():
            return self._stub.Summarize(request, **self._call.options(timeout_seconds))

    def generate(
        self,
        prompt: str,
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream[inference_pb2.GenerateResponse]:
        """Returns the continuation of a prompt, as a stream of pieces.

        `sampling` are the fields of SamplingOptions, such as `temperature=0.7, max_tokens=50`; a
        `json_schema` may be a dict. Errors come out of the loop; leaving the loop cancels the call.
        """
        request = requests.generate(prompt, model, version, sampling)
        return Stream(self._stub.Generate(request, **self._call.options(timeout_seconds)))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        version: int = 0,
        timeout_seconds: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream[inference_pb2.ChatResponse]:
        """Returns the assistant's answer to a conversation, as a stream of pieces.

        A message is a dict: {"role": "system", "user" or "assistant", "content": "..."}. `sampling` as for
        generate. FailedPrecondition: the model has no chat template.
        """
        request = requests.chat(messages, model, version, sampling)
        return Stream(self._stub.Chat(request, **self._call.options(timeout_seconds)))

    def close(self) -> None:
        """Closes the connections; calls under way end with Cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
