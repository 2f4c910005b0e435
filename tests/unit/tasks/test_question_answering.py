"""The task's facts: what it reads and refuses, how it scores answers, and what parity figures show."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from conch.v1 import job_pb2, tasks_pb2
from examples.assets import minilm
from services.errors import InvalidRequest
from services.tasks import Encoded, Example, Facts, find_task
from services.tasks.encoding import Encoder

TASK = find_task("question-answering")
SPEC = tasks_pb2.TaskSpec()
FACTS = TASK.settle([], SPEC)
CONTEXT = "Ada met Bob in Rome on Friday with Carl and Dora"


@cache
def encoder(max_length: int = 64) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


def example(answer: str | None = "", *, context: str = CONTEXT, row: int = 1) -> Example:
    """Returns an example: its answer's text, "" where there is none, None where none is known."""
    start = context.index(answer) if answer else 0
    target = None if answer is None else [[start, start + len(answer)]] if answer else []
    return Example("Who was it?", context, target, row)


def encode(*examples: Example, max_length: int = 64) -> list[Encoded]:
    return TASK.encode(encoder(max_length), examples, FACTS)


def answer_of(one: Encoded, text: str, *, sure: float = 9.0) -> list[dict[str, Any]]:
    """Returns logits that say `text` in each window that has it, else that there is no answer."""
    start = one.example.text_pair.index(text)
    rows = []
    for window in one.windows:
        assert window.spans is not None
        row = {name: np.zeros(len(window), np.float32) for name in ("start_logits", "end_logits")}
        for i, ((s, e), q) in enumerate(zip(window.spans.offsets, window.spans.sequence_ids, strict=True)):
            row["start_logits"][i] += sure * (q == 1 and s == start)
            row["end_logits"][i] += sure * (q == 1 and e == start + len(text))
        if not text or not row["start_logits"].any():
            row = {name: np.eye(1, len(window), dtype=np.float32)[0] * sure for name in row}
        rows.append(row)
    return rows


# What it reads


def test_a_row_is_a_question_with_its_context_and_the_places_of_its_answers() -> None:
    answers = [{"text": "Rome", "answer_start": 15}]
    read = TASK.read({"question": "Where?", "context": CONTEXT, "answers": answers}, 7, SPEC)
    assert read == Example("Where?", CONTEXT, [[15, 19]], 7)


@pytest.mark.parametrize("role", ["question", "context"])
@pytest.mark.parametrize(
    ("value", "complaint"), [(" ", "is empty"), (None, "is missing"), (7, "is not a string")]
)
def test_an_empty_question_or_context_is_refused(role: str, value: Any, complaint: str) -> None:
    values = {"question": "Where?", "context": CONTEXT, "answers": [], role: value}
    with pytest.raises(ValueError, match=f"{role} {complaint}"):
        TASK.read(values, 7, SPEC)


def test_defaults_are_filled_in_and_what_was_asked_for_is_kept() -> None:
    assert FACTS.labels == ()
    assert FACTS.spec.question_answering.max_answer_tokens == 30
    assert TASK.config(FACTS) == {"num_labels": 2}
    asked = tasks_pb2.TaskSpec()
    asked.question_answering.max_answer_tokens = 7
    asked.question_answering.stride = 3
    assert TASK.settle([], asked).spec == asked


def test_a_longest_answer_beyond_the_range_is_refused_when_the_job_is_made() -> None:
    spec = tasks_pb2.TaskSpec()
    spec.question_answering.max_answer_tokens = 513
    [problem] = TASK.check_spec(spec)
    assert problem.field == "spec.task_spec.question_answering.max_answer_tokens"
    spec.question_answering.max_answer_tokens = 512
    assert TASK.check_spec(spec) == []


def test_a_split_without_any_answer_is_refused() -> None:
    [problem] = TASK.find_problems([example("")], [], FACTS)
    assert "no question has an answer" in problem.description
    assert TASK.find_problems([example(""), example("Bob")], [], FACTS) == []


def test_questions_without_answer_are_a_stratum_unless_there_is_but_one() -> None:
    some, none = example("Bob"), example("")
    assert TASK.strata([some, none, none, some]) == [
        "answerable",
        "unanswerable",
        "unanswerable",
        "answerable",
    ]
    assert TASK.strata([some, some, none]) == ["", "", ""]


def test_a_stride_that_is_none_is_refused() -> None:
    facts = Facts((), tasks_pb2.TaskSpec())
    facts.spec.question_answering.stride = 32
    with pytest.raises(InvalidRequest, match="stride: 32 tokens; below half of max_length, 64"):
        TASK.encode(encoder(), [example("Bob")], facts)
    facts.spec.question_answering.stride = 0
    long = example("Bob", context=CONTEXT + " and so on" * 40)
    [one] = TASK.encode(encoder(), [long], facts)
    assert len(one.windows) > 1


def test_a_known_question_too_long_for_a_window_is_named_by_its_row() -> None:
    bad = Example("who " * 80, "film " * 80, [[0, 4]], 7)
    with pytest.raises(InvalidRequest, match="row 7: the question has 80 tokens; at most 44 leave room"):
        encode(example("Bob"), bad)


def test_an_answer_that_no_window_holds_whole_is_named_by_its_row() -> None:
    context = "film " * 200
    examples = [Example("who?", context, [[0, 600]], row) for row in (3, 8)]
    with pytest.raises(InvalidRequest, match="rows 3, 8: no window holds the answer whole"):
        encode(example("Bob"), *examples)


def test_targets_are_one_a_window() -> None:
    context = "film " * 60 + CONTEXT
    [one] = encode(example("Rome", context=context), max_length=32)
    targets = TASK.targets(one, FACTS)
    assert len(targets) == len(one.windows) > 2
    assert all(set(t) == {"start_positions", "end_positions"} for t in targets)
    held = [int(t["start_positions"]) for t in targets]
    assert held[0] == 0
    assert max(held) > 0


# How it scores


def test_metrics_are_the_means_of_squads_scores() -> None:
    encoded = encode(example("Bob"), example("Rome"), example("Ada"))
    answers = [answer_of(encoded[0], "Bob"), answer_of(encoded[1], "in Rome"), answer_of(encoded[2], "Carl")]
    found = TASK.evaluate(encoded, answers, FACTS)
    assert found.num_examples == 3
    assert found.metrics["exact_match"] == pytest.approx(1 / 3)
    assert found.metrics["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert "no_answer_accuracy" not in found.metrics


def test_without_unanswerable_questions_the_best_span_is_always_the_answer() -> None:
    encoded = encode(example("Bob"))
    answer = answer_of(encoded[0], "Bob")
    answer[0]["start_logits"][0] = answer[0]["end_logits"][0] = 20.0
    assert TASK.evaluate(encoded, [answer], FACTS).metrics["exact_match"] == 1
    both = encode(example("Bob"), example(""))
    found = TASK.evaluate(both, [answer, answer], FACTS)
    assert found.metrics["exact_match"] == 0.5
    assert found.metrics["no_answer_accuracy"] == 1


def test_no_answer_accuracy_is_the_share_of_unanswerable_questions_left_unanswered() -> None:
    encoded = encode(example(""), example(""), example("Bob"))
    answers = [answer_of(encoded[0], ""), answer_of(encoded[1], "Rome"), answer_of(encoded[2], "Bob")]
    found = TASK.evaluate(encoded, answers, FACTS).metrics
    assert found["no_answer_accuracy"] == 0.5
    assert found["f1"] == pytest.approx(2 / 3)


def test_the_loss_is_that_of_the_models_head() -> None:
    rng, [one] = (
        np.random.default_rng(1),
        encode(example("Rome", context="film " * 60 + CONTEXT), max_length=32),
    )
    rows = [
        {n: rng.normal(size=len(w)).astype(np.float32) for n in ("start_logits", "end_logits")}
        for w in one.windows
    ]
    losses = [
        torch.nn.functional.cross_entropy(
            torch.tensor(row[f"{end}_logits"]), torch.tensor(target[f"{end}_positions"])
        )
        for row, target in zip(rows, TASK.targets(one, FACTS), strict=True)
        for end in ("start", "end")
    ]
    want = float(torch.stack(losses).mean())
    assert TASK.evaluate([one], [rows], FACTS).metrics["loss"] == pytest.approx(want, rel=1e-5)


# What parity shows


def copied(answers: Any) -> Any:
    return [[{name: array.copy() for name, array in row.items()} for row in rows] for rows in answers]


@pytest.mark.parametrize("known", [True, False])
def test_equal_answers_compare_as_perfect(known: bool) -> None:
    encoded = encode(*(example(text if known else None) for text in ("Bob", "Rome", "")))
    answers = [answer_of(one, text) for one, text in zip(encoded, ("Bob", "Carl", ""), strict=True)]
    figures = TASK.compare(encoded, answers, copied(answers), FACTS)
    assert set(figures.values()) == {0.0}
    assert set(figures) == set(TASK.limits(job_pb2.PRECISION_FP32)) > TASK.rates


def test_a_flipped_answer_and_a_lost_hit_are_counted() -> None:
    encoded = encode(*(example(text) for text in ("Bob", "Rome", "Ada", "Carl")))
    want = [answer_of(one, text) for one, text in zip(encoded, ("Bob", "Carl", "Ada", "Carl"), strict=True)]
    got = [answer_of(one, text) for one, text in zip(encoded, ("Rome", "Dora", "Ada", "Carl"), strict=True)]
    figures = TASK.compare(encoded, want, got, FACTS)
    assert figures["answer_flip_rate"] == 0.5
    assert figures["exact_match_drop"] == 0.25
    assert figures["max_abs_logit_difference"] == 9


def test_golden_examples_have_the_reference_for_their_answer() -> None:
    encoded = encode(example(None), example(None))
    want = [answer_of(encoded[0], "Bob"), answer_of(encoded[1], "")]
    got = [answer_of(encoded[0], ""), answer_of(encoded[1], "")]
    figures = TASK.compare(encoded, want, got, FACTS)
    assert (figures["answer_flip_rate"], figures["exact_match_drop"]) == (0.5, 0.5)


def test_only_logits_that_count_are_compared() -> None:
    encoded = encode(example("Bob"))
    want = [answer_of(encoded[0], "Bob")]
    got = copied(want)
    got[0][0]["start_logits"][2] += 5  # a token of the question
    assert TASK.compare(encoded, want, got, FACTS)["max_abs_logit_difference"] == 0
    got[0][0]["end_logits"][0] += 3
    assert TASK.compare(encoded, want, got, FACTS)["max_abs_logit_difference"] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("token", [2, 9])
def test_a_number_that_is_none_shows_in_the_figures(bad: float, token: int) -> None:
    encoded = encode(example("Bob"), example("Rome"))
    want = [answer_of(one, text) for one, text in zip(encoded, ("Bob", "Rome"), strict=True)]
    got = copied(want)
    got[1][0]["start_logits"][token] = bad
    figures = TASK.compare(encoded, want, got, FACTS)
    assert figures["num_nonfinite"] == 1
    if token == 9:  # the context's: nothing that it says counts any more
        assert figures["answer_flip_rate"] == figures["exact_match_drop"] == 0.5


def test_answers_that_are_no_numbers_at_all_never_certify() -> None:
    encoded = encode(example("Bob"))
    want = [answer_of(encoded[0], "Bob")]
    got = [[{name: np.full_like(array, np.nan) for name, array in row.items()} for row in want[0]]]
    figures = TASK.compare(encoded, want, got, FACTS)
    limits = TASK.limits(job_pb2.PRECISION_INT8)
    assert all(not figures[name] <= limit for name, limit in limits.items())
