"""The rpc ExtractEntities over logits of tokens: typed spans of texts, however long.

Knows requests, responses and which windows a text was read in; how tokens become entities is
`aggregation`'s.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example, Facts
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.tensors import Answer
from services.tasks.token_classification.aggregation import Aggregation, Found, find_entities
from services.tasks.token_classification.spans import read_once
from services.tasks.token_classification.word_pieces import WordPieces

_AGGREGATIONS: dict[int, Aggregation] = {
    inference_pb2.ExtractEntitiesRequest.AGGREGATION_UNSPECIFIED: Aggregation.SIMPLE,
    inference_pb2.ExtractEntitiesRequest.AGGREGATION_SIMPLE: Aggregation.SIMPLE,
    inference_pb2.ExtractEntitiesRequest.AGGREGATION_FIRST: Aggregation.FIRST,
    inference_pb2.ExtractEntitiesRequest.AGGREGATION_AVERAGE: Aggregation.AVERAGE,
    inference_pb2.ExtractEntitiesRequest.AGGREGATION_MAX: Aggregation.MAX,
}


class ExtractEntities:
    """Entities of texts."""

    def texts(self, request: inference_pb2.ExtractEntitiesRequest) -> Sequence[TextField]:
        """The texts."""
        return (TextField("texts", request.texts),)

    def examples(self, request: inference_pb2.ExtractEntitiesRequest, served: Served) -> list[Example]:
        """One a text. Refuses an aggregation that is none and a min_score outside [0, 1]."""
        if request.aggregation not in _AGGREGATIONS:
            raise InvalidRequest.field(
                "aggregation", f"there is no aggregation {request.aggregation}", reason="UNKNOWN_AGGREGATION"
            )
        if not 0 <= request.min_score <= 1:
            raise InvalidRequest.field(
                "min_score", f"must be in [0, 1], is {request.min_score:g}", reason="BAD_MIN_SCORE"
            )
        return [Example(text, "", None, row) for row, text in enumerate(request.texts, start=1)]

    def respond(
        self,
        request: inference_pb2.ExtractEntitiesRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.ExtractEntitiesResponse:
        """Entities in the order of the text."""
        how = _AGGREGATIONS[request.aggregation]
        facts, words = served.facts, served.encoder.words
        return inference_pb2.ExtractEntitiesResponse(
            results=[
                _entities(read, found_in(read, answer, facts, how=how, words=words), request.min_score)
                for read, answer in zip(encoded, answers, strict=True)
            ]
        )


def found_in(
    read: Encoded,
    answer: Answer,
    facts: Facts,
    *,
    how: Aggregation = Aggregation.SIMPLE,
    words: WordPieces | None = None,
) -> list[Found]:
    """Returns the entities of a text in its order; all aggregations but SIMPLE need `words`."""
    text, spec = read.example.text, facts.spec.token_classification
    stride = spec.stride if spec.HasField("stride") else None
    reading = read_once(read.windows, [row["logits"] for row in answer], facts.labels, stride)
    if how is Aggregation.SIMPLE:
        return find_entities(reading, text, facts.labels)
    assert words is not None, "words are what the other aggregations are about"
    continues = words.continuations(reading.ids, reading.offsets, text)
    return find_entities(reading, text, facts.labels, how=how, continues=continues)


def _entities(read: Encoded, found: Sequence[Found], min_score: float) -> inference_pb2.Entities:
    text = read.example.text
    return inference_pb2.Entities(
        entities=[
            inference_pb2.Entity(
                label=one.label, text=text[one.start : one.end], score=one.score, start=one.start, end=one.end
            )
            for one in found
            if one.score >= min_score
        ],
        tokens=input_tokens(read.windows),
    )
