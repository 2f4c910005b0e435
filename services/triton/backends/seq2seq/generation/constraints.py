"""Which next tokens the rules and a row's parameters forbid or force.

The order is that of transformers 5.23, GenerationMixin._get_logits_processor, because a later rule
overrides an earlier one. Knows scores and the tokens so far; knows nothing about beams or graphs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .rules import Parameters, Rules

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def constrain(scores: Floats, tokens: Ints, rules: Rules, parameters: Parameters) -> None:
    """Changes `scores` `(row, beam, vocabulary)`, of logits or log-probabilities, in place.

    `tokens` `(row, beam, length)` are those so far, the decoder's start token first; `parameters` are
    those of the rows.
    """
    length = tokens.shape[-1]
    if rules.repetition_penalty != 1:
        _penalise_repetition(scores, tokens, rules.repetition_penalty)
    for row in np.flatnonzero(parameters.no_repeat_ngram_size):
        _forbid_ngrams(scores[row], tokens[row], int(parameters.no_repeat_ngram_size[row]))
    _forbid_words(scores, tokens, rules)
    early = np.flatnonzero(parameters.min_new_tokens >= length)
    scores[_places(early, scores, rules.eos_token_ids)] = -np.inf
    if length == 1 and rules.forced_bos_token_id is not None:
        _force(scores, np.arange(len(scores)), [rules.forced_bos_token_id])
    if rules.forced_eos_token_ids:
        _force(scores, np.flatnonzero(parameters.max_new_tokens == length), rules.forced_eos_token_ids)
    scores[:, :, list(rules.suppress_tokens)] = -np.inf
    if length == (1 if rules.forced_bos_token_id is None else 2):
        scores[:, :, list(rules.begin_suppress_tokens)] = -np.inf


def forced(length: int, rules: Rules, parameters: Parameters) -> npt.NDArray[np.bool_]:
    """Returns, `(row,)`, whose next token is not the model's to choose; it counts as certain."""
    first = length == 1 and rules.forced_bos_token_id is not None
    last = bool(rules.forced_eos_token_ids) & (parameters.max_new_tokens == length)
    return np.asarray(last | first)


def _penalise_repetition(scores: Floats, tokens: Ints, penalty: float) -> None:
    seen = np.take_along_axis(scores, tokens, axis=-1)
    factor = np.float32(penalty)
    np.put_along_axis(scores, tokens, np.where(seen < 0, seen * factor, seen / factor), axis=-1)


def _forbid_ngrams(scores: Floats, tokens: Ints, size: int) -> None:
    """Forbids, in one row's `scores` `(beam, vocabulary)`, what would repeat `size` tokens of `tokens`."""
    length = tokens.shape[-1]
    if length < size:
        return
    windows = np.lib.stride_tricks.sliding_window_view(tokens, size, axis=-1)
    last = tokens[:, None, length + 1 - size :]
    beams, places = np.nonzero((windows[..., :-1] == last).all(axis=-1))
    scores[beams, windows[beams, places, -1]] = -np.inf


def _forbid_words(scores: Floats, tokens: Ints, rules: Rules) -> None:
    length = tokens.shape[-1]
    for *beginning, last in rules.bad_words_ids:
        ends = not beginning and last in rules.eos_token_ids
        if ends or len(beginning) > length:
            continue
        begun = (tokens[..., length - len(beginning) :] == np.array(beginning, np.int64)).all(axis=-1)
        scores[..., last][begun] = -np.inf


def _force(scores: Floats, rows: Ints, tokens: Sequence[int]) -> None:
    scores[rows] = -np.inf
    scores[_places(rows, scores, tokens)] = 0


def _places(rows: Ints, scores: Floats, tokens: Sequence[int]) -> tuple[npt.NDArray[Any], ...]:
    return np.ix_(rows, np.arange(scores.shape[1]), np.array(tokens, np.int64))
