"""Embed: prefixes, cut vectors, packed numbers."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.v1 import inference_pb2, tasks_pb2
from services.errors import InvalidRequest
from services.tasks import Encoded, Facts, find_task
from services.tasks.encoding import Tokens
from services.tasks.feature_extraction.embed import Embed
from services.tasks.feature_extraction.vectors import VECTOR, NonFiniteVectorError
from services.tasks.tensors import FloatArray

Request = inference_pb2.EmbedRequest
INT8 = inference_pb2.VECTOR_TYPE_INT8


def served(**spec: Any) -> Any:
    """Returns a version whose model was trained with these choices."""
    task_spec = tasks_pb2.TaskSpec(feature_extraction=tasks_pb2.FeatureExtractionSpec(**spec))
    return SimpleNamespace(facts=find_task("feature-extraction").settle([], task_spec))


def embedded(vectors: Sequence[Sequence[float]] | FloatArray, **more: Any) -> inference_pb2.EmbedResponse:
    """Returns the response to a request whose texts have `vectors`; `normalize` is the model's."""
    version = served(normalize=more.pop("normalize", True))
    request = Request(texts=["x"] * len(vectors), **more)
    examples = Embed().examples(request, version)
    encoded = [Encoded(e, (Tokens([1, 2], [0, 0]),)) for e in examples]
    answers = [[{VECTOR: np.array(vector, dtype=np.float32)}] for vector in vectors]
    return Embed().respond(request, encoded, answers, version)


def unpacked(response: inference_pb2.EmbedResponse) -> FloatArray:
    """Returns the vectors as a client in any language would read them."""
    dtype = "i1" if response.vector_type == INT8 else "<f4"
    rows = [np.frombuffer(e.vector, dtype=dtype).astype(np.float32) * e.scale for e in response.embeddings]
    return np.stack(rows)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Request.KIND_UNSPECIFIED, "passage: car"),
        (Request.KIND_PASSAGE, "passage: car"),
        (Request.KIND_QUERY, "query: car"),
    ],
)
def test_a_text_gets_the_prefix_of_its_kind(kind: Request.Kind.ValueType, text: str) -> None:
    version = served(query_prefix="query: ", passage_prefix="passage: ")
    [example] = Embed().examples(Request(texts=["car"], kind=kind), version)
    assert (example.text, example.text_pair, example.target) == (text, "", None)


def test_vectors_are_little_endian_floats_of_length_one() -> None:
    response = embedded([[3, 4], [0, -2]])
    assert response.vector_type == inference_pb2.VECTOR_TYPE_FLOAT32
    assert response.num_dimensions == 2
    assert [e.scale for e in response.embeddings] == [1, 1]
    assert unpacked(response) == pytest.approx(np.array([[0.6, 0.8], [0, -1]]))
    assert response.embeddings[0].tokens.num_tokens == 2


def test_a_model_that_does_not_normalize_gives_its_vectors_as_they_are() -> None:
    assert unpacked(embedded([[3, 4]], normalize=False)).tolist() == [[3, 4]]


def test_a_cut_vector_is_scaled_to_length_one_again() -> None:
    response = embedded([[3, 4, 12]], num_dimensions=2)
    assert response.num_dimensions == 2
    assert unpacked(response) == pytest.approx(np.array([[0.6, 0.8]]))
    assert unpacked(embedded([[3, 4, 12]], num_dimensions=2, normalize=False)).tolist() == [[3, 4]]


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        embedded([[3, 4]], num_dimensions=3)
    [violation] = caught.value.violations
    assert violation.field == "num_dimensions"
    assert "3 wanted, the model's vectors have 2" in violation.description
    assert caught.value.reason == "TOO_MANY_DIMENSIONS"


@pytest.mark.parametrize("field", ["kind", "vector_type"])
def test_an_enum_that_nobody_knows_is_refused(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Embed().examples(Request(texts=["x"], **{field: 7}), served())
    assert caught.value.violations[0].field == field


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6))
def test_int8_is_within_half_a_step_of_every_number(num_texts: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(num_texts, size)).astype(np.float32)
    response = embedded(vectors, vector_type=INT8, normalize=False)
    assert response.vector_type == INT8
    for vector, embedding, back in zip(vectors, response.embeddings, unpacked(response), strict=True):
        assert len(embedding.vector) == size
        assert embedding.scale == pytest.approx(np.abs(vector).max() / 127)
        assert np.abs(back - vector).max() <= embedding.scale * 0.5001


def test_the_zero_vector_survives_every_type() -> None:
    for vector_type in (inference_pb2.VECTOR_TYPE_FLOAT32, INT8):
        assert unpacked(embedded([[0, 0]], vector_type=vector_type)).tolist() == [[0, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_vector_that_holds_no_numbers_is_never_sent(bad: float) -> None:
    with pytest.raises(NonFiniteVectorError, match="1 of 2 vectors"):
        embedded([[1, 2], [bad, 1]])
    # Not even where the request cuts it off: the model is broken.
    with pytest.raises(NonFiniteVectorError):
        embedded([[1, bad]], num_dimensions=1)


def test_the_facts_of_a_version_without_a_spec_change_nothing() -> None:
    version: Any = SimpleNamespace(facts=Facts())
    assert Embed().examples(Request(texts=["car"]), version)[0].text == "car"
