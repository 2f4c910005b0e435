"""AnswerQuestion checks what it is asked and answers with pieces of the contexts."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from conch.v1 import inference_pb2, tasks_pb2
from examples.assets import minilm
from services.errors import InvalidRequest
from services.tasks import Facts, find_task
from services.tasks.encoding import Encoder
from services.tasks.rpcs import Served

TASK = find_task("question-answering")
RPC: Any = TASK.rpcs["AnswerQuestion"]
CONTEXT = "Ada met Bob in Köln 🎬 and wrote 電影."


class Version(Served):
    """A version that answers."""

    def __init__(self, max_answer_tokens: int = 0) -> None:
        self._spec = tasks_pb2.TaskSpec()
        self._spec.question_answering.max_answer_tokens = max_answer_tokens

    @property
    def facts(self) -> Facts:
        return Facts((), self._spec)

    @property
    def encoder(self) -> Encoder:
        return _encoder()


@cache
def _encoder() -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", 64)


def request(**fields: Any) -> inference_pb2.AnswerQuestionRequest:
    asked: dict[str, Any] = {"model": "faq", "questions": ["Who?"], "contexts": [CONTEXT], **fields}
    return inference_pb2.AnswerQuestionRequest(**asked)


def respond(
    asked: inference_pb2.AnswerQuestionRequest,
    peak: str,
    *,
    null: float = -5.0,
    version: Served | None = None,
) -> inference_pb2.AnswerQuestionResponse:
    """Returns the response where the logits of every context point at the words `peak`."""
    version = version or Version()
    encoded = TASK.encode(version.encoder, RPC.examples(asked, version), version.facts)
    answers = []
    for one in encoded:
        start, rows = one.example.text_pair.index(peak), []
        for window in one.windows:
            assert window.spans is not None
            row = {n: np.zeros(len(window), np.float32) for n in ("start_logits", "end_logits")}
            row["start_logits"][0] = row["end_logits"][0] = null
            for i, ((s, e), q) in enumerate(
                zip(window.spans.offsets, window.spans.sequence_ids, strict=True)
            ):
                row["start_logits"][i] += 12 * (q == 1 and s == start)
                row["end_logits"][i] += 12 * (q == 1 and e == start + len(peak))
            rows.append(row)
        answers.append(rows)
    response: inference_pb2.AnswerQuestionResponse = RPC.respond(asked, encoded, answers, version)
    return response


def refusal(**fields: Any) -> tuple[str, str]:
    asked = request(**fields)
    with pytest.raises(InvalidRequest) as caught:
        TASK.encode(_encoder(), RPC.examples(asked, Version()), Version().facts)
    [violation] = caught.value.violations
    return violation.field, caught.value.reason


@pytest.mark.parametrize("peak", ["Köln", "電影", "🎬", "Ada met Bob"])
def test_an_answer_is_a_piece_of_its_context_with_its_code_points(peak: str) -> None:
    [result] = respond(request(), peak).results
    [answer] = result.answers
    assert (answer.text, CONTEXT[answer.start : answer.end]) == (peak, peak)
    assert 0.9 < answer.score <= 1
    assert result.no_answer_score < 0.01
    assert (result.tokens.num_windows, result.tokens.truncated) == (1, False)
    assert result.tokens.num_tokens > 15


def test_one_context_serves_all_questions_or_each_has_its_own() -> None:
    shared = respond(request(questions=["Who?", "Where?"]), "Köln")
    assert [result.answers[0].text for result in shared.results] == ["Köln", "Köln"]
    own = RPC.examples(request(questions=["Who?", "Where?"], contexts=["one", "two"]), Version())
    assert [(e.text, e.text_pair, e.target) for e in own] == [("Who?", "one", None), ("Where?", "two", None)]


@pytest.mark.parametrize(("questions", "contexts"), [(2, 3), (3, 2), (1, 2)])
def test_another_number_of_contexts_is_refused(questions: int, contexts: int) -> None:
    asked = {"questions": ["Who?"] * questions, "contexts": [CONTEXT] * contexts}
    assert refusal(**asked) == ("contexts", "CONTEXTS_MISMATCH")


def test_both_fields_are_checked_by_the_gateway_as_texts() -> None:
    fields = RPC.texts(request(questions=["a", "b"]))
    assert [(f.name, list(f.texts), f.least) for f in fields] == [
        ("questions", ["a", "b"], 1),
        ("contexts", [CONTEXT], 1),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 101),
        ("max_answer_tokens", 513),
        ("no_answer_threshold", -0.1),
        ("no_answer_threshold", 1.01),
        ("no_answer_threshold", float("nan")),
    ],
)
def test_options_out_of_range_are_refused(field: str, value: float) -> None:
    assert refusal(**{field: value}) == (field, "OUT_OF_RANGE")


def test_a_question_too_long_for_a_window_is_named() -> None:
    asked = {"questions": ["Who?", "who " * 60], "contexts": ["film " * 90]}
    assert refusal(**asked) == ("questions[1]", "QUESTION_TOO_LONG")


def test_no_answer_is_given_from_the_threshold_on_and_only_if_one_is_set() -> None:
    unsure = {"null": 12.0}
    score = respond(request(), "Köln", **unsure).results[0].no_answer_score
    assert 0.2 < score < 0.3
    assert respond(request(), "Köln", **unsure).results[0].answers[0].text == "Köln"
    for threshold, given in ((0.2, 0), (0.3, 1), (0.0, 0), (1.0, 1)):
        [result] = respond(request(no_answer_threshold=threshold), "Köln", **unsure).results
        assert len(result.answers) == given
        assert result.no_answer_score == pytest.approx(score)


def test_as_many_answers_come_as_are_asked_for_best_first() -> None:
    assert len(respond(request(), "Köln").results[0].answers) == 1
    [result] = respond(request(top_k=7), "Köln").results
    scores = [answer.score for answer in result.answers]
    assert len(scores) == 7
    assert scores == sorted(scores, reverse=True)


def test_the_longest_answer_is_the_requests_else_the_models() -> None:
    whole = "Ada met Bob in Köln"
    for version, asked, found in ((Version(0), 0, whole), (Version(2), 0, ""), (Version(2), 5, whole)):
        [result] = respond(request(max_answer_tokens=asked), whole, version=version).results
        assert (result.answers[0].text == whole) is bool(found)
