"""The rpc AnswerQuestion over start and end logits: spans of a context, best first.

Knows requests and answers; the search itself is `answer_spans`.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2
from services.errors import InvalidRequest
from services.tasks.example import Encoded, Example, Facts
from services.tasks.question_answering.answer_spans import Found, find_answers
from services.tasks.rpcs import Served, TextField, input_tokens
from services.tasks.tensors import Answer

MAX_ANSWER_TOKENS = 512
"""The most tokens of an answer that may be asked for."""
_DEFAULT_MAX_ANSWER_TOKENS = 30
_MAX_TOP_K = 100


class AnswerQuestion:
    """Answers to questions, each in its context or all in one."""

    def texts(self, request: inference_pb2.AnswerQuestionRequest) -> Sequence[TextField]:
        """Questions, and as many contexts or one."""
        return TextField("questions", request.questions), TextField("contexts", request.contexts)

    def examples(self, request: inference_pb2.AnswerQuestionRequest, served: Served) -> list[Example]:
        """One a question."""
        _check_options(request)
        questions, contexts = request.questions, request.contexts
        if len(contexts) not in (1, len(questions)):
            raise InvalidRequest.field(
                "contexts",
                f"{len(contexts)} for {len(questions)} questions; send one for each or one for all",
                reason="CONTEXTS_MISMATCH",
            )
        of_each = contexts if len(contexts) == len(questions) else [contexts[0]] * len(questions)
        both = zip(questions, of_each, strict=True)
        return [
            Example(question, context, None, row) for row, (question, context) in enumerate(both, start=1)
        ]

    def respond(
        self,
        request: inference_pb2.AnswerQuestionRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.AnswerQuestionResponse:
        """The best spans of each context, or none where that is likely enough."""
        max_tokens = request.max_answer_tokens or max_tokens_of(served.facts)
        results = []
        for read, answer in zip(encoded, answers, strict=True):
            found = find_answers(read, answer, top_k=request.top_k or 1, max_tokens=max_tokens)
            results.append(_result(request, read, found))
        return inference_pb2.AnswerQuestionResponse(results=results)


def max_tokens_of(facts: Facts) -> int:
    """Returns the most tokens of an answer where a request asks for no number."""
    return int(facts.spec.question_answering.max_answer_tokens) or _DEFAULT_MAX_ANSWER_TOKENS


def _check_options(request: inference_pb2.AnswerQuestionRequest) -> None:
    for name, value, most in (
        ("top_k", request.top_k, _MAX_TOP_K),
        ("max_answer_tokens", request.max_answer_tokens, MAX_ANSWER_TOKENS),
    ):
        if value > most:
            raise InvalidRequest.field(
                name, f"{value}, at most {most} may be asked for", reason="OUT_OF_RANGE"
            )
    threshold = request.no_answer_threshold
    if not 0 <= threshold <= 1:
        raise InvalidRequest.field(
            "no_answer_threshold", f"{threshold:g} is not in [0, 1]", reason="OUT_OF_RANGE"
        )


def _result(
    request: inference_pb2.AnswerQuestionRequest, read: Encoded, found: Found
) -> inference_pb2.QuestionAnswers:
    context = read.example.text_pair
    refused = request.HasField("no_answer_threshold") and found.no_answer_score >= request.no_answer_threshold
    return inference_pb2.QuestionAnswers(
        answers=[
            inference_pb2.SpanAnswer(
                text=context[span.start : span.end], score=span.score, start=span.start, end=span.end
            )
            for span in (() if refused else found.spans)
        ],
        no_answer_score=found.no_answer_score,
        tokens=input_tokens(read.windows),
    )
