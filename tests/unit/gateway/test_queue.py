import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.queue import Queue
from services.gateway.shapes import Shapes

LENGTHS = (8, 16, 32, 64, 128)
ROWS = (1, 2, 4, 8)


def shapes(*, rows: tuple[int, ...] = (), call_tokens: int = 32, budget: int = 256) -> Shapes:
    return Shapes(LENGTHS, rows, token_budget=budget, max_rows=8, call_tokens=call_tokens)


def filled(lengths: list[int], **knobs: int) -> Queue[str]:
    queue: Queue[str] = Queue(shapes(**knobs))
    for i, length in enumerate(lengths):
        queue.push(f"text {i}", i, length)
    return queue


def indices(queue: Queue[str]) -> list[int]:
    return [item.index for item in queue.pop_batch()[0]]


def test_the_oldest_anchors_the_batch_and_its_own_length_fills_it() -> None:
    queue = filled([64, 8, 64, 8, 8, 8, 8])
    assert indices(queue) == [0, 2]


def test_another_length_joins_where_its_padding_costs_less_than_a_call() -> None:
    queue = filled([16, 8, 8])
    items, rows, length = queue.pop_batch()
    assert ([item.index for item in items], rows, length) == ([0, 1, 2], 3, 16)


def test_a_longer_text_joins_only_if_all_rows_may_grow_to_it() -> None:
    assert indices(filled([8, 32])) == [0, 1]
    assert indices(filled([8, 8, 32])) == [0, 1]


def test_another_length_joins_all_together_or_not_at_all() -> None:
    assert indices(filled([16, *[8] * 5])) == [0]


def test_an_empty_queue_gives_no_batch() -> None:
    queue = filled([])
    assert not queue
    with pytest.raises(IndexError):
        queue.pop_batch()


def test_what_left_the_queue_is_in_no_batch() -> None:
    queue = filled([8, 8])
    first = next(iter(queue))
    assert queue.remove(first)
    assert not queue.remove(first)
    assert indices(queue) == [1]


def test_a_text_sent_back_leaves_alone_and_first() -> None:
    queue = filled([8, 8, 8])
    items, _, _ = queue.pop_batch()
    queue.push("text 3", 3, 8)
    queue.push_alone(items[1])
    assert indices(queue) == [1]
    assert indices(queue) == [3]


@given(
    lengths=st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=60),
    rows=st.sampled_from([(), ROWS]),
    call_tokens=st.integers(0, 200),
)
def test_every_batch_fits_its_call_and_every_text_leaves_once(
    lengths: list[int], rows: tuple[int, ...], call_tokens: int
) -> None:
    queue = Queue[str](shapes(rows=rows, call_tokens=call_tokens))
    for i, length in enumerate(lengths):
        queue.push("", i, length)
    left = []
    while queue:
        items, num_rows, length = queue.pop_batch()
        assert length == max(item.length for item in items)
        assert len(items) <= num_rows
        assert num_rows == 1 or num_rows * length <= 256
        assert not rows or num_rows in rows
        left += [item.index for item in items]
    assert sorted(left) == list(range(len(lengths)))


@given(
    arrivals=st.lists(st.lists(st.sampled_from(LENGTHS), max_size=6), min_size=1, max_size=30),
    rows=st.sampled_from([(), ROWS]),
)
def test_nobody_starves_whatever_keeps_arriving(arrivals: list[list[int]], rows: tuple[int, ...]) -> None:
    """A text behind n others leaves with the batch n + 1 at the latest, however many arrive after it."""
    queue = Queue[str](shapes(rows=rows))
    due: dict[int, int] = {}
    pushed = num_batches = 0
    for lengths in [*arrivals, *[[] for _ in range(200)]]:
        for length in lengths:
            due[pushed] = num_batches + len(due) + 1
            queue.push("", pushed, length)
            pushed += 1
        if queue:
            num_batches += 1
            for item in queue.pop_batch()[0]:
                assert num_batches <= due.pop(item.index)
    assert not due
