"""The contrastive loss: what is near, what is far, and what is neither."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from conch.v1 import tasks_pb2
from services.tasks import Facts
from services.tasks.feature_extraction.vectors import VECTOR
from services.trainer.contrastive import loss

T = 0.5


class Given:
    """A model that gives each token id the vector of that number, and notes how long its inputs were."""

    def __init__(self, vectors: Sequence[Sequence[float]]) -> None:
        self.table = torch.tensor(vectors, dtype=torch.float32, requires_grad=True)
        self.lengths: list[int] = []

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        self.lengths.append(input_ids.shape[1])
        return {VECTOR: self.table[input_ids[:, 0]]}


def facts(*, temperature: float = T, dimensions: Sequence[int] = ()) -> Facts:
    spec = tasks_pb2.FeatureExtractionSpec(temperature=temperature, dimensions=dimensions)
    return Facts((), tasks_pb2.TaskSpec(feature_extraction=spec))


def inputs(num_texts: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(num_texts)[:, None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def of(
    *texts: Sequence[Sequence[float]], keys: Sequence[Sequence[int]] | None = None, **more: Any
) -> torch.Tensor:
    """Returns the loss of rows whose first texts have the vectors `texts[0]`, and so on."""
    num_rows = len(texts[0])
    names = keys or [[row + num_rows * i for i in range(len(texts))] for row in range(num_rows)]
    model = Given([vector for part in texts for vector in part])
    return loss(model, inputs(len(model.table)), {"keys": torch.tensor(names)}, facts(**more))


def scored(first: Any, second: Any, scores: Sequence[float]) -> float:
    model = Given([*first, *second])
    targets = {"score": torch.tensor(scores, dtype=torch.float32)}
    return float(loss(model, inputs(len(model.table)), targets, facts()))


def test_it_is_the_mean_cross_entropy_of_both_directions() -> None:
    torch.manual_seed(1)
    first, second = torch.randn(5, 4), torch.randn(5, 4)
    logits = cosine_similarity(first[:, None], second[None], dim=-1) / T
    want = [torch.nn.functional.cross_entropy(side, torch.arange(5)) for side in (logits, logits.T)]
    assert of(first.tolist(), second.tolist()).item() == pytest.approx(float(sum(want) / 2), rel=1e-5)


def test_a_negative_counts_against_every_row() -> None:
    first, second = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    forwards = -math.log(math.exp(1 / T) / (math.exp(1 / T) + 1 + math.exp(0.8 / T) + math.exp(0.8 / T)))
    forwards_other = -math.log(math.exp(1 / T) / (math.exp(1 / T) + 1 + math.exp(0.6 / T) * 2))
    backwards = -math.log(math.exp(1 / T) / (math.exp(1 / T) + 1))
    want = ((forwards + forwards_other) / 2 + backwards) / 2
    assert float(of(first, second, [[0.8, 0.6], [0.8, 0.6]])) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        [[1, 9], [2, 9]],  # equal second texts
        [[1, 8], [1, 9]],  # equal first texts: both second texts are right
    ],
)
def test_equal_texts_are_no_negatives_of_each_other(keys: list[list[int]]) -> None:
    same = [[1.0, 0.0], [1.0, 0.0]]
    assert float(of(same, same, keys=keys)) == 0
    assert float(of(same, same)) == pytest.approx(math.log(2))


def test_a_chain_of_synonyms_is_no_contradiction() -> None:
    same = [[1.0, 0.0], [1.0, 0.0]]
    # car - auto, auto - vehicle: for "auto" itself its own text is no negative, for "car" vehicle still is.
    chain = float(of(same, same, keys=[[1, 2], [2, 3]]))
    assert chain == pytest.approx((math.log(2) / 2 + math.log(2) / 2) / 2)


def test_a_single_pair_has_nothing_to_be_told_apart_from() -> None:
    assert float(of([[1.0, 0.0]], [[0.0, 1.0]])) == 0


def test_it_falls_when_partners_come_nearer_and_its_gradient_says_so() -> None:
    far = of([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]])
    near = of([[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.1, 0.9]])
    assert near < far
    model = Given([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.4, 0.6]])
    loss(model, inputs(4), {"keys": torch.tensor([[1, 3], [2, 4]])}, facts()).backward()
    assert model.table.grad is not None
    # The second text of the first row is pulled to the first axis.
    assert model.table.grad[2, 0] < 0 < model.table.grad[2, 1]


def test_cut_vectors_are_trained_like_whole_ones() -> None:
    torch.manual_seed(2)
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    parts = [float(of(first[:, :n].tolist(), second[:, :n].tolist())) for n in (2, 4, 6)]
    whole = float(of(first.tolist(), second.tolist(), dimensions=[2, 4]))
    assert whole == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_scored_pairs_in_the_right_order_cost_little_and_in_the_wrong_one_much() -> None:
    first, second = [[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]]
    assert scored(first, second, [5, 1]) == pytest.approx(math.log(1 + math.exp(-1 / T)))
    assert scored(first, second, [1, 5]) == pytest.approx(math.log(1 + math.exp(1 / T)))


def test_only_the_order_of_scores_matters_and_equal_ones_ask_for_nothing() -> None:
    torch.manual_seed(3)
    first, second = torch.randn(4, 3).tolist(), torch.randn(4, 3).tolist()
    assert scored(first, second, [1, 2, 3, 4]) == scored(first, second, [-10, 0, 0.5, 900])
    assert scored(first, second, [2, 2, 2, 2]) == 0


def test_each_kind_of_text_is_run_at_its_own_length() -> None:
    model = Given([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    ids = torch.arange(4)[:, None].repeat(1, 9)
    mask = torch.ones_like(ids)
    mask[:2, 3:] = 0
    mask[1, 2:] = 0
    loss(
        model,
        {"input_ids": ids, "attention_mask": mask},
        {"keys": torch.tensor([[1, 3], [2, 4]])},
        facts(),
    )
    assert model.lengths == [3, 9]


def test_autocast_does_not_reach_the_similarities() -> None:
    torch.manual_seed(4)
    rows = {i: torch.randn(16, 64).tolist() for i in range(2)}
    exact = float(of(rows[0], rows[1], temperature=0.01))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(of(rows[0], rows[1], temperature=0.01)) == exact
