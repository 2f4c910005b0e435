"""What the fake gateway reads in texts: labels, entities, answers.

Knows the contract's messages; knows nothing about calls or sockets.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from conch._fake.noise import deterministic_scores, pick, probability, tokens_of
from conch._fake.store import SetAnswers
from conch.errors import InvalidArgument
from conch.v1 import inference_pb2

_NAME = re.compile(r"\b[A-Z]\w*(?: [A-Z]\w*)*")
_NO_ANSWER_SCORE = 0.1


@dataclass(frozen=True)
class Reader:
    """Reads with these labels and entity types, and with what a test has set."""

    answers: SetAnswers
    labels: Sequence[str]
    entity_types: Sequence[str]

    def classify(self, request: inference_pb2.ClassifyRequest) -> inference_pb2.ClassifyResponse:
        """Returns each text's labels, best first, or the number that was set for it."""
        pairs = zip_longest(request.texts, request.text_pairs, fillvalue="")
        rows = [self._classification(text, pair, request) for text, pair in pairs]
        return inference_pb2.ClassifyResponse(classifications=rows)

    def extract_entities(
        self, request: inference_pb2.ExtractEntitiesRequest
    ) -> inference_pb2.ExtractEntitiesResponse:
        """Returns the spans set for each text, else its capitalized words."""
        results = []
        for text in request.texts:
            entities = [entity for entity in self._entities(text) if entity.score >= request.min_score]
            results.append(inference_pb2.Entities(entities=entities, tokens=tokens_of(text)))
        return inference_pb2.ExtractEntitiesResponse(results=results)

    def answer_question(
        self, request: inference_pb2.AnswerQuestionRequest
    ) -> inference_pb2.AnswerQuestionResponse:
        """Returns the text set for each question, else words of its context."""
        contexts = list(request.contexts)
        if len(contexts) == 1:
            contexts *= len(request.questions)
        pairs = zip(request.questions, contexts, strict=True)
        results = [self._question_answers(question, context, request) for question, context in pairs]
        return inference_pb2.AnswerQuestionResponse(results=results)

    def _classification(
        self, text: str, pair: str, request: inference_pb2.ClassifyRequest
    ) -> inference_pb2.Classification:
        tokens = tokens_of(text, pair)
        if text in self.answers.numbers:
            return inference_pb2.Classification(value=self.answers.numbers[text], tokens=tokens)
        scores = self.answers.scores.get(text) or self._scores(text + pair, request)
        ranked = sorted(scores.items(), key=lambda item: -item[1])[: request.top_k or None]
        labels = [inference_pb2.LabelScore(label=label, score=score) for label, score in ranked]
        return inference_pb2.Classification(labels=labels, tokens=tokens)

    def _scores(self, text: str, request: inference_pb2.ClassifyRequest) -> dict[str, float]:
        if request.candidate_labels and request.multi_label:
            return {label: probability(label, text) for label in request.candidate_labels}
        return deterministic_scores(text, request.candidate_labels or self.labels)

    def _entities(self, text: str) -> Iterator[inference_pb2.Entity]:
        for start, span, label in self._spans(text):
            score = 0.5 + probability(span, text) / 2
            end = start + len(span)
            yield inference_pb2.Entity(label=label, text=span, score=score, start=start, end=end)

    def _spans(self, text: str) -> list[tuple[int, str, str]]:
        known = self.answers.spans.get(text)
        if known is not None:
            return sorted((text.index(span), span, label) for span, label in known.items())
        names = _NAME.finditer(text)
        return [(name.start(), name.group(), pick(self.entity_types, name.group())) for name in names]

    def _question_answers(
        self, question: str, context: str, request: inference_pb2.AnswerQuestionRequest
    ) -> inference_pb2.QuestionAnswers:
        spans = self._answer_spans(question, context)[: request.top_k or 1]
        no_answer_score = _NO_ANSWER_SCORE if spans else 1.0
        if request.HasField("no_answer_threshold") and no_answer_score >= request.no_answer_threshold:
            spans = []
        answers = [
            inference_pb2.SpanAnswer(text=span, score=0.9 / 2**i, start=start, end=start + len(span))
            for i, (start, span) in enumerate(spans)
        ]
        return inference_pb2.QuestionAnswers(
            answers=answers, no_answer_score=no_answer_score, tokens=tokens_of(question, context)
        )

    def _answer_spans(self, question: str, context: str) -> list[tuple[int, str]]:
        known = self.answers.texts.get(question)
        if known is None:
            words = [(word.start(), word.group()) for word in re.finditer(r"\S+", context)]
            return sorted(words, key=lambda word: probability(question, *map(str, word)))
        if known not in context:
            message = f"the answer set for {question!r}, {known!r}, does not stand in the context"
            raise InvalidArgument(message, reason="ANSWER_NOT_IN_CONTEXT")
        return [(context.index(known), known)] if known else []
