"""Rank: by the cosine of vectors, by a cross-encoder's scores; and zero-shot labels by similarity."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conch.v1 import inference_pb2, tasks_pb2
from services.errors import InvalidRequest
from services.tasks import Encoded, Facts, find_task
from services.tasks.encoding import Tokens
from services.tasks.feature_extraction.rank import CrossRank, Rank
from services.tasks.feature_extraction.vectors import VECTOR, NonFiniteVectorError
from services.tasks.feature_extraction.zero_shot_similarity import ZeroShotSimilarity

Labels = tasks_pb2.TextClassificationSpec


def of_vectors(**spec: Any) -> Any:
    task_spec = tasks_pb2.TaskSpec(feature_extraction=tasks_pb2.FeatureExtractionSpec(**spec))
    return SimpleNamespace(facts=find_task("feature-extraction").settle([], task_spec))


def of_pairs(kind: int = Labels.PROBLEM_TYPE_SINGLE_LABEL) -> Any:
    task_spec = tasks_pb2.TaskSpec(text_classification=Labels(problem_type=kind))  # type: ignore[arg-type]
    return SimpleNamespace(facts=Facts(("no", "yes"), task_spec))


def response(rpc: Any, request: Any, outputs: Sequence[Sequence[float]], name: str, version: Any) -> Any:
    """Returns the rpc's response to a request whose examples have these outputs; tokens count from 1."""
    examples = rpc.examples(request, version)
    encoded = [Encoded(e, (Tokens([7] * i, [0] * i),)) for i, e in enumerate(examples, start=1)]
    answers = [[{name: np.array(row, dtype=np.float32)}] for row in outputs]
    return rpc.respond(request, encoded, answers, version)


def ranked(candidates: Sequence[Sequence[float]], *, top_k: int = 0) -> list[Any]:
    request = inference_pb2.RankRequest(query="q", candidates=["c"] * len(candidates), top_k=top_k)
    return list(response(Rank(), request, [[2, 0], *candidates], VECTOR, of_vectors()).ranked)


def test_candidates_come_in_the_order_of_the_cosine_whatever_their_length() -> None:
    found = ranked([[0, 5], [100, 100], [0.1, 0], [-3, 0]])
    assert [one.index for one in found] == [2, 1, 0, 3]
    assert [one.score for one in found] == pytest.approx([1, math.sqrt(0.5), 0, -1])


def test_a_candidate_is_answered_with_its_own_tokens() -> None:
    found = ranked([[0, 1], [1, 0]])
    # The query is the first text that is read.
    assert [(one.index, one.tokens.num_tokens) for one in found] == [(1, 3), (0, 2)]


def test_only_the_best_are_sent_and_equals_keep_their_order() -> None:
    assert [one.index for one in ranked([[0, 1], [1, 0], [1, 0], [1, 1]], top_k=3)] == [1, 2, 3]
    assert [one.index for one in ranked([[1, 0]] * 3, top_k=9)] == [0, 1, 2]


def test_query_and_candidates_get_their_prefixes() -> None:
    version = of_vectors(query_prefix="q: ", passage_prefix="p: ")
    request = inference_pb2.RankRequest(query="a", candidates=["b", "c"])
    assert [e.text for e in Rank().examples(request, version)] == ["q: a", "p: b", "p: c"]


def test_a_broken_vector_is_never_ranked() -> None:
    with pytest.raises(NonFiniteVectorError):
        ranked([[1, 0], [math.nan, 0]])


def test_the_gateway_is_told_which_texts_to_check() -> None:
    request = inference_pb2.RankRequest(query="a", candidates=["b", "c"])
    for rpc in (Rank(), CrossRank()):
        query, candidates = rpc.texts(request)
        assert (query.name, query.is_single, list(query.texts)) == ("query", True, ["a"])
        assert (candidates.name, list(candidates.texts)) == ("candidates", ["b", "c"])


@pytest.mark.parametrize(
    ("kind", "logits", "scores"),
    [
        (Labels.PROBLEM_TYPE_SINGLE_LABEL, [[1, 3], [3, 1]], [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]),
        (Labels.PROBLEM_TYPE_SINGLE_LABEL, [[0], [-1000]], [0.5, 0]),
        (Labels.PROBLEM_TYPE_MULTI_LABEL, [[9, 1000], [9, 0]], [1, 0.5]),
        (Labels.PROBLEM_TYPE_REGRESSION, [[4.5], [-2]], [4.5, -2]),
    ],
)
def test_a_cross_encoder_s_score_is_what_its_problem_type_makes_of_the_last_logit(
    kind: int, logits: list[list[float]], scores: list[float]
) -> None:
    request = inference_pb2.RankRequest(query="q", candidates=["a", "b"])
    found = response(CrossRank(), request, logits, "logits", of_pairs(kind)).ranked
    assert [one.index for one in found] == [0, 1]
    assert [one.score for one in found] == pytest.approx(scores)


def test_a_cross_encoder_reads_the_query_with_each_candidate() -> None:
    request = inference_pb2.RankRequest(query="q", candidates=["a", "b"])
    examples = CrossRank().examples(request, of_pairs())
    assert [(e.text, e.text_pair) for e in examples] == [("q", "a"), ("q", "b")]


def test_a_cross_encoder_s_broken_logits_are_never_sent() -> None:
    request = inference_pb2.RankRequest(query="q", candidates=["a", "b"])
    with pytest.raises(ArithmeticError):
        response(CrossRank(), request, [[1, 2], [math.nan, 1]], "logits", of_pairs())


# Zero-shot


def classified(vectors: Sequence[Sequence[float]], version: Any = None, **more: Any) -> Any:
    request = inference_pb2.ClassifyRequest(texts=["t"], candidate_labels=["sport", "law"], **more)
    return response(ZeroShotSimilarity(), request, vectors, VECTOR, version or of_vectors())


def test_labels_are_softmaxed_cosines_at_the_model_s_temperature() -> None:
    [found] = classified([[1, 0], [0, 1], [0.6, 0.8]], of_vectors(temperature=0.3)).classifications
    best = math.exp(0.6 / 0.3)
    assert [label.label for label in found.labels] == ["law", "sport"]
    assert [label.score for label in found.labels] == pytest.approx([best / (1 + best), 1 / (1 + best)])
    assert found.tokens.num_tokens == 1


def test_labels_that_may_be_several_are_scored_by_themselves() -> None:
    [found] = classified([[1, 0], [-1, 0.1], [1, 0]], multi_label=True).classifications
    assert [(label.label, label.score) for label in found.labels] == [("law", 1), ("sport", 0)]


def test_texts_and_hypotheses_are_read_once_each() -> None:
    request = inference_pb2.ClassifyRequest(
        texts=["a", "b"], candidate_labels=["x", "y"], hypothesis_template="On {}"
    )
    examples = ZeroShotSimilarity().examples(request, of_vectors(query_prefix="q: "))
    assert [e.text for e in examples] == ["q: a", "q: b", "q: On x", "q: On y"]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": ["x", "x"]}, "candidate_labels"),
        ({"candidate_labels": ["x", " "]}, "candidate_labels[1]"),
        ({"candidate_labels": ["x"], "text_pairs": ["b"]}, "text_pairs"),
        ({"candidate_labels": ["x"], "hypothesis_template": "no slot"}, "hypothesis_template"),
    ],
)
def test_a_request_that_names_no_usable_labels_is_refused(request_fields: dict[str, Any], field: str) -> None:
    request = inference_pb2.ClassifyRequest(texts=["a"], **request_fields)
    with pytest.raises(InvalidRequest) as caught:
        ZeroShotSimilarity().examples(request, of_vectors())
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_broken_vector_labels_nothing() -> None:
    with pytest.raises(NonFiniteVectorError):
        classified([[1, 0], [math.inf, 0], [1, 0]])
