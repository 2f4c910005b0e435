"""Splits and samples keep proportions, repeat under a seed, and never show the model what it is tested on."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.tasks import TASKS, Example
from services.tasks.reading import VALIDATION
from services.trainer.splits import (
    allocate,
    cut_validation,
    find_duplicates,
    find_leaks,
    normalised,
    sample,
)

TASK = TASKS["text-classification"]


def examples(*rows: tuple[str, str]) -> list[Example]:
    return [Example(text, "", label, row) for row, (text, label) in enumerate(rows, start=1)]


# Two texts a label at least; beyond that, repeated texts and uneven labels as they come.
labelled = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=0, max_size=80).map(
    lambda rows: examples(
        *((f"{label} first", label) for label in "abc"),
        *((f"{label} second", label) for label in "abc"),
        *((f"{label} {number}", label) for number, label in rows),
    )
)


@given(labelled, st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_cut_loses_nothing_and_leaks_nothing(found: list[Example], fraction: float, seed: int) -> None:
    train, validation = cut_validation(found, TASK, fraction=fraction, seed=seed)
    assert sorted(e.row for e in train + validation) == [e.row for e in found]
    assert not {normalised(e) for e in train} & {normalised(e) for e in validation}
    assert find_leaks(train, validation) == []


@given(labelled, st.floats(0.01, 0.5), st.integers(0, 9))
def test_every_label_stands_on_both_sides_of_a_cut(found: list[Example], fraction: float, seed: int) -> None:
    for side in cut_validation(found, TASK, fraction=fraction, seed=seed):
        assert {e.target for e in side} == {"a", "b", "c"}


def test_a_cut_keeps_the_proportions_of_labels() -> None:
    found = examples(*((f"a{i}", "a") for i in range(900)), *((f"b{i}", "b") for i in range(100)))
    _, validation = cut_validation(found, TASK, fraction=0.1, seed=1)
    assert Counter(e.target for e in validation) == {"a": 90, "b": 10}


@given(labelled, st.integers(0, 9))
def test_equal_seeds_cut_equally(found: list[Example], seed: int) -> None:
    assert cut_validation(found, TASK, fraction=0.2, seed=seed) == cut_validation(
        found, TASK, fraction=0.2, seed=seed
    )


def test_other_seeds_cut_otherwise() -> None:
    found = examples(*((f"text {i}", "ab"[i % 2]) for i in range(100)))
    cuts = [cut_validation(found, TASK, fraction=0.2, seed=seed)[1] for seed in range(5)]
    assert len({tuple(e.row for e in cut) for cut in cuts}) == 5


def test_a_label_with_a_single_text_cannot_be_cut_and_is_named() -> None:
    found = examples(("x", "a"), ("y", "a"), ("once", "rare"), ("Once ", "rare"))
    with pytest.raises(InvalidRequest, match=r"'rare' \(rows 3, 4\)") as caught:
        cut_validation(found, TASK, fraction=0.1, seed=1)
    assert caught.value.violations[0].field == VALIDATION
    assert caught.value.reason == "TOO_FEW_EXAMPLES"


@given(labelled, st.integers(0, 100), st.integers(0, 9))
def test_a_sample_has_the_size_asked_for_all_labels_and_the_order_of_the_file(
    found: list[Example], size: int, seed: int
) -> None:
    size = max(size, 3) if size else 0
    sampled = sample(found, TASK, size=size, seed=seed, field="x")
    assert len(sampled) == min(size or len(found), len(found))
    assert {e.target for e in sampled} == {"a", "b", "c"}
    assert [e.row for e in sampled] == sorted(e.row for e in sampled)
    assert sampled == sample(found, TASK, size=size, seed=seed, field="x")


def test_a_sample_smaller_than_the_number_of_labels_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 examples cannot hold all of 3 labels"):
        sample(
            examples(*((c, c) for c in "abc")), TASK, size=2, seed=1, field="spec.dataset.max_train_examples"
        )


@settings(max_examples=300)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.data())
def test_places_are_allocated_in_proportion_and_one_to_each(counts: list[int], data: st.DataObject) -> None:
    named = {str(i): count for i, count in enumerate(counts)}
    size = data.draw(st.integers(len(counts), sum(counts)))
    shares = allocate(named, size)
    assert sum(shares.values()) == size
    assert all(1 <= shares[name] <= count for name, count in named.items())
    if min(counts) * size >= sum(counts):
        assert all(abs(shares[n] - size * c / sum(counts)) < 1 for n, c in named.items())


def test_a_text_in_both_splits_is_a_leak_whatever_its_case_and_spacing() -> None:
    train, validation = examples(("a", "x"), ("The  Film", "x")), examples(("b", "x"), (" the film\n", "y"))
    [leak] = find_leaks(train, validation)
    assert leak.field == VALIDATION
    assert leak.description == "texts that the training split holds too: row 2 = training row 2"


def test_pairs_leak_only_as_pairs() -> None:
    train, validation = [Example("a", "b", "x", 1)], [Example("a", "c", "x", 1)]
    assert find_leaks(train, validation) == []


def test_repeated_texts_are_counted_and_conflicting_labels_are_told_apart() -> None:
    found = examples(("a", "x"), ("A", "x"), ("a ", "y"), ("b", "x"))
    repeated, conflicting = find_duplicates(found)
    assert repeated.reason == "DUPLICATE_TEXTS"
    assert repeated.message == "2 training examples repeat an earlier text, such as rows 1, 2, 3"
    assert conflicting.reason == "CONFLICTING_LABELS"
    assert conflicting.message.startswith("1 training texts bear different labels")
    assert find_duplicates(found[2:]) == []
