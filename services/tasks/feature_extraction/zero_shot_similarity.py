"""Zero-shot classification by similarity: how near a text's vector is to that of "This example is <label>.".

Knows requests, labels and vectors; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example
from services.tasks.feature_extraction.vectors import cosines, vectors_of
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.scores import ranked, softmax
from services.tasks.tensors import Answer, FloatArray
from services.tasks.text_classification.zero_shot import hypotheses


class ZeroShotSimilarity:
    """The caller's own labels, by a model that knows none."""

    def texts(self, request: inference_pb2.ClassifyRequest) -> Sequence[TextField]:
        """The texts alone: `examples` refuses pairs and checks the labels."""
        return (TextField("texts", request.texts),)

    def examples(self, request: inference_pb2.ClassifyRequest, served: Served) -> list[Example]:
        """The texts, then the hypotheses, which all texts share.

        Both bear the prefix of queries: neither is searched for in the other.
        """
        if not request.candidate_labels:
            raise InvalidRequest.field(
                "candidate_labels", "are required: this model has no labels", reason="NO_CANDIDATE_LABELS"
            )
        prefix = served.facts.spec.feature_extraction.query_prefix
        texts = [*request.texts, *hypotheses(request)]
        return [Example(prefix + text, "", None, row) for row, text in enumerate(texts, start=1)]

    def respond(
        self,
        request: inference_pb2.ClassifyRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.ClassifyResponse:
        """Scores, best first. Raises NonFiniteVectorError."""
        vectors, num_texts = vectors_of(answers), len(request.texts)
        similarities = cosines(vectors[:num_texts], vectors[num_texts:])
        temperature = served.facts.spec.feature_extraction.temperature
        scores = _scores(similarities, temperature, multi_label=request.multi_label)
        return inference_pb2.ClassifyResponse(
            classifications=[
                inference_pb2.Classification(
                    labels=ranked(row, request.candidate_labels, request.top_k),
                    tokens=input_tokens(read.windows),
                )
                for row, read in zip(scores.tolist(), encoded[:num_texts], strict=True)
            ]
        )


def _scores(similarities: FloatArray, temperature: float, *, multi_label: bool) -> FloatArray:
    """Returns the score of each text's labels `(text, label)`: softmax at the temperature of the training,
    or each cosine by itself, 0 where text and label have nothing in common."""
    if multi_label:
        return np.maximum(similarities, 0)
    return softmax(similarities / np.float32(temperature))
