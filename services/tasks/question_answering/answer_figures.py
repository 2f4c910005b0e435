"""How right answers are, and how far a converted model's are from the trained model's.

Knows logits, spans and SQuAD's scores; knows nothing about how models run.
"""

from collections.abc import Sequence

import numpy as np

from conch.v1 import job_pb2
from services.tasks.example import Encoded
from services.tasks.question_answering.answer_spans import Found, context_of, exact_match, f1, find_answers
from services.tasks.question_answering.answer_targets import right_texts, target_positions
from services.tasks.tensors import Answer, Array, FloatArray

OUTPUTS = ("start_logits", "end_logits")
"""Logits `(sequence,)` of the first and of the last token of an answer."""

Place = tuple[int, int]
"""Where an answer lies in its context: code points [start, end)."""


def _limits(*, logit_difference: float, flips: float, drop: float) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logit_difference,
        "answer_flip_rate": flips,
        "exact_match_drop": drop,
        "num_nonfinite": 0.0,
    }


# Measured with MiniLM on made questions: see docs/adr/0008-parity-limits-of-answers.md.
LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logit_difference=1e-3, flips=0.002, drop=0.002),
    job_pb2.PRECISION_BF16: _limits(logit_difference=1.0, flips=0.02, drop=0.01),
    job_pb2.PRECISION_INT8: _limits(logit_difference=6.0, flips=0.07, drop=0.03),
}


def evaluation_of(
    encoded: Sequence[Encoded], answers: Sequence[Answer], max_tokens: int
) -> job_pb2.Evaluation:
    """Returns SQuAD's scores; "no answer" is an answer where a split has unanswerable questions."""
    right = [right_texts(one) for one in encoded]
    told = _told(encoded, _best(encoded, answers, max_tokens, may_be_none=not all(right)))
    pairs = list(zip(told, right, strict=True))
    metrics = {
        "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
        "f1": float(np.mean([f1(*pair) for pair in pairs])),
        "loss": _loss(encoded, answers),
    }
    if without := [text for text, texts in pairs if not texts]:
        metrics["no_answer_accuracy"] = without.count("") / len(without)
    return job_pb2.Evaluation(num_examples=len(encoded), metrics=metrics)


@np.errstate(invalid="ignore")  # a broken candidate's numbers are counted, not warned of
def figures_of(
    encoded: Sequence[Encoded], reference: Sequence[Answer], candidate: Sequence[Answer], max_tokens: int
) -> dict[str, float]:
    """Returns the parity figures; where no target is known, the reference's own answer is the right one."""
    differences = [_differences(*one) for one in zip(encoded, reference, candidate, strict=True)]
    sound = np.array([bool(np.isfinite(found).all()) for found in differences])
    every = np.concatenate(differences)
    finite = every[np.isfinite(every)]
    want, got = (_best(encoded, answers, max_tokens, may_be_none=True) for answers in (reference, candidate))
    same = np.array([ours == theirs for ours, theirs in zip(want, got, strict=True)]) & sound
    hits, kept = _hits(encoded, reference, candidate, max_tokens)
    return {
        "max_abs_logit_difference": float(finite.max()) if finite.size else float("inf"),
        "answer_flip_rate": float(1 - same.mean()),
        "exact_match_drop": max(0.0, float(hits.mean() - (kept * sound).mean())),
        "num_nonfinite": float(sum(_num_nonfinite(answer) for answer in candidate)),
    }


def _best(
    encoded: Sequence[Encoded], answers: Sequence[Answer], max_tokens: int, *, may_be_none: bool
) -> list[Place | None]:
    """Returns the place of each best answer; None if `may_be_none` and "no answer" is as probable."""
    return [
        _decide(find_answers(*both, top_k=1, max_tokens=max_tokens), may_be_none=may_be_none)
        for both in zip(encoded, answers, strict=True)
    ]


def _decide(found: Found, *, may_be_none: bool) -> Place | None:
    if not found.spans or (may_be_none and found.no_answer_score >= found.spans[0].score):
        return None
    return found.spans[0].start, found.spans[0].end


def _told(encoded: Sequence[Encoded], places: Sequence[Place | None]) -> list[str]:
    """Returns the text at each place, empty for None."""
    both = zip(encoded, places, strict=True)
    return [one.example.text_pair[slice(*place)] if place else "" for one, place in both]


def _hits(
    encoded: Sequence[Encoded], reference: Sequence[Answer], candidate: Sequence[Answer], max_tokens: int
) -> tuple[Array, Array]:
    """Returns which answers are right, 1.0 or 0.0, of the reference and of the candidate `(example,)`."""
    known = all(one.example.target is not None for one in encoded)
    right = [right_texts(one) for one in encoded]
    may_be_none = not (known and all(right))
    want, got = (
        _told(encoded, _best(encoded, answers, max_tokens, may_be_none=may_be_none))
        for answers in (reference, candidate)
    )
    right = right if known else [[text] for text in want]
    hits, kept = (
        np.array([exact_match(*both) for both in zip(texts, right, strict=True)]) for texts in (want, got)
    )
    return hits, kept


def _differences(encoded: Encoded, reference: Answer, candidate: Answer) -> FloatArray:
    """Returns how far the logits that count, the context's and the first token's, are apart `(any,)`."""
    parts: list[FloatArray] = []
    for window, want, got in zip(encoded.windows, reference, candidate, strict=True):
        tokens = context_of(window)
        for name in OUTPUTS:
            apart = np.abs(want[name] - got[name])
            parts += [apart[:1], apart[tokens]]
    return np.concatenate(parts)


def _num_nonfinite(answer: Answer) -> int:
    return sum(int((~np.isfinite(row[name])).sum()) for row in answer for name in OUTPUTS)


def _loss(encoded: Sequence[Encoded], answers: Sequence[Answer]) -> float:
    """Returns the mean over all windows of the cross entropy of start and end, in nats."""
    losses = [
        np.logaddexp.reduce(row[name].astype(np.float64)) - row[name][position]
        for one, answer in zip(encoded, answers, strict=True)
        for row, positions in zip(answer, target_positions(one), strict=True)
        for name, position in zip(OUTPUTS, positions, strict=True)
    ]
    return float(np.mean(losses))
