"""Every unary rpc through both clients: what is asked arrives, what is answered can be used."""

import asyncio
import inspect
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conch.client import AsyncConch, Conch
from conch.errors import FailedPrecondition, InvalidArgument
from conch.testing import FakeGateway
from conch.v1 import inference_pb2
from conch.vectors import matrix, vectors

TEXT = "Ada Lovelace met Babbage in London."
ASKED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "Classify": (
        lambda c: c.classify(
            ["a"], model="m", version=7, top_k=1, candidate_labels=["x"], hypothesis_template="It is {}.",
            multi_label=True,
        ),
        'model: "m" version: 7 texts: "a" top_k: 1 candidate_labels: "x" '
        'hypothesis_template: "It is {}." multi_label: true',
    ),
    "ExtractEntities": (
        lambda c: c.extract_entities(["a"], model="m", version=7, aggregation="max", min_score=0.5),
        'model: "m" version: 7 texts: "a" aggregation: AGGREGATION_MAX min_score: 0.5',
    ),
    "AnswerQuestion": (
        lambda c: c.answer_questions(
            ["q"], ["c"], model="m", version=7, top_k=2, max_answer_tokens=9, no_answer_threshold=0
        ),
        'model: "m" version: 7 questions: "q" contexts: "c" top_k: 2 max_answer_tokens: 9 '
        "no_answer_threshold: 0",
    ),
    "Embed": (
        lambda c: c.embed(["a"], model="m", version=7, kind="query", num_dimensions=4, vector_type="int8"),
        'model: "m" version: 7 texts: "a" kind: KIND_QUERY num_dimensions: 4 vector_type: VECTOR_TYPE_INT8',
    ),
    "Rank": (
        lambda c: c.rank("q", ["a"], model="m", version=7, top_k=1),
        'model: "m" version: 7 query: "q" candidates: "a" top_k: 1',
    ),
    "Translate": (
        lambda c: c.translate(
            ["a"], model="m", version=7, source_language="en", target_language="de", num_beams=4,
            length_penalty=0,
        ),
        'model: "m" version: 7 texts: "a" source_language: "en" target_language: "de" '
        "options { num_beams: 4 length_penalty: 0 }",
    ),
    "Summarize": (
        lambda c: c.summarize(
            ["a"], model="m", version=7, min_new_tokens=1, max_new_tokens=5, no_repeat_ngram_size=3
        ),
        'model: "m" version: 7 texts: "a" '
        "options { min_new_tokens: 1 max_new_tokens: 5 no_repeat_ngram_size: 3 }",
    ),
}  # fmt: skip


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Conch]:
    with Conch(gateway.address) as conch:
        yield conch


@pytest.mark.parametrize("rpc", ASKED)
async def test_every_argument_arrives_and_both_clients_get_the_same_answer(
    gateway: FakeGateway, client: Conch, rpc: str
) -> None:
    ask, expected = ASKED[rpc]
    answer = await asyncio.to_thread(ask, client)
    async with AsyncConch(gateway.address) as conch:
        assert await ask(conch) == answer
    assert answer.served_by.version == 7
    for call in gateway.calls:
        assert (call.rpc, str(call.request)) == (rpc, str(_parsed(type(call.request), expected)))


def test_candidate_labels_replace_the_models_own(client: Conch) -> None:
    answer = client.classify(["a"], model="m", candidate_labels=["sport", "war"])
    assert {label.label for label in answer.classifications[0].labels} == {"sport", "war"}


def test_a_regression_models_value_is_no_label(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer("so so", 3.5)
    (row,) = client.classify(["so so"], model="stars").classifications
    assert (row.value, row.HasField("value"), list(row.labels)) == (3.5, True, [])


def test_entities_are_exact_spans_of_the_text(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer(TEXT, {"London": "LOC", "Ada Lovelace": "PER"})
    set_ones, guessed = client.extract_entities([TEXT, "Paris and Rome"], model="ner").results
    assert [(e.label, e.text) for e in set_ones.entities] == [("PER", "Ada Lovelace"), ("LOC", "London")]
    assert all(e.text == TEXT[e.start : e.end] for e in set_ones.entities)
    assert [e.text for e in guessed.entities] == ["Paris", "Rome"]


def test_min_score_leaves_entities_out(client: Conch) -> None:
    everything, nothing = (
        client.extract_entities([TEXT], model="ner", min_score=s).results[0].entities for s in (0, 1)
    )
    assert len(everything) > len(nothing)


def test_one_context_serves_all_questions(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer("Where?", "London")
    gateway.answer("When?", "")
    where, when, who = client.answer_questions(["Where?", "When?", "Who?"], [TEXT], model="qa").results
    assert (where.answers[0].text, where.answers[0].start) == ("London", TEXT.index("London"))
    assert (list(when.answers), when.no_answer_score) == ([], 1)
    assert TEXT[who.answers[0].start : who.answers[0].end] == who.answers[0].text


def test_a_low_threshold_lets_there_be_no_answer(client: Conch) -> None:
    (result,) = client.answer_questions(["Who?"], [TEXT], model="qa", no_answer_threshold=0).results
    assert not result.answers


@pytest.mark.parametrize("vector_type", ["float32", "int8"])
def test_vectors_are_lists_or_one_array(gateway: FakeGateway, client: Conch, vector_type: Any) -> None:
    gateway.answer("a", [1, 0, -0.5, 0, 0, 0, 0, 0.25])
    answer = client.embed(["a", "b"], model="e", vector_type=vector_type)
    tolerance = 0.5 / 127 if vector_type == "int8" else 0
    assert vectors(answer)[0] == pytest.approx([1, 0, -0.5, 0, 0, 0, 0, 0.25], abs=tolerance)
    assert matrix(answer).shape == (2, 8)
    assert matrix(answer).tolist() == [pytest.approx(row) for row in vectors(answer)]


def test_fewer_dimensions_are_cut_and_scaled_to_length_1(client: Conch) -> None:
    answer = client.embed(["a"], model="e", num_dimensions=3)
    assert (answer.num_dimensions, math.hypot(*vectors(answer)[0])) == (3, pytest.approx(1))
    with pytest.raises(InvalidArgument, match="num_dimensions"):
        client.embed(["a"], model="e", num_dimensions=9)


def test_ranking_follows_the_vectors_and_the_numbers_set(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer("best", 0.99)
    gateway.answer("worst", -0.99)
    ranked = client.rank("q", ["worst", "best", "q"], model="e").ranked
    assert [(r.index, round(r.score, 2)) for r in ranked] == [(2, 1.0), (1, 0.99), (0, -0.99)]
    assert len(client.rank("q", ["a", "b"], model="e", top_k=1).ranked) == 1


def test_translations_and_summaries_can_be_set_and_cut(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer("Good morning", "Guten Morgen")
    first, second = client.translate(["Good morning", "Hi"], model="t", target_language="de").translations
    assert (first.text, second.text) == ("Guten Morgen", "[de] Hi")
    assert first.finish_reason == inference_pb2.FINISH_REASON_STOP
    (summary,) = client.summarize(["One. Two."], model="s").summaries
    assert summary.text == "One."
    (cut,) = client.translate(["Good morning"], model="t", max_new_tokens=1).translations
    assert (cut.text, cut.finish_reason) == ("Guten", inference_pb2.FINISH_REASON_LENGTH)


REFUSED: list[tuple[str, Callable[[Conch], Any]]] = [
    ("texts[0]", lambda c: c.extract_entities([" "], model="m")),
    ("texts", lambda c: c.embed(["a"] * 257, model="m")),
    ("texts[0]", lambda c: c.summarize(["a" * ((1 << 20) + 1)], model="m")),
    ("candidate_labels", lambda c: c.classify(["a"], model="m", candidate_labels=["x", "x"])),
    ("candidate_labels", lambda c: c.classify(["a"], model="m", candidate_labels=map(str, range(101)))),
    ("text_pairs", lambda c: c.classify(["a"], model="m", candidate_labels=["x"], text_pairs=["b"])),
    (
        "hypothesis_template",
        lambda c: c.classify(["a"], model="m", candidate_labels=["x"], hypothesis_template="no place"),
    ),
    ("min_score", lambda c: c.extract_entities(["a"], model="m", min_score=float("nan"))),
    ("contexts", lambda c: c.answer_questions(["a"], ["b", "c"], model="m")),
    ("top_k", lambda c: c.answer_questions(["a"], ["b"], model="m", top_k=101)),
    ("query", lambda c: c.rank("", ["a"], model="m")),
    ("options.num_beams", lambda c: c.translate(["a"], model="m", num_beams=17)),
    ("options.min_new_tokens", lambda c: c.summarize(["a"], model="m", min_new_tokens=9, max_new_tokens=3)),
]


@pytest.mark.parametrize(("field", "ask"), REFUSED)
def test_the_fake_refuses_what_the_contract_forbids(
    client: Conch, field: str, ask: Callable[[Conch], Any]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ask(client)
    assert [violation.field for violation in caught.value.field_violations] == [field]


def test_a_fake_with_tasks_refuses_the_rpcs_of_others() -> None:
    with FakeGateway(tasks={"ner": "token-classification"}) as gateway, Conch(gateway.address) as conch:
        assert conch.extract_entities([TEXT], model="ner").results
        with pytest.raises(FailedPrecondition, match="ner answers token-classification"):
            conch.classify([TEXT], model="ner")


def test_an_answer_that_cannot_be_one_is_refused_when_it_is_set(gateway: FakeGateway) -> None:
    with pytest.raises(ValueError, match="does not stand in"):
        gateway.answer(TEXT, {"Rome": "LOC"})
    with pytest.raises(ValueError, match="vectors here have 8"):
        gateway.answer("a", [1, 2])


def test_short_names_that_do_not_exist_are_refused_at_once(client: Conch) -> None:
    with pytest.raises(ValueError, match="one of simple, first, average, max"):
        client.extract_entities(["a"], model="m", aggregation="median")  # type: ignore[arg-type]


def test_numbers_are_lists_where_numpy_is_missing() -> None:
    code = """
import sys; sys.modules["numpy"] = None
from conch.vectors import matrix, vectors
from conch.v1 import inference_pb2 as pb
response = pb.EmbedResponse(embeddings=[pb.Embedding(vector=bytes([2, 255]), scale=0.5)], vector_type=2)
assert vectors(response) == [[1.0, -0.5]], vectors(response)
try: matrix(response)
except ImportError: print("ok")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "ok\n"


def _parsed(kind: Any, text: str) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(text, kind())


def test_both_clients_have_a_method_for_every_rpc_with_the_same_arguments() -> None:
    rpcs = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods
    assert [rpc.name for rpc in rpcs] == [*ASKED, "Generate", "Chat"]
    for name in ("classify", "extract_entities", "answer_questions", "embed", "rank", "translate",
                 "summarize", "generate", "chat"):  # fmt: skip
        ours, theirs = (inspect.signature(getattr(client, name)) for client in (Conch, AsyncConch))
        assert ours.parameters == theirs.parameters, name
        assert "timeout_seconds" in ours.parameters, name
