"""Logits to the next token, as vLLM chooses it: constraint, penalties, temperature, min_p, top_k, top_p.

Runs inside Triton's python stubs (numpy < 2) and cannot import Conch. Knows numpy and its random numbers;
knows nothing about models and nothing about text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

# A nucleus is looked for among so many tokens first: sorting a vocabulary takes milliseconds.
_NUCLEUS = 1024


class Grammar(Protocol):
    """What a text must look like."""

    def forbidden(self) -> BoolArray:
        """Returns which tokens of the vocabulary may not come next."""


@dataclass(frozen=True)
class Logprob:
    """One token's natural logarithm of its probability, before penalties and temperature; rank from 1."""

    token: int
    logprob: float
    rank: int


@dataclass(frozen=True)
class Choice:
    """A chosen token; `logprob` is 0 and `top` empty unless they were asked for."""

    token: int
    logprob: float = 0.0
    top: tuple[Logprob, ...] = ()
    """The chosen token first, then the likeliest ones."""


class Chooser:
    """Chooses one row's tokens, one after the other; the same seed makes the same choices."""

    def __init__(
        self,
        sampling: Any,
        prompt: Sequence[int],
        *,
        never_before_min: Sequence[int] = (),
        with_logprob: bool = False,
        grammar: Grammar | None = None,
    ) -> None:
        self._sampling = sampling
        self._prompt = np.unique(np.asarray(prompt, dtype=np.int64))
        self._counts: Counter[int] = Counter()
        self._chosen = 0
        self._ends = list(never_before_min)
        self._with_logprob = with_logprob or sampling.logprobs is not None
        self._grammar = grammar
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    def choose(self, logits: FloatArray) -> Choice:
        """Returns the next token; `logits` float32 `(vocabulary,)` are left as they are."""
        token = self._token(self._constrained(logits))
        self._counts[token] += 1
        self._chosen += 1
        return self._reported(token, logits) if self._with_logprob else Choice(token)

    def _constrained(self, logits: FloatArray) -> FloatArray:
        changed = logits
        if self._grammar is not None:
            changed = np.where(self._grammar.forbidden(), -np.inf, logits)
        if self._ends and self._chosen < self._sampling.min_tokens:
            changed = changed.copy() if changed is logits else changed
            changed[self._ends] = -np.inf
        return self._penalized(changed)

    def _penalized(self, logits: FloatArray) -> FloatArray:
        s = self._sampling
        if s.repetition_penalty == 1 and not s.presence_penalty and not s.frequency_penalty:
            return logits
        logits = logits.copy()
        generated = np.fromiter(self._counts.keys(), np.int64, len(self._counts))
        seen = np.union1d(self._prompt, generated)
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / s.repetition_penalty, values * s.repetition_penalty)
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        logits[generated] -= s.frequency_penalty * counts + s.presence_penalty
        return logits

    def _token(self, logits: FloatArray) -> int:
        s = self._sampling
        if s.temperature < 1e-5:
            return int(logits.argmax())
        # The greatest becomes 0, so that a temperature near 0 cannot overflow.
        weights = np.exp((logits - logits.max()) / np.float32(s.temperature), dtype=np.float32)
        if s.min_p:
            weights[weights < s.min_p] = 0  # the greatest weight is 1
        tokens = _candidates(weights, s.top_k, s.top_p)
        kept = weights if tokens is None else weights[tokens]
        sums = np.cumsum(kept, dtype=np.float64)
        at = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        at = min(at, len(sums) - 1)
        return at if tokens is None else int(tokens[at])

    def _reported(self, token: int, logits: FloatArray) -> Choice:
        top = float(logits.max())
        total = top + float(np.log(np.exp(logits - top, dtype=np.float32).sum(dtype=np.float64)))
        wanted = [token]
        if self._sampling.logprobs:
            wanted += [t for t in _greatest(logits, self._sampling.logprobs).tolist() if t != token]
        reports = tuple(
            Logprob(t, float(logits[t]) - total, 1 + int((logits > logits[t]).sum())) for t in wanted
        )
        return Choice(token, reports[0].logprob, reports if self._sampling.logprobs is not None else ())


def _candidates(weights: FloatArray, top_k: int, top_p: float) -> npt.NDArray[np.intp] | None:
    """Returns the tokens to choose from, likeliest first; None is all of them."""
    if top_p < 1:
        return _nucleus(weights, top_k or len(weights), top_p)
    return _greatest(weights, top_k) if 0 < top_k < len(weights) else None


def _nucleus(weights: FloatArray, top_k: int, top_p: float) -> npt.NDArray[np.intp]:
    """Returns the fewest of the `top_k` likeliest tokens that hold `top_p` of their weight."""
    limited = top_k < len(weights)
    order = _greatest(weights, top_k if limited else _NUCLEUS)
    sums = np.cumsum(weights[order], dtype=np.float64)
    wanted = top_p * (sums[-1] if limited else weights.sum(dtype=np.float64))
    if sums[-1] < wanted:
        order = _greatest(weights, len(weights))
        sums = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(sums, wanted)) + 1]


def _greatest(values: FloatArray, count: int) -> npt.NDArray[np.intp]:
    """Returns the places of the `count` greatest values, greatest first; equal ones in their order."""
    if count < len(values):
        places = np.sort(np.argpartition(values, -count)[-count:])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")]
