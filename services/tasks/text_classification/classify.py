"""The rpc Classify of text-classification: the model's own labels, or the caller's by entailment.

Knows requests and logits; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.tensors import Answer
from services.tasks.text_classification import zero_shot
from services.tasks.text_classification.problem_types import problem_of


class Classify:
    """Labels of texts or pairs of texts."""

    def texts(self, request: inference_pb2.ClassifyRequest) -> Sequence[TextField]:
        """Texts, and as many second texts or none."""
        pairs = TextField("text_pairs", request.text_pairs, least=0)
        return TextField("texts", request.texts), pairs

    def examples(self, request: inference_pb2.ClassifyRequest, served: Served) -> list[Example]:
        """One a text; for zero-shot, one for each text and candidate label."""
        if request.candidate_labels:
            zero_shot.entailment(served.facts)
            return zero_shot.pairs(request)
        texts, pairs = request.texts, request.text_pairs
        if pairs and len(pairs) != len(texts):
            raise InvalidRequest.field(
                "text_pairs",
                f"{len(pairs)} for {len(texts)} texts; send one for each or none",
                reason="PAIRS_MISMATCH",
            )
        both = zip(texts, pairs or [""] * len(texts), strict=True)
        return [Example(text, pair, None, row) for row, (text, pair) in enumerate(both, start=1)]

    def respond(
        self,
        request: inference_pb2.ClassifyRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.ClassifyResponse:
        """Scores, best first."""
        if request.candidate_labels:
            found = zero_shot.classifications(request, encoded, answers, served.facts)
        else:
            found = [_classified(*one, request.top_k, served) for one in zip(encoded, answers, strict=True)]
        return inference_pb2.ClassifyResponse(classifications=found)


def _classified(encoded: Encoded, answer: Answer, top_k: int, served: Served) -> inference_pb2.Classification:
    facts = served.facts
    found = problem_of(facts).decode(answer[0]["logits"], facts.labels, top_k)
    found.tokens.CopyFrom(input_tokens(encoded.windows))
    return found
