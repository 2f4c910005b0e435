"""The rpc Classify over logits: labels with softmax scores.

Knows requests and logits; knows nothing about how models are trained or run.
"""

import math
from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.tensors import Answer, FloatArray


class Classify:
    """Labels of texts or pairs of texts."""

    def texts(self, request: inference_pb2.ClassifyRequest) -> Sequence[TextField]:
        """Texts, and as many second texts or none."""
        pairs = TextField("text_pairs", request.text_pairs, least=0)
        return TextField("texts", request.texts), pairs

    def examples(self, request: inference_pb2.ClassifyRequest, served: Served) -> list[Example]:
        """One a text."""
        texts, pairs = request.texts, request.text_pairs
        if pairs and len(pairs) != len(texts):
            raise InvalidRequest.field(
                "text_pairs",
                f"{len(pairs)} for {len(texts)} texts; send one for each or none",
                reason="PAIRS_MISMATCH",
            )
        seconds = pairs or [""] * len(texts)
        both = zip(texts, seconds, strict=True)
        return [Example(text, pair, None, row) for row, (text, pair) in enumerate(both, start=1)]

    def respond(
        self,
        request: inference_pb2.ClassifyRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.ClassifyResponse:
        """Softmax scores, best first."""
        labels, top_k = served.facts.labels, request.top_k
        return inference_pb2.ClassifyResponse(
            classifications=[
                inference_pb2.Classification(
                    labels=best_labels(answer[0]["logits"], labels, top_k), tokens=input_tokens(read.windows)
                )
                for read, answer in zip(encoded, answers, strict=True)
            ]
        )


def best_labels(logits: FloatArray, labels: Sequence[str], top_k: int) -> list[inference_pb2.LabelScore]:
    """Returns the `top_k` best labels (0 = all), best first, of one row of logits `(label,)`."""
    # Plain Python: on a handful of labels numpy's seven calls cost three times as much.
    values: list[float] = logits.tolist()
    highest = max(values)
    weights = [math.exp(value - highest) for value in values]
    total = sum(weights)
    best = sorted(range(len(values)), key=values.__getitem__, reverse=True)[: top_k or None]
    return [inference_pb2.LabelScore(label=labels[i], score=weights[i] / total) for i in best]


def softmax(logits: FloatArray) -> FloatArray:
    """Returns probabilities over the last axis, shifted by the maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)
