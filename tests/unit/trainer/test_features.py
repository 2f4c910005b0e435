"""Batches hold texts of like length, in an order that seed and epoch alone decide."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.assets import minilm
from services.tasks import TASKS, Encoded, Example, Facts
from services.tasks.encoding import Encoder, Spans, Tokens
from services.trainer.evaluate import batches_by_length
from services.trainer.features import Features, LengthGroupedBatches, collate, to_tensors

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=300)


def batches(
    found: list[int], *, batch_size: int = 4, accumulation: int = 1, seed: int = 1, epoch: int = 0
) -> list[list[int]]:
    sampler = LengthGroupedBatches(found, batch_size=batch_size, accumulation=accumulation, seed=seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


@given(lengths, st.integers(1, 8), st.integers(1, 4), st.integers(0, 5))
def test_an_epoch_shows_every_example_once_in_full_batches_but_the_last(
    found: list[int], batch_size: int, accumulation: int, epoch: int
) -> None:
    order = batches(found, batch_size=batch_size, accumulation=accumulation, epoch=epoch)
    assert sorted(i for batch in order for i in batch) == list(range(len(found)))
    assert all(len(batch) == batch_size for batch in order[:-1])


@given(lengths, st.integers(1, 4), st.integers(0, 5))
def test_a_step_holds_the_same_examples_however_it_is_accumulated(
    found: list[int], accumulation: int, epoch: int
) -> None:
    at_once = batches(found, batch_size=2 * accumulation, epoch=epoch)
    in_parts = batches(found, batch_size=2, accumulation=accumulation, epoch=epoch)
    assert [i for batch in at_once for i in batch] == [i for batch in in_parts for i in batch]


def test_an_epoch_is_repeated_exactly_and_unlike_the_others() -> None:
    found = list(range(100))
    assert batches(found, epoch=3) == batches(found, epoch=3)
    assert len({str(batches(found, epoch=epoch, seed=seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_grouping_by_length_saves_most_of_the_padding() -> None:
    found = np.random.default_rng(1).integers(5, 256, 2000).tolist()
    padded = sum(max(found[i] for i in batch) * len(batch) for batch in batches(found, batch_size=16))
    assert padded < 1.1 * sum(found)


@given(lengths, st.integers(1, 2000))
def test_evaluation_batches_hold_every_example_once_and_few_tokens(found: list[int], limit: int) -> None:
    order = batches_by_length(found, limit)
    assert sorted(i for batch in order for i in batch) == list(range(len(found)))
    assert all(len(b) == 1 or max(found[i] for i in b) * len(b) <= limit for b in order)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", 8)


def test_features_keep_the_tokens_of_the_encoder(encoder: Encoder) -> None:
    examples = [Example("good", "", "a", 1), Example("good film " * 9, "", "b", 2)]
    task, facts = TASKS["text-classification"], Facts(("a", "b"))
    features = Features(examples, task, encoder, facts)
    assert [features.encoded(i) for i in range(2)] == [
        Encoded(one.example, list(one.windows)) for one in task.encode(encoder, examples, facts)
    ]
    assert (features.lengths, features.num_truncated) == ([3, 8], 1)
    assert [int(features[i][1]["labels"]) for i in range(2)] == [0, 1]


def test_features_keep_where_tokens_lie_in_their_text(encoder: Encoder) -> None:
    features = Features([Example("good film " * 9, "", None, 1)], Windowed(), encoder, Facts())
    kept, fresh = features.encoded(0).windows, encoder.windows(["good film " * 9], stride=2)[0]
    assert len(kept) > 1
    assert [(w.input_ids, w.spans) for w in kept] == [(w.input_ids, _as_lists(w.spans)) for w in fresh]
    assert len(features) == len(kept)


def test_the_windows_of_a_group_stay_together_first_windows_first(encoder: Encoder) -> None:
    examples = [Example("good film " * 9, "", None, row) for row in (1, 2)]
    features = Features(examples, Grouped(), encoder, Facts())
    windows = len(features.encoded(0).windows)
    assert len(features) == 2
    batch = collate([features[0], features[1]], ["input_ids"], encoder.pad_id)
    assert batch["input_ids"].shape[0] == 2 * windows
    assert (batch["input_ids"][0::2] == batch["input_ids"][1::2]).all()


def test_targets_that_differ_in_length_are_padded_with_what_losses_ignore(encoder: Encoder) -> None:
    items = [([Tokens([1] * n, [0] * n)], {"labels": np.arange(n)}) for n in (2, 4)]
    assert collate(items, ["input_ids"], 0)["labels"].tolist() == [[0, 1, -100, -100], [0, 1, 2, 3]]


class Windowed(type(TASKS["text-classification"])):  # type: ignore[misc]
    """Reads texts in windows and knows no targets."""

    def encode(self, encoder: Encoder, examples: Any, facts: Facts) -> list[Encoded]:
        windows = encoder.windows([e.text for e in examples], stride=2)
        return [Encoded(e, found) for e, found in zip(examples, windows, strict=True)]

    def targets(self, encoded: Encoded, facts: Facts) -> Any:
        return [{} for _ in encoded.windows]


class Grouped(Windowed):
    grouped = True

    def targets(self, encoded: Encoded, facts: Facts) -> Any:
        return [{}]


def _as_lists(spans: Spans | None) -> Spans:
    assert spans is not None
    return Spans(list(spans.offsets), list(spans.sequence_ids), list(spans.word_ids))


def test_only_the_inputs_that_a_model_takes_are_made(encoder: Encoder) -> None:
    tokens = encoder.encode(["good", "a good"], ["film", "film"])
    tensors = to_tensors(tokens, ["input_ids", "attention_mask"], encoder.pad_id)
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "input_ids": (2, 6),
        "attention_mask": (2, 6),
    }
