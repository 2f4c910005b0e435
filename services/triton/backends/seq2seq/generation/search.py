"""What greedy and beam search share: the model's step as they see it, and what comes out.

Knows arrays; knows nothing about graphs, requests or parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

Step = Callable[[Ints, Ints, Ints], Floats]
"""`(tokens, parents, rows)` to logits `(row, beam, vocabulary)`, which the caller may overwrite.

`tokens` `(row, beam)` are the last ones; `parents` `(row, beam)` say which sequence of the step before
each of them goes on, by its flat index there; `rows` `(row,)` are those still running, by the number
that they began with.
"""
Watch = Callable[[Ints], Bools]
"""Asked once a step: which of these rows nobody waits for any more."""

_COLUMNS = 512
"""Of a vocabulary of 32,128 and 4 beams: 251 numbers in each, and top-8 looks at 8 columns."""


@dataclass(frozen=True)
class Finished:
    """A row's answer: `tokens` `(length,)` without the start token, the end token last if it ended."""

    row: int
    tokens: Ints
    score: float
    """Greedy: sum of the tokens' log-probabilities. Beam: that, divided by length ** length_penalty."""


def log_normalizer(logits: Floats) -> Floats:
    """Returns log(sum(exp(logits))) over the last axis, which stays with extent 1."""
    top = logits.max(axis=-1, keepdims=True)
    total: Floats = np.exp(logits - top).sum(axis=-1, keepdims=True)
    normalizer: Floats = top + np.log(total)
    return normalizer


def largest(scores: Floats, count: int) -> tuple[Floats, Ints]:
    """Returns the `count` largest of each row of `scores` `(row, n)`, falling, and where they stand.

    Reads everything once, by column maxima: the largest numbers are in the columns whose maxima are
    largest. numpy's own partition took four times as long on 4 x 32,128 numbers.
    """
    rows, width = scores.shape
    height = width // _COLUMNS
    if count * 4 > _COLUMNS or height < 4:
        return _sorted(scores, np.broadcast_to(np.arange(width), scores.shape), count)
    even = height * _COLUMNS
    maxima = scores[:, :even].reshape(rows, height, _COLUMNS).max(axis=1)
    columns = np.argpartition(maxima, _COLUMNS - count, axis=1)[:, _COLUMNS - count :]
    inner = (columns[:, None] + np.arange(0, even, _COLUMNS)[:, None]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(even, width), (rows, width - even))
    places = np.sort(np.concatenate([inner, rest], axis=1), axis=1)
    return _sorted(np.take_along_axis(scores, places, axis=1), places, count)


def _sorted(scores: Floats, places: Ints, count: int) -> tuple[Floats, Ints]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)
