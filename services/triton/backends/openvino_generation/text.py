"""Tokens to text while they come: whole characters only, and nothing of a stop string.

Runs inside Triton's python stubs and cannot import Conch. Knows `decode`; knows nothing about models.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

# What a decoder gives for bytes that are no character, or not yet.
_UNFINISHED = "\ufffd"


class Characters:
    """Gives the text of tokens piece by piece; all pieces together are the text of all tokens."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Tokens from _begin to _told are what the last piece ended with: decoders look at neighbours
        # (spaces between words), so each piece is decoded together with the one before it.
        self._begin = self._told = 0

    def push(self, token: int) -> str:
        """Returns the characters that `token` completes, "" while one is unfinished."""
        self._ids.append(token)
        return self._piece(hold=True)

    def flush(self) -> str:
        """Returns the rest, unfinished bytes as the decoder shows them."""
        return self._piece(hold=False)

    def _piece(self, *, hold: bool) -> str:
        told = self._decode(self._ids[self._begin : self._told])
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(told) or (hold and text.endswith(_UNFINISHED)):
            return ""
        self._begin, self._told = self._told, len(self._ids)
        return text[len(told) :]


class Stops:
    """Passes text on, less what may yet become a stop string."""

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        self._strings = strings
        self._include = include
        self._held = ""
        self.stopped = False
        """Whether a stop string came; nothing is passed on after it."""

    def push(self, text: str) -> str:
        """Returns what is certain not to belong to a stop string."""
        if not self._strings or self.stopped:
            return "" if self.stopped else text
        self._held += text
        found = [(at, s) for s in self._strings if (at := self._held.find(s)) >= 0]
        if found:
            at, string = min(found)
            self.stopped = True
            return self._held[: at + len(string) * self._include]
        return self._release(self._undecided())

    def flush(self) -> str:
        """Returns what was held back."""
        return "" if self.stopped else self._release(0)

    def _undecided(self) -> int:
        """Returns how many characters at the end begin a stop string."""
        return max(
            n
            for s in self._strings
            for n in range(min(len(s), len(self._held) + 1))
            if n == 0 or self._held.endswith(s[:n])
        )

    def _release(self, kept: int) -> str:
        cut = len(self._held) - kept
        released, self._held = self._held[:cut], self._held[cut:]
        return released
