"""Which of the waiting texts leave together: the oldest, and those that share its call at least waste.

Knows lengths, ages and shapes; knows nothing about time, tensors, requests or Triton.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.gateway.shapes import Shapes

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Waiting(Generic[Owner]):
    """One text that waits: `length` is its padded length, `age` grows with every arrival."""

    owner: Owner
    index: int
    length: int
    age: int


class Queue(Generic[Owner]):
    """The waiting texts by padded length, oldest first.

    The oldest text of all anchors each batch, so a text behind n others leaves with the batch n + 1 at
    the latest. Texts of its own length fill the batch up. Those of another length join it all together
    or not at all: only then a later call is saved, and it must have cost more than the padding does.
    """

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._by_length: dict[int, OrderedDict[int, Waiting[Owner]]] = {
            length: OrderedDict() for length in shapes.lengths
        }
        self._alone: OrderedDict[int, Waiting[Owner]] = OrderedDict()
        self._ages = 0

    def __bool__(self) -> bool:
        return bool(self._alone) or any(self._by_length.values())

    def __iter__(self) -> Iterator[Waiting[Owner]]:
        yield from self._alone.values()
        for waiting in self._by_length.values():
            yield from waiting.values()

    def push(self, owner: Owner, index: int, length: int) -> Waiting[Owner]:
        """Adds text `index` of `owner`; `length` must be one of the shapes' lengths."""
        self._ages += 1
        item = Waiting(owner, index, length, self._ages)
        self._by_length[length][item.age] = item
        return item

    def push_alone(self, item: Waiting[Owner]) -> None:
        """Adds a text again that must leave by itself, before all others."""
        self._alone[item.age] = item

    def put_back(self, items: Sequence[Waiting[Owner]]) -> None:
        """Puts texts that were popped back to where they stood."""
        for item in sorted(items, key=lambda item: -item.age):
            waiting = self._by_length[item.length]
            waiting[item.age] = item
            waiting.move_to_end(item.age, last=False)

    def remove(self, item: Waiting[Owner]) -> bool:
        """Takes a text out; returns False if it had left before."""
        found = self._by_length[item.length].pop(item.age, None) or self._alone.pop(item.age, None)
        return found is not None

    def pop_batch(self) -> tuple[list[Waiting[Owner]], int, int]:
        """Returns the texts that leave now, the padded rows and the padded length of their call.

        Raises IndexError if nothing waits.
        """
        if self._alone:
            _, item = self._alone.popitem(last=False)
            return [item], self._shapes.fit_rows(1, item.length)[1], item.length
        length = self._anchor_length()
        batch = self._take(length, self._shapes.capacity(length))
        length = self._join_neighbours(batch, length)
        num_sent, num_rows = self._shapes.fit_rows(len(batch), length)
        self.put_back(batch[num_sent:])
        del batch[num_sent:]
        return batch, num_rows, max(item.length for item in batch)

    def _anchor_length(self) -> int:
        heads = [(next(iter(items)), length) for length, items in self._by_length.items() if items]
        if not heads:
            raise IndexError("nothing waits")
        return min(heads)[1]

    def _take(self, length: int, count: int) -> list[Waiting[Owner]]:
        items = self._by_length[length]
        return [items.popitem(last=False)[1] for _ in range(min(count, len(items)))]

    def _join_neighbours(self, batch: list[Waiting[Owner]], length: int) -> int:
        """Fills `batch` with whole neighbouring lengths, nearest first; returns its new length."""
        others = [other for other, items in self._by_length.items() if items and other != length]
        for other in sorted(others, key=lambda other: abs(other - length)):
            count, longest = len(self._by_length[other]), max(length, other)
            padded = len(batch) if other > length else count
            room = self._shapes.capacity(longest) - len(batch)
            if count <= room and padded * abs(other - length) <= self._shapes.call_tokens:
                batch += self._take(other, count)
                length = longest
        return length
