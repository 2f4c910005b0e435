"""Golden examples stand for the whole split: every label, short texts and long ones."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.tasks import TASKS, Example
from services.trainer.golden import choose_golden

TASK = TASKS["text-classification"]


def chosen(rows: list[tuple[str, int]]) -> list[int]:
    examples = [Example(f"text {i}", "", label, i) for i, (label, _) in enumerate(rows)]
    return choose_golden(examples, [length for _, length in rows], TASK)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 99)), min_size=1, max_size=200))
def test_up_to_32_are_chosen_each_once_with_every_label(rows: list[tuple[str, int]]) -> None:
    indices = chosen(rows)
    assert len(indices) == len(set(indices)) == min(32, len(rows))
    assert {rows[i][0] for i in indices} == {label for label, _ in rows}
    assert indices == chosen(rows)


def test_the_shortest_and_the_longest_of_each_label_are_among_them() -> None:
    rows = [("ab"[i % 2], 1 + i) for i in range(400)]
    indices = chosen(rows)
    assert {0, 1, 398, 399} <= set(indices)
    assert Counter(rows[i][0] for i in indices) == {"a": 16, "b": 16}


def test_more_labels_than_places_leave_out_the_rarest() -> None:
    rows = [(f"label {n}", 5) for n in range(40) for _ in range(40 - n)]
    assert {rows[i][0] for i in chosen(rows)} == {f"label {n}" for n in range(32)}
