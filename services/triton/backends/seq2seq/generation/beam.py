"""Beam search as transformers 5.23 does it (GenerationMixin._beam_search), row by row independent.

Knows arrays and constraints; knows nothing about graphs. The names of its parts are those of the
original, so that the two can be read side by side.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .constraints import constrain
from .rules import Parameters, Rules
from .search import Bools, Finished, Floats, Ints, Step, Watch, largest, log_normalizer

_Scalar = TypeVar("_Scalar", bound=np.generic)
_OUT = np.float32(-1e9)
"""The score of what is out of the race."""


def beam(
    step: Step, rows: Ints, rules: Rules, parameters: Parameters, watch: Watch
) -> Iterator[list[Finished]]:
    """Yields the rows that each step finished; a finished row takes no further part.

    `parameters` are those of `rows`, in their order, all with the same num_beams.
    """
    if not len(rows):
        return
    state = _State.first(rows, int(parameters.num_beams[0]), parameters, rules)
    parents = np.arange(len(rows))[:, None]
    length = 1
    while len(state.rows):
        logits = step(state.tokens[:, : parents.shape[1], length - 1], parents, state.rows)
        parents = state.extend(logits, length, rules)
        done = ~state.goes_on(length, rules)
        length += 1
        yield state.answers(done)
        kept = np.flatnonzero(~(done | watch(state.rows)))
        state, parents = state.of(kept), parents[kept]


@dataclass
class _State:
    """Every array begins with the row's axis; `(row, beam)` unless said otherwise."""

    rows: Ints
    """`(row,)`"""
    parameters: Parameters
    tokens: Ints
    """`(row, beam, length)`, of the running beams, best first"""
    scores: Floats
    """sums of log-probabilities of the running beams"""
    hits: Bools
    """`(row,)`: every candidate of the last step ended or is as long as may be"""
    finished: Bools
    finished_tokens: Ints
    """`(row, beam, length)`"""
    finished_lengths: Ints
    finished_scores: Floats
    """after the length penalty, falling"""
    improvable: Bools
    """`(row,)`: a running beam may still beat the worst finished one"""

    @classmethod
    def first(cls, rows: Ints, beams: int, parameters: Parameters, rules: Rules) -> "_State":
        """Returns the state before the first step: all beams are the first one, which alone can win."""
        shape = (len(rows), beams)
        tokens = np.full((*shape, 1 + int(parameters.max_new_tokens.max())), rules.pad_token_id)
        tokens[:, :, 0] = rules.decoder_start_token_id
        scores = np.full(shape, _OUT)
        scores[:, 0] = 0
        return cls(
            rows=rows,
            parameters=parameters,
            tokens=tokens,
            scores=scores,
            hits=np.zeros(len(rows), np.bool_),
            finished=np.zeros(shape, np.bool_),
            finished_tokens=tokens.copy(),
            finished_lengths=np.zeros(shape, np.int64),
            finished_scores=np.full(shape, _OUT),
            improvable=np.ones(len(rows), np.bool_),
        )

    def of(self, kept: Ints) -> "_State":
        """Returns the state of these rows alone, by their places."""
        if len(kept) == len(self.rows):
            return self
        parts: dict[str, Any] = {f.name: getattr(self, f.name)[kept] for f in fields(self)}
        return _State(**parts)

    def extend(self, logits: Floats, length: int, rules: Rules) -> Ints:
        """Moves every row one token on; returns which sequence of this step each beam goes on."""
        beams, vocabulary = self.scores.shape[1], logits.shape[-1]
        given = logits.shape[1]
        count = max(2, 1 + len(rules.eos_token_ids)) * beams
        values, places = largest(self._accumulated(logits, length, rules), count)
        parents = places // vocabulary
        candidates = _pick(self.tokens, parents)
        candidates[:, :, length] = places % vocabulary
        hits = np.isin(candidates[:, :, length], rules.eos_token_ids)
        hits |= (length >= self.parameters.max_new_tokens)[:, None]
        self.hits = _all(hits)
        self._finish(candidates, values, hits, length, rules)
        self.scores, order = largest(values + _out(hits), beams)
        self.tokens = _pick(candidates, order)
        self._hope(length, rules)
        # At the first step the beams were one: all go on that one.
        own: Ints = _pick(parents, order) * given // beams
        others: Ints = np.arange(len(own))[:, None] * given
        return own + others

    def _accumulated(self, logits: Floats, length: int, rules: Rules) -> Floats:
        """Returns `(row, beam * vocabulary)`: the log-probabilities of all continuations."""
        beams = self.scores.shape[1]
        logits -= log_normalizer(logits)
        if logits.shape[1] < beams:
            logits = np.repeat(logits, beams, axis=1)
        constrain(logits, self.tokens[:, :, :length], rules, self.parameters)
        logits += self.scores[:, :, None]
        return logits.reshape(len(logits), -1)

    def _finish(self, candidates: Ints, values: Floats, hits: Bools, length: int, rules: Rules) -> None:
        """Merges the candidates that just finished with those that had; only the best may finish."""
        beams = self.scores.shape[1]
        hits = hits & (np.arange(hits.shape[1]) < beams)
        values = (
            values / (length ** self.parameters.length_penalty.astype(np.float64)).astype(np.float32)[:, None]
        )
        full = _all(self.finished) & (rules.early_stopping is True)
        values = values + _out(full)[:, None] + _out(~self.improvable)[:, None] + _out(~hits)
        lengths = np.full(values.shape, length)
        merged = np.concatenate([self.finished_scores, values], axis=1)
        self.finished_scores, order = largest(merged, beams)
        self.finished_tokens = _pick(np.concatenate([self.finished_tokens, candidates], axis=1), order)
        self.finished_lengths = _pick(np.concatenate([self.finished_lengths, lengths], axis=1), order)
        self.finished = _pick(np.concatenate([self.finished, hits], axis=1), order)

    def _hope(self, length: int, rules: Rules) -> None:
        """Says which rows may still improve, by the heuristic that early_stopping names."""
        penalty = self.parameters.length_penalty.astype(np.float64)
        final = (rules.early_stopping == "never") & (penalty > 0)
        reached = np.where(final, self.parameters.max_new_tokens, length)
        best = self.scores[:, 0] / (reached**penalty).astype(np.float32)
        worst = np.where(self.finished, self.finished_scores.min(axis=1, keepdims=True), _OUT)
        self.improvable &= (best[:, None] > worst).any(axis=1)

    def goes_on(self, length: int, rules: Rules) -> Bools:
        """Returns which rows take another step."""
        open_beam = ~(_all(self.finished) & (rules.early_stopping is True))
        return self.improvable & open_beam & ~self.hits

    def answers(self, done: Bools) -> list[Finished]:
        """Returns the best finished sequence of each row that is done."""
        return [
            Finished(
                int(self.rows[i]),
                self.finished_tokens[i, 0, 1 : 1 + self.finished_lengths[i, 0]],
                float(self.finished_scores[i, 0]),
            )
            for i in np.flatnonzero(done)
        ]


def _out(which: Bools) -> Floats:
    return which.astype(np.float32) * _OUT


def _all(which: Bools) -> Bools:
    return np.asarray(which.all(axis=1))


def _pick(array: npt.NDArray[_Scalar], places: Ints) -> npt.NDArray[_Scalar]:
    """Returns `array` with the second axis as `places` `(row, beam)` say."""
    return np.take_along_axis(array, places.reshape(*places.shape, *(1,) * (array.ndim - 2)), axis=1)
