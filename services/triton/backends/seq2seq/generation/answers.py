"""Finished rows as the tensors that a call is answered with.

Knows names and shapes; knows nothing about calls or search.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .rules import Parameters, Rules
from .search import Finished


def tensors(answers: Sequence[Finished], rules: Rules, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
    """Returns the outputs of a call by name, given the answer to each of its rows and their parameters.

    `sequences` `(row, longest)` end with padding; the others are `(row, 1)`: `sequence_lengths` without
    that, `sequence_ended` 1 where the model came to an end by itself.
    """
    sequences = np.full((len(answers), max(len(a.tokens) for a in answers)), rules.pad_token_id, np.int64)
    for sequence, answer in zip(sequences, answers, strict=True):
        sequence[: len(answer.tokens)] = answer.tokens
    most = parameters.max_new_tokens.tolist()
    ended = [rules.ends(answer.tokens, longest) for answer, longest in zip(answers, most, strict=True)]
    return {
        "sequences": sequences,
        "sequence_scores": np.array([[answer.score] for answer in answers], np.float32),
        "sequence_lengths": np.array([[len(answer.tokens)] for answer in answers], np.int64),
        "sequence_ended": np.array([[end] for end in ended], np.int64),
    }
