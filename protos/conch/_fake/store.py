"""The answers that a test has set in a fake gateway, by their form.

Knows which form of answer belongs to which rpcs; knows nothing about requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Answer = Mapping[str, float] | Mapping[str, str] | str | float | Sequence[float]
"""What can be set for a text, see FakeGateway.answer."""


class SetAnswers:
    """Answers by text: `scores` of labels, `spans` with their types, `numbers`, `vectors`, `texts`."""

    def __init__(self, num_dimensions: int) -> None:
        self.scores: dict[str, dict[str, float]] = {}
        self.spans: dict[str, dict[str, str]] = {}
        self.numbers: dict[str, float] = {}
        self.vectors: dict[str, list[float]] = {}
        self.texts: dict[str, str] = {}
        self.num_dimensions = num_dimensions

    def set(self, text: str, answer: Answer) -> None:
        """Sets the answer to a text. Raises ValueError if the two do not fit."""
        if isinstance(answer, str):
            self.texts[text] = answer
        elif isinstance(answer, Mapping):
            self._set_mapping(text, answer)
        elif isinstance(answer, int | float):
            self.numbers[text] = float(answer)
        else:
            self._set_vector(text, answer)

    def _set_mapping(self, text: str, answer: Mapping[str, Any]) -> None:
        if any(not isinstance(value, str) for value in answer.values()):
            self.scores[text] = dict(answer)
            return
        for span in answer:
            if span not in text:
                raise ValueError(f"{span!r} does not stand in {text!r}")
        self.spans[text] = dict(answer)

    def _set_vector(self, text: str, numbers: Sequence[float]) -> None:
        if len(numbers) != self.num_dimensions:
            raise ValueError(f"{len(numbers)} numbers, vectors here have {self.num_dimensions}")
        self.vectors[text] = [float(number) for number in numbers]
