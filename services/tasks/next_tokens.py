"""What a causal language model says of known text, and how far two of them differ. One row a learned token:

    losses      (token,)      negative log-likelihood, natural logarithm
    best        (token,)      the most probable token's id
    target      (token,)      the id of the token that stands there
    top_logits  (token, k)    logits of the tokens that the reference holds to be the most probable

Logits of whole vocabularies would be gigabytes, so nobody ships them. Knows numbers; knows nothing about
models.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from services.tasks.tensors import Answer, FloatArray

NUM_TOP = 16
"""Logits that are compared of each token: what lies deeper is never written."""
NUM_WRITTEN = 32
"""Tokens of a golden text, at most."""
_HIGHEST_LOSS = 80.0
"""exp of more is no number that anybody can print."""


def joined(answers: Sequence[Answer], name: str) -> FloatArray:
    """Returns one output of all tokens of all windows, `(token, ...)`."""
    return np.concatenate([row[name] for answer in answers for row in answer])


def metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Returns loss, perplexity, token accuracy and the number of tokens that they are means of."""
    losses = joined(answers, "losses").astype(np.float64)
    loss = float(losses.mean())
    right = joined(answers, "best") == joined(answers, "target")
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "token_accuracy": float(right.mean()),
        "num_tokens": float(len(losses)),
    }


def perplexity(loss: float) -> float:
    """Returns exp of a mean loss."""
    return math.exp(min(loss, _HIGHEST_LOSS)) if math.isfinite(loss) else math.inf


def figures(reference: Sequence[Answer], candidate: Sequence[Answer]) -> dict[str, float]:
    """Returns how far a candidate is from the reference; where it is no number it counts as a flip."""
    want, got = joined(reference, "top_logits"), joined(candidate, "top_logits")
    losses = joined(candidate, "losses").astype(np.float64)
    finite = np.isfinite(got).all(axis=1) & np.isfinite(losses)
    flipped = (joined(reference, "best") != joined(candidate, "best")) | ~finite
    rises = (losses - joined(reference, "losses").astype(np.float64))[finite]
    return {
        "max_abs_logit_difference": float(np.abs(want - got)[finite].max()) if finite.any() else math.inf,
        "token_flip_rate": float(flipped.mean()),
        "perplexity_increase": max(0.0, perplexity(float(rises.mean())) - 1) if finite.any() else math.inf,
        "num_nonfinite": float((~finite).sum()),
    }


def text_mismatch_rate(reference: Iterable[str], candidate: Iterable[str]) -> float:
    """Returns the share of texts that are not, character by character, what the reference wrote."""
    return float(np.mean([want != got for want, got in zip(reference, candidate, strict=True)]))
