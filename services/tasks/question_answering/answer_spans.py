"""Spans of a context that answer: the search over start and end logits, and SQuAD's scores of answers.

Knows logits and where tokens lie; knows nothing about requests, training or labels.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.tasks.encoding import SPECIAL, Spans, Tokens
from services.tasks.example import Encoded
from services.tasks.tensors import Answer, FloatArray, Row

_Probabilities = npt.NDArray[np.float64]

# Token spans looked at beyond twice the answers wanted, before more are: many spans are one text once
# they are whole words.
_SPARE_SPANS = 10
# Scripts that put no space between words, where a tokenizer's "word" may be a whole sentence: Thai, Lao,
# Myanmar, Khmer, kana, ideographs.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Span:
    """An answer: `context[start:end]`, with the product of its first and last token's probabilities."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Found:
    """The answers to a question, best first, and the probability that there is none."""

    spans: Sequence[Span]
    no_answer_score: float


def find_answers(encoded: Encoded, answer: Answer, *, top_k: int, max_tokens: int) -> Found:
    """Returns up to `top_k` answers of at most `max_tokens` tokens, over all windows of a context.

    As transformers' QuestionAnsweringPipeline (version 4) does: in each window a softmax over the
    context's tokens and the first token, which stands for "no answer"; spans widened to whole words; one
    span a text, case ignored; "no answer" as probable as in the window where it is least so. Other than
    there, a text found twice has the better score, not the sum, which could pass 1.
    """
    context, best, no_answer = encoded.example.text_pair, dict[str, Span](), 1.0
    for window, row in zip(encoded.windows, answer, strict=True):
        null, spans = _in_window(window, row, context, top_k=top_k, max_tokens=max_tokens)
        no_answer = min(no_answer, null)
        for span in spans:
            text = context[span.start : span.end].casefold()
            if text not in best or best[text].score < span.score:
                best[text] = span
    ranked = sorted(best.values(), key=lambda span: (-span.score, span.start, span.end))
    return Found(ranked[:top_k], no_answer)


def context_of(window: Tokens) -> slice:
    """Returns which tokens of a window are the context's: they stand together."""
    assert window.spans is not None, "windows have spans"
    sequences = window.spans.sequence_ids
    count = sequences.count(1)
    first = sequences.index(1) if count else 0
    return slice(first, first + count)


def normalized(text: str) -> str:
    """Returns a text as SQuAD's official script compares it: no case, punctuation, articles, extra space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(text: str, right: Sequence[str]) -> float:
    """Returns 1.0 if an answer is one of the `right` ones once normalized, else 0.0; "" is no answer."""
    return float(normalized(text) in {normalized(one) for one in _right(right)})


def f1(text: str, right: Sequence[str]) -> float:
    """Returns the best harmonic mean of precision and recall of an answer's words, in [0, 1]."""
    words = normalized(text).split()
    return max(_overlap(words, normalized(one).split()) for one in _right(right))


def _in_window(
    window: Tokens, row: Row, context: str, *, top_k: int, max_tokens: int
) -> tuple[float, list[Span]]:
    """Returns the probability of no answer in a window, and its `top_k` best spans, one a text."""
    tokens, places = context_of(window), window.spans
    assert places is not None, "windows have spans"
    no_start, starts = _probabilities(row["start_logits"], tokens)
    no_end, ends = _probabilities(row["end_logits"], tokens)
    found: dict[str, Span] = {}
    for first, last, score in _best_first(starts, ends, max_tokens, 2 * top_k + _SPARE_SPANS):
        start, end = _placed(places, tokens, tokens.start + first, tokens.start + last, context)
        if start < end:
            found.setdefault(context[start:end].casefold(), Span(start, end, score))
        if len(found) == top_k:
            break
    return no_start * no_end, list(found.values())


def _probabilities(logits: FloatArray, tokens: slice) -> tuple[float, _Probabilities]:
    """Returns the softmax over the first token and the context's: (first token's, `(token,)`)."""
    kept = np.concatenate((logits[:1], logits[tokens])).astype(np.float64)
    weights = np.exp(kept - kept.max())
    weights /= weights.sum()
    return float(weights[0]), weights[1:]


def _best_first(
    starts: _Probabilities, ends: _Probabilities, max_tokens: int, wanted: int
) -> Iterator[tuple[int, int, float]]:
    """Yields (first token, last token, score) of every span of up to `max_tokens`, best first."""
    width = min(max_tokens, len(ends))
    if not width:
        return
    # (token, width): row i holds the spans that begin at token i. Spans past the end score below 0.
    padded = np.concatenate((ends, np.full(width - 1, -1.0)))
    scores = (starts[:, None] * np.lib.stride_tricks.sliding_window_view(padded, width)).ravel()
    seen = 0
    while seen < len(scores):
        wanted = min(wanted, len(scores))
        # Sorting the few that are looked at costs a fraction of sorting all.
        order = np.sort(np.argpartition(-scores, wanted - 1)[:wanted])
        order = order[np.argsort(-scores[order], kind="stable")]
        for index in order[seen:].tolist():
            first, more = divmod(index, width)
            if first + more < len(ends):
                yield first, first + more, float(scores[index])
        seen, wanted = wanted, wanted * 4


def _placed(places: Spans, tokens: slice, first: int, last: int, context: str) -> tuple[int, int]:
    """Returns where the tokens `first` to `last` lie in the context, as whole words without outer space."""

    def joined(token: int, neighbour: int) -> bool:
        # A token that ends a window has no neighbour. Some tokenizers call "Paris," one word.
        return (
            tokens.start <= neighbour < tokens.stop
            and places.word_ids[token] == places.word_ids[neighbour] != SPECIAL
            and all(_is_inside_word(context[slice(*places.offsets[i])]) for i in (token, neighbour))
        )

    while joined(first, first - 1):
        first -= 1
    while joined(last, last + 1):
        last += 1
    start, end = places.offsets[first][0], places.offsets[last][1]
    text = context[start:end]
    return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())


def _is_inside_word(token: str) -> bool:
    return not _SPACELESS.search(token) and not any(unicodedata.category(c)[0] == "P" for c in token)


def _right(texts: Sequence[str]) -> Sequence[str]:
    return [text for text in texts if normalized(text)] or [""]


def _overlap(words: Sequence[str], right: Sequence[str]) -> float:
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))
