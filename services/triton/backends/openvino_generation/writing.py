"""One row's way from logits to text: chooses tokens, decides when the text ends, gives it out in pieces.

Runs inside Triton's python stubs and cannot import Conch. Knows sampling parameters and text; knows nothing
about batches and nothing about Triton.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from choosing import Choice, Chooser
from text import Characters, Stops


@dataclass(frozen=True)
class Piece:
    """What was written since the last piece."""

    text: str
    choices: tuple[Choice, ...]
    """The tokens of `text`, and those that show in no text."""
    cumulative_logprob: float
    """Sum over all tokens so far."""
    finish_reason: str | None
    """stop or length in the last piece, else None."""


class Writer:
    """Gives pieces to `emit` as their text is certain, or all of it at the end unless `stream`."""

    def __init__(
        self,
        chooser: Chooser,
        characters: Characters,
        sampling: Any,
        *,
        eos: Collection[int],
        limit: int,
        stream: bool,
        emit: Callable[[Piece | Exception], None],
        grammar: Any = None,
    ) -> None:
        self._chooser, self._characters, self._sampling = chooser, characters, sampling
        self._stops = Stops(sampling.stop, include=sampling.include_stop_str_in_output)
        self._ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else set(eos))
        self._limit, self._stream, self._emit, self._grammar = limit, stream, emit, grammar
        self._num_tokens = 0
        self._cumulative = 0.0
        self._text = ""
        self._choices: list[Choice] = []

    def write(self, logits: npt.NDArray[np.float32]) -> int | None:
        """Returns the next token, None if the text ended with it."""
        choice = self._chooser.choose(logits)
        self._num_tokens += 1
        self._cumulative += choice.logprob
        self._choices.append(choice)
        reason = self._read(choice.token)
        if reason is None and self._num_tokens >= self._limit:
            reason = "length"
        if reason is not None:
            reason = self._rest() or reason
        if reason is not None or (self._stream and self._text):
            self._give(reason)
        return None if reason is not None else choice.token

    def fail(self, error: Exception) -> None:
        """Gives `error` out instead of another piece."""
        self._emit(error)

    def _read(self, token: int) -> str | None:
        """Adds the token's text; returns "stop" if it ends the text."""
        if token in self._ends:
            return "stop"
        text = self._characters.push(token)
        # Before min_tokens nothing stops a text, as in vLLM.
        early = self._num_tokens <= self._sampling.min_tokens
        self._text += text if early else self._stops.push(text)
        complete = self._grammar is not None and self._grammar.accept(token)
        return "stop" if self._stops.stopped or complete else None

    def _rest(self) -> str | None:
        self._text += self._stops.push(self._characters.flush())
        self._text += self._stops.flush()
        return "stop" if self._stops.stopped else None

    def _give(self, reason: str | None) -> None:
        self._emit(Piece(self._text, tuple(self._choices), self._cumulative, reason))
        self._text, self._choices = "", []
