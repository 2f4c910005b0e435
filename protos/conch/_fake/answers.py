"""The fake gateway's answer to any request: what a test has set, else what follows from the text alone.

Knows which module answers which rpc; knows nothing about refusals, calls or sockets.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from conch._fake import embedding, writing
from conch._fake.reading import Reader
from conch._fake.store import Answer, SetAnswers
from conch.v1 import inference_pb2


class FakeAnswers:
    """Answers, without who gave them: the gateway adds that."""

    def __init__(self, labels: Sequence[str], entity_types: Sequence[str], num_dimensions: int) -> None:
        self._set = SetAnswers(num_dimensions)
        self._reader = Reader(self._set, tuple(labels), tuple(entity_types))

    def set(self, text: str, answer: Answer) -> None:
        """See FakeGateway.answer."""
        self._set.set(text, answer)

    def respond(self, rpc: str, request: Any) -> Any:
        """Returns the response of a unary rpc. Raises InvalidArgument for what only an answer shows."""
        by_reading: dict[str, Any] = {
            "Classify": self._reader.classify,
            "ExtractEntities": self._reader.extract_entities,
            "AnswerQuestion": self._reader.answer_question,
        }
        if rpc in by_reading:
            return by_reading[rpc](request)
        others: dict[str, Any] = {
            "Embed": embedding.embed,
            "Rank": embedding.rank,
            "Translate": writing.translate,
            "Summarize": writing.summarize,
        }
        return others[rpc](request, self._set)

    def pieces(self, request: Any) -> Iterator[inference_pb2.TextPiece]:
        """Yields the pieces of a Generate or Chat; the last has the reason and the usage."""
        return writing.pieces(request, self._set)
