"""One builder a request, so that both clients ask alike.

Knows the contract's messages and the mistakes that types do not catch: one text where a list of texts
belongs. What else is wrong with a request, the gateway says.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from conch.v1 import inference_pb2

Message = inference_pb2.ChatMessage | Mapping[str, str]
"""A turn of a conversation, as the contract's message or as {"role": "user", "content": "..."}."""
Aggregation = Literal["simple", "first", "average", "max"]
Kind = Literal["passage", "query"]
VectorType = Literal["float32", "int8"]


class Search(TypedDict, total=False):
    """How sequences are searched for; each as in SearchOptions, unset means the model's own."""

    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    length_penalty: float | None
    no_repeat_ngram_size: int


class Sampling(TypedDict, total=False):
    """How tokens are chosen and when to end; each as in SamplingOptions, unset means its default."""

    temperature: float | None
    top_k: int
    top_p: float | None
    min_p: float
    repetition_penalty: float | None
    seed: int | None
    stop: Sequence[str]
    max_tokens: int | None
    min_tokens: int
    num_logprobs: int | None
    json_schema: str | Mapping[str, Any]


def classify(
    texts: Sequence[str],
    model: str,
    version: int,
    top_k: int,
    text_pairs: Sequence[str],
    candidate_labels: Sequence[str],
    hypothesis_template: str,
    multi_label: bool,
) -> inference_pb2.ClassifyRequest:
    """Returns the request. Raises TypeError if one text stands for the list of texts."""
    return inference_pb2.ClassifyRequest(
        model=model,
        version=version,
        texts=_several(texts, "texts"),
        text_pairs=_several(text_pairs, "text_pairs"),
        top_k=top_k,
        candidate_labels=_several(candidate_labels, "candidate_labels"),
        hypothesis_template=hypothesis_template,
        multi_label=multi_label,
    )


def extract_entities(
    texts: Sequence[str], model: str, version: int, aggregation: Aggregation, min_score: float
) -> inference_pb2.ExtractEntitiesRequest:
    """Returns the request. Raises TypeError as classify, ValueError for an unknown aggregation."""
    return inference_pb2.ExtractEntitiesRequest(
        model=model,
        version=version,
        texts=_several(texts, "texts"),
        aggregation=_chosen(inference_pb2.ExtractEntitiesRequest.Aggregation, "AGGREGATION", aggregation),
        min_score=min_score,
    )


def answer_questions(
    questions: Sequence[str],
    contexts: Sequence[str],
    model: str,
    version: int,
    top_k: int,
    max_answer_tokens: int,
    no_answer_threshold: float | None,
) -> inference_pb2.AnswerQuestionRequest:
    """Returns the request. Raises TypeError as classify."""
    return inference_pb2.AnswerQuestionRequest(
        model=model,
        version=version,
        questions=_several(questions, "questions"),
        contexts=_several(contexts, "contexts"),
        top_k=top_k,
        max_answer_tokens=max_answer_tokens,
        no_answer_threshold=no_answer_threshold,
    )


def embed(
    texts: Sequence[str], model: str, version: int, kind: Kind, num_dimensions: int, vector_type: VectorType
) -> inference_pb2.EmbedRequest:
    """Returns the request. Raises TypeError as classify, ValueError for an unknown kind or type."""
    return inference_pb2.EmbedRequest(
        model=model,
        version=version,
        texts=_several(texts, "texts"),
        kind=_chosen(inference_pb2.EmbedRequest.Kind, "KIND", kind),
        num_dimensions=num_dimensions,
        vector_type=_chosen(inference_pb2.VectorType, "VECTOR_TYPE", vector_type),
    )


def rank(
    query: str, candidates: Sequence[str], model: str, version: int, top_k: int
) -> inference_pb2.RankRequest:
    """Returns the request. Raises TypeError as classify."""
    texts = _several(candidates, "candidates")
    return inference_pb2.RankRequest(model=model, version=version, query=query, candidates=texts, top_k=top_k)


def translate(
    texts: Sequence[str],
    model: str,
    version: int,
    source_language: str,
    target_language: str,
    options: Search,
) -> inference_pb2.TranslateRequest:
    """Returns the request. Raises TypeError as classify."""
    return inference_pb2.TranslateRequest(
        model=model,
        version=version,
        texts=_several(texts, "texts"),
        source_language=source_language,
        target_language=target_language,
        options=inference_pb2.SearchOptions(**options),
    )


def summarize(
    texts: Sequence[str], model: str, version: int, options: Search
) -> inference_pb2.SummarizeRequest:
    """Returns the request. Raises TypeError as classify."""
    return inference_pb2.SummarizeRequest(
        model=model,
        version=version,
        texts=_several(texts, "texts"),
        options=inference_pb2.SearchOptions(**options),
    )


def generate(prompt: str, model: str, version: int, sampling: Sampling) -> inference_pb2.GenerateRequest:
    """Returns the request. Raises TypeError as sampling_options."""
    options = sampling_options(**sampling)
    return inference_pb2.GenerateRequest(model=model, version=version, prompt=prompt, sampling=options)


def chat(
    messages: Sequence[Message], model: str, version: int, sampling: Sampling
) -> inference_pb2.ChatRequest:
    """Returns the request. Raises TypeError if one text stands for the list of messages."""
    if isinstance(messages, str | Mapping):
        raise TypeError('messages is a list: [{"role": "user", "content": "..."}]')
    return inference_pb2.ChatRequest(
        model=model,
        version=version,
        messages=[_message(message) for message in messages],
        sampling=sampling_options(**sampling),
    )


def sampling_options(**sampling: Unpack[Sampling]) -> inference_pb2.SamplingOptions:
    """Returns the options; a schema may be a dict or JSON text. Raises TypeError for one text as `stop`."""
    fields: dict[str, Any] = dict(sampling)
    if "stop" in fields:
        fields["stop"] = _several(fields["stop"], "stop")
    schema = fields.get("json_schema", "")
    if not isinstance(schema, str):
        fields["json_schema"] = json.dumps(schema)
    return inference_pb2.SamplingOptions(**fields)


def _message(message: Message) -> inference_pb2.ChatMessage:
    if isinstance(message, inference_pb2.ChatMessage):
        return message
    return inference_pb2.ChatMessage(**message)


def _several(texts: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(texts, str):
        raise TypeError(f'{name} is a list of texts: ["..."], not one text')
    return texts


def _chosen(kind: Any, prefix: str, name: str) -> Any:
    """Returns the enum's value for its short name in lower case, as "int8" for VECTOR_TYPE_INT8."""
    known = {full.removeprefix(f"{prefix}_").lower(): value for full, value in kind.items() if value}
    if name not in known:
        raise ValueError(f"{prefix.lower()} is {name!r}, it must be one of {', '.join(known)}")
    return known[name]
