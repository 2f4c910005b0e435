"""Every task by `conch ship`: 200 held-out inputs through the gateway are answered as transformers does."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conch.client import Conch as Client
from conch.vectors import vectors
from examples.stack import Conch
from tests.e2e import oracles
from tests.e2e.samples import NUM_INPUTS

AT_ONCE, TOLERANCE = 50, 1e-3
SUMMARIZE, TRANSLATE = "summarize: ", "translate: "


@pytest.fixture(scope="module")
def client(conch: Conch) -> Iterator[Client]:
    with Client(conch.gateway, timeout_seconds=120) as client:
        yield client


def held_out(checkpoint: Path) -> list[dict[str, Any]]:
    # Not splitlines(): texts may hold line separators of Unicode.
    lines = (checkpoint / "held_out.jsonl").read_text(encoding="utf-8").strip().split("\n")
    rows = [json.loads(line) for line in lines][:NUM_INPUTS]
    assert len(rows) == NUM_INPUTS
    return rows


def asked(rows: Sequence[Any], ask: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Any]:
    """Returns the answers to all rows, some at a time."""
    return [answer for i in range(0, len(rows), AT_ONCE) for answer in ask(rows[i : i + AT_ONCE])]


def texts_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


def test_labels_and_scores_of_text_classification(ship: Callable[[str], Path], client: Client) -> None:
    checkpoint = ship("text-classification")
    rows, model = held_out(checkpoint), "held-out-text-classification"
    got = asked(rows, lambda part: client.classify(texts_of(part), model=model).classifications)
    for want, answer in zip(oracles.labels(checkpoint, rows), got, strict=True):
        assert {s.label: s.score for s in answer.labels} == pytest.approx(want, abs=TOLERANCE)
        assert answer.labels[0].label == max(want, key=want.__getitem__)


def test_spans_and_scores_of_token_classification(ship: Callable[[str], Path], client: Client) -> None:
    checkpoint = ship("token-classification")
    rows, model = held_out(checkpoint), "held-out-token-classification"
    got = asked(rows, lambda part: client.extract_entities(texts_of(part), model=model).results)
    num_found = 0
    for row, want, answer in zip(rows, oracles.entities(checkpoint, rows), got, strict=True):
        assert [(e.label, e.start, e.end) for e in answer.entities] == [one[:3] for one in want]
        assert [e.score for e in answer.entities] == pytest.approx([one[3] for one in want], abs=TOLERANCE)
        assert all(row["text"][e.start : e.end] == e.text for e in answer.entities)
        num_found += len(want)
    assert num_found > NUM_INPUTS / 2, "a model that finds nothing proves nothing"


def test_answers_and_scores_of_question_answering(ship: Callable[[str], Path], client: Client) -> None:
    checkpoint = ship("question-answering")
    rows, model = held_out(checkpoint), "held-out-question-answering"

    def ask(part: Sequence[dict[str, Any]]) -> Sequence[Any]:
        contexts = [row["text_pair"] for row in part]
        return client.answer_questions(texts_of(part), contexts, model=model).results

    got = asked(rows, ask)
    for row, (text, score), answer in zip(rows, oracles.answers(checkpoint, rows), got, strict=True):
        best = answer.answers[0]
        assert best.score == pytest.approx(score, abs=TOLERANCE)
        assert best.text == text == row["text_pair"][best.start : best.end]


def test_vectors_of_feature_extraction(ship: Callable[[str], Path], client: Client) -> None:
    checkpoint = ship("feature-extraction")
    rows, model = held_out(checkpoint), "held-out-feature-extraction"
    got = asked(rows, lambda part: vectors(client.embed(texts_of(part), model=model)))
    for want, answer in zip(oracles.vectors(checkpoint, rows), got, strict=True):
        assert list(answer) == pytest.approx(want, abs=TOLERANCE)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_sequences_of_text2text_generation(
    ship: Callable[[str], Path], client: Client, num_beams: int
) -> None:
    checkpoint = ship("text2text-generation")
    model, options = "held-out-text2text-generation", {"num_beams": num_beams, "max_new_tokens": 16}
    # The checkpoint's texts bear the prefix of what is asked for, which the gateway adds.
    rows = sorted(held_out(checkpoint), key=lambda row: str(row["text"]))
    summarized = [row["text"].removeprefix(SUMMARIZE) for row in rows if row["text"].startswith(SUMMARIZE)]
    translated = [row["text"].removeprefix(TRANSLATE) for row in rows if row["text"].startswith(TRANSLATE)]
    got = asked(summarized, lambda part: client.summarize(part, model=model, **options).summaries)
    got += asked(translated, lambda part: client.translate(part, model=model, **options).translations)
    want = oracles.sequences(checkpoint, texts_of(rows), **options)
    assert [answer.text for answer in got] == want
    assert len(set(want)) > 10, "a model that always writes the same proves nothing"


def test_greedy_continuations_of_text_generation(ship: Callable[[str], Path], client: Client) -> None:
    checkpoint = ship("text-generation")
    prompts, model = [text[:40] for text in texts_of(held_out(checkpoint))], "held-out-text-generation"
    got = [
        "".join(
            response.piece.text
            for response in client.generate(prompt, model=model, temperature=0.0, max_tokens=12)
        )
        for prompt in prompts
    ]
    want = oracles.continuations(checkpoint, prompts, 12)
    assert got == want
    assert len(set(want)) > 10, "a model that always writes the same proves nothing"
