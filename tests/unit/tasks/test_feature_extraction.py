"""feature-extraction: what rows teach, what the metrics say of vectors, what a certificate sees."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from conch.v1 import job_pb2, tasks_pb2
from examples.assets import minilm
from services.tasks import Example, Facts, find_task
from services.tasks.correlations import correlation_metrics
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded
from services.tasks.feature_extraction.vector_metrics import ranking_metrics
from services.tasks.feature_extraction.vectors import VECTOR
from services.tasks.tensors import Answer

TASK = find_task("feature-extraction")
SPEC = tasks_pb2.FeatureExtractionSpec


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", 32)


def pair(text: str, text_pair: str, row: int = 1, **target: Any) -> Example:
    return Example(text, text_pair, target, row)


def settled(train: Sequence[Example], **spec: Any) -> Facts:
    return TASK.settle(train, tasks_pb2.TaskSpec(feature_extraction=SPEC(**spec)))


def answers(*vectors: Sequence[Sequence[float]]) -> list[Answer]:
    """Returns one answer an example, given its windows' vectors."""
    return [[{VECTOR: np.array(v, dtype=np.float32)} for v in windows] for windows in vectors]


def encoded(examples: Sequence[Example]) -> list[Encoded]:
    return [Encoded(example, ()) for example in examples]


def evaluated(examples: Sequence[Example], found: list[Answer], **spec: Any) -> dict[str, float]:
    return dict(TASK.evaluate(encoded(examples), found, settled(examples, **spec)).metrics)


# What rows mean


@pytest.mark.parametrize(
    ("more", "target"),
    [({}, {}), ({"negative": "bus"}, {"negative": "bus"}), ({"score": "4.5"}, {"score": 4.5})],
)
def test_a_row_is_a_pair_a_triplet_or_a_scored_pair(more: dict[str, Any], target: dict[str, Any]) -> None:
    example = TASK.read({"text": "car", "text_pair": "auto", **more}, 3, tasks_pb2.TaskSpec())
    assert example == Example("car", "auto", target, 3)
    assert json.loads(json.dumps(example.target)) == target


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text_pair": None}, "text_pair is missing"),
        ({"text": " "}, "text is empty"),
        ({"negative": ""}, "negative is empty"),
        ({"negative": None}, "negative is missing"),
        ({"score": None}, "score is missing"),
        ({"score": "high"}, "score is no finite number"),
        ({"score": math.nan}, "score is no finite number"),
        ({"score": "-inf"}, "score is no finite number"),
        ({"score": True}, "score is no finite number"),
        ({"score": [1]}, "score is no finite number"),
        ({"score": 1, "negative": "bus"}, "a negative or a score, not both"),
        ({"text": "\ud800"}, "text is not valid UTF-8"),
    ],
)
def test_a_bad_row_is_refused_with_the_reason(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TASK.read({"text": "car", "text_pair": "auto", **values}, 1, tasks_pb2.TaskSpec())


def test_defaults_are_filled_in_and_what_is_given_stays() -> None:
    spec = settled([pair("a", "b")]).spec.feature_extraction
    assert (spec.pooling, spec.normalize, spec.temperature) == (SPEC.POOLING_MEAN, True, 0.05)
    assert spec.objective == SPEC.OBJECTIVE_RANKING
    spec = settled(
        [pair("a", "b", score=1.0)], pooling=SPEC.POOLING_CLS, normalize=False, dimensions=[64, 16]
    ).spec.feature_extraction
    assert (spec.pooling, spec.normalize) == (SPEC.POOLING_CLS, False)
    assert list(spec.dimensions) == [16, 64]
    assert spec.objective == SPEC.OBJECTIVE_SIMILARITY


def test_scored_pairs_are_chosen_by_correlation_and_others_by_rank() -> None:
    assert TASK.metric_of(settled([pair("a", "b")])) == "ndcg_at_10"
    assert TASK.metric_of(settled([pair("a", "b", score=1.0)])) == "spearman"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"pooling": 9}, "pooling"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 11.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"dimensions": [0]}, "dimensions"),
        ({"dimensions": [8, 8]}, "dimensions"),
    ],
)
def test_a_choice_that_no_model_can_have_is_refused(spec: dict[str, Any], field: str) -> None:
    found = TASK.check_spec(tasks_pb2.TaskSpec(feature_extraction=SPEC(**spec)))
    assert [problem.field for problem in found] == [f"spec.task_spec.feature_extraction.{field}"]


@pytest.mark.parametrize(
    ("train", "validation", "words"),
    [
        ([pair("a", "x"), pair("b", "x ")], [], "all rows have the same second text"),
        ([pair("a", "x", score=1.0), pair("b", "y", score=1.0)], [], "all scores are the same"),
        ([pair("a", "x"), pair("b", "y")], [pair("c", "z", 7, score=1.0)], "row 7: negatives and scores"),
    ],
)
def test_data_that_teaches_nothing_is_refused(
    train: list[Example], validation: list[Example], words: str
) -> None:
    [problem] = TASK.find_problems(train, validation, settled(train))
    assert words in problem.description


def test_good_data_has_no_problems() -> None:
    train = [pair("a", "x"), pair("b", "y")]
    assert TASK.find_problems(train, [pair("c", "z")], settled(train)) == []


# What the model reads


def test_each_text_of_an_example_is_a_window_with_its_prefix(encoder: Encoder) -> None:
    example = pair("fast car", "quick auto", negative="slow bus")
    facts = settled([example], query_prefix="query: ", passage_prefix="passage: ")
    [read] = TASK.encode(encoder, [example], facts)
    texts = ["query: fast car", "passage: quick auto", "passage: slow bus"]
    assert [w.input_ids for w in read.windows] == [t.input_ids for t in encoder.encode(texts)]


def test_a_request_s_text_is_one_window_and_gets_no_second_prefix(encoder: Encoder) -> None:
    facts = settled([], query_prefix="query: ", passage_prefix="passage: ")
    [read] = TASK.encode(encoder, [Example("query: car", "", None, 1)], facts)
    assert [w.input_ids for w in read.windows] == [encoder.encode(["query: car"])[0].input_ids]


def test_a_golden_triplet_is_read_as_a_pair(encoder: Encoder) -> None:
    [read] = TASK.encode(encoder, [Example("car", "auto", None, 1)], settled([]))
    assert len(read.windows) == 2


def test_equal_texts_have_equal_keys() -> None:
    examples = [pair("Car", "auto"), pair("car ", "bus")]
    keys = [TASK.targets(one, settled(examples))[0]["keys"] for one in encoded(examples)]
    assert keys[0][0] == keys[1][0]
    assert len({*keys[0].tolist(), *keys[1].tolist()}) == 3


def test_a_scored_pair_s_target_is_its_score() -> None:
    example = pair("a", "b", score=4.5)
    [target] = TASK.targets(encoded([example])[0], settled([example]))
    assert target["score"].dtype == np.float32
    assert float(target["score"]) == 4.5


# What the metrics say


def test_the_right_passage_in_front_is_perfect_and_behind_is_not() -> None:
    examples = [pair("a", "x"), pair("b", "y")]
    perfect = evaluated(examples, answers(([1, 0], [2, 0.1]), ([0, 1], [0.1, 1])))
    assert perfect == {"recall_at_1": 1, "recall_at_10": 1, "mrr": 1, "ndcg_at_10": 1}
    swapped = evaluated(examples, answers(([1, 0], [0, 1]), ([0, 1], [1, 0])))
    assert (swapped["recall_at_1"], swapped["recall_at_10"], swapped["mrr"]) == (0, 1, 0.5)
    assert swapped["ndcg_at_10"] == pytest.approx(1 / math.log2(3))


def test_a_model_that_gives_all_texts_one_vector_is_the_worst() -> None:
    examples = [pair(f"a{i}", f"x{i}") for i in range(20)]
    metrics = evaluated(examples, answers(*[([1, 1], [1, 1])] * 20))
    assert (metrics["recall_at_1"], metrics["recall_at_10"], metrics["ndcg_at_10"]) == (0, 0, 0)
    assert metrics["mrr"] == pytest.approx(1 / 20)


def test_a_passage_that_stands_twice_is_one_and_a_query_may_have_two() -> None:
    examples = [pair("a", "x"), pair("b", "x "), pair("a", "y")]
    metrics = evaluated(examples, answers(([1, 0], [1, 0.1]), ([1, 0], [1, 0.1]), ([1, 0], [1, 0.2])))
    # a: both are right, at ranks 1 and 2; b: x is right, at rank 1.
    assert metrics["recall_at_1"] == pytest.approx((0.5 + 1) / 2)
    assert metrics["mrr"] == metrics["ndcg_at_10"] == 1


def test_negatives_are_ranked_too_and_triplets_counted() -> None:
    examples = [pair("a", "x", negative="n")]
    metrics = evaluated(examples, answers(([1, 0], [1, 1], [1, 0.5])))
    assert (metrics["mrr"], metrics["triplet_accuracy"]) == (0.5, 0)


def test_scored_pairs_are_measured_by_correlation() -> None:
    examples = [pair("a", "x", score=s) for s in (0.0, 3.0, 5.0)]
    metrics = evaluated(examples, answers(([1, 0], [0, 1]), ([1, 0], [1, 1]), ([1, 0], [1, 0])))
    assert metrics["spearman"] == pytest.approx(1)
    assert 0.9 < metrics["pearson"] < 1


def test_each_shorter_vector_is_measured() -> None:
    examples = [pair("a", "x"), pair("b", "y")]
    found = answers(([1, 0, 9], [1, 0, 0]), ([1, 0.1, 0], [1, 0.1, 9]))
    metrics = evaluated(examples, found, dimensions=[2])
    assert metrics["recall_at_1_dim_2"] == 1
    assert metrics["recall_at_1"] < 1


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_ndcg_is_that_of_scikit_learn(size: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    queries, passages = (dice.normal(size=(n, 3)).astype(np.float32) for n in (1, size))
    relevant = sorted(dice.choice(size, dice.integers(1, size), replace=False).tolist())
    scores = (queries / np.linalg.norm(queries)) @ (passages / np.linalg.norm(passages, axis=1)[:, None]).T
    truth = np.isin(np.arange(size), relevant)[None].astype(float)
    want = sklearn_metrics.ndcg_score(truth, scores, k=10)
    assert ranking_metrics(queries, passages, [relevant])["ndcg_at_10"] == pytest.approx(want, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_correlations_are_those_of_scipy_ties_included(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    metrics = correlation_metrics(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert metrics == {"spearman": 0, "pearson": 0}
        return
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert metrics["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic)


# What a certificate sees

EXAMPLES = [pair("a", "x"), pair("b", "y")]
GOOD = answers(([1, 0], [0.9, 0.1]), ([0, 1], [0.1, 0.9]))


def compared(candidate: list[Answer], reference: list[Answer] = GOOD) -> dict[str, float]:
    return TASK.compare(encoded(EXAMPLES), reference, candidate, settled(EXAMPLES))


def test_equal_vectors_have_no_difference() -> None:
    assert compared(GOOD) == pytest.approx(
        {"max_abs_difference": 0, "max_cosine_distance": 0, "rank_flip_rate": 0, "num_nonfinite": 0}, abs=1e-7
    )


def test_a_turned_vector_shows_in_distance_and_in_ranks() -> None:
    figures = compared(answers(([0, 1], [0.9, 0.1]), ([0, 1], [0.1, 0.9])))
    assert figures["max_cosine_distance"] == pytest.approx(1)
    assert figures["rank_flip_rate"] == 0.5


def test_vectors_of_any_length_are_compared_at_length_one() -> None:
    long = answers(([100, 0], [90, 10]), ([0, 100], [10, 90]))
    off = answers(([101, 0], [90, 10]), ([0, 100], [10, 90]))
    assert compared(off, long)["max_abs_difference"] == pytest.approx(0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [0, 1])
def test_a_number_that_is_none_never_passes_any_limit(bad: float, window: int) -> None:
    broken = answers(([1, 0], [0.9, 0.1]), ([0, 1], [0.1, 0.9]))
    broken[0][window][VECTOR][0] = bad
    figures = compared(broken)
    assert figures["num_nonfinite"] == 1
    assert figures["rank_flip_rate"] >= 0.5
    for precision in (job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16, job_pb2.PRECISION_INT8):
        assert figures["num_nonfinite"] > TASK.limits(precision)["num_nonfinite"]


def test_an_answer_of_nothing_but_nan_is_infinitely_far() -> None:
    broken = answers(*[([np.nan, np.nan], [np.nan, np.nan])] * 2)
    figures = compared(broken)
    assert figures["max_abs_difference"] == figures["max_cosine_distance"] == math.inf
    assert figures["rank_flip_rate"] == 1


def test_every_figure_has_a_limit_in_every_precision() -> None:
    for precision in (job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16, job_pb2.PRECISION_INT8):
        assert set(TASK.limits(precision)) == set(compared(GOOD))
