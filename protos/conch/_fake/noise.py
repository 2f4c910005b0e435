"""Numbers and words that depend on a text alone: what the fake gateway answers with for want of a model.

Knows hashes; knows nothing about rpcs.
"""

import hashlib
import math
from collections.abc import Sequence

from conch.v1 import inference_pb2

_WORDS = "the sea is calm and wide at dusk when a shell sings to the shore of its old long song".split()


def deterministic_scores(text: str, labels: Sequence[str]) -> dict[str, float]:
    """Returns scores in [0, 1] that sum to 1 and depend on text and labels alone."""
    logits = [_digest(f"{label}\0{text}")[0] / 64 for label in labels]
    total = sum(math.exp(logit) for logit in logits)
    return {label: math.exp(logit) / total for label, logit in zip(labels, logits, strict=True)}


def probability(*texts: str) -> float:
    """Returns a number in [0, 1] for these texts."""
    return _digest("\0".join(texts))[0] / 255


def pick(choices: Sequence[str], text: str) -> str:
    """Returns one of the choices for the text."""
    return choices[_digest(text)[0] % len(choices)]


def sentence(text: str) -> str:
    """Returns 8 to 15 words for the text."""
    digest = _digest(text)
    return " ".join(_WORDS[byte % len(_WORDS)] for byte in digest[: 8 + digest[-1] % 8])


def vector(text: str, size: int) -> list[float]:
    """Returns `size` numbers in [-1, 1] for the text."""
    blocks = (_digest(f"{i}\0{text}") for i in range(size // 32 + 1))
    return [byte / 127.5 - 1 for byte in b"".join(blocks)[:size]]


def tokens_of(*texts: str) -> inference_pb2.InputTokens:
    """Returns how texts are read together: a token a word, and the two at the ends."""
    return inference_pb2.InputTokens(num_tokens=sum(len(t.split()) for t in texts) + 2, num_windows=1)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
