"""Known answers: as data files state them, as spans of their context, and as tokens of a window.

Knows SQuAD's ways of writing an answer down; knows nothing about what models answer.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from services.tasks.encoding import Tokens
from services.tasks.example import Encoded
from services.tasks.question_answering.answer_spans import context_of

NO_ANSWER = (0, 0)
"""First and last token where a window holds no answer: its first one, [CLS] in BERT."""
_SHOWN_CHARACTERS = 40


def read_answers(values: Mapping[str, Any], context: str) -> list[list[int]]:
    """Returns the spans [start, end) of the answers in `context`, in code points; empty if there is none.

    Takes SQuAD's list of {text, answer_start}, its columns {text: [...], answer_start: [...]}, or a text
    beside its start. Raises ValueError for an answer that does not stand where it is said to.
    """
    spans = [_span(text, start, context) for text, start in _pairs(values)]
    return [list(span) for span in dict.fromkeys(spans)]


def right_texts(encoded: Encoded) -> list[str]:
    """Returns the texts of an example's right answers; empty if there is none, or none is known."""
    return [encoded.example.text_pair[start:end] for start, end in encoded.example.target or ()]


def target_positions(encoded: Encoded) -> list[tuple[int, int]]:
    """Returns for each window the first and last token of the first right answer.

    NO_ANSWER where there is none, or the window does not hold it whole.
    """
    if not encoded.example.target:
        return [NO_ANSWER] * len(encoded.windows)
    start, end = encoded.example.target[0]
    return [_positions(window, start, end) for window in encoded.windows]


def _pairs(values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    answers, start = values.get("answers"), values.get("answer_start")
    if isinstance(answers, Mapping):
        return _of_columns(answers)
    if isinstance(answers, Sequence) and not isinstance(answers, str):
        return [_of_object(answer) for answer in answers]
    if "answer_start" not in values:
        raise ValueError(
            "answers is missing (an empty list says that there is none)"
            if answers is None
            else "answers is a text without an answer_start"
        )
    return [] if answers in (None, "") and start in (None, "") else [(answers, start)]


def _of_columns(answers: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise ValueError("answers lacks its lists text and answer_start")
    if len(texts) != len(starts):
        raise ValueError(f"answers has {len(texts)} texts and {len(starts)} starts")
    return list(zip(texts, starts, strict=True))


def _of_object(answer: Any) -> tuple[Any, Any]:
    if not isinstance(answer, Mapping):
        raise ValueError(f"an answer is no object with text and answer_start but {type(answer).__name__}")
    return answer.get("text"), answer.get("answer_start", answer.get("start"))


def _span(text: Any, start: Any, context: str) -> tuple[int, int]:
    if not isinstance(text, str):
        raise ValueError(f"an answer's text is not a string but {type(text).__name__}")
    if not text.strip():
        raise ValueError("an answer's text is empty")
    place = _start(start)
    if place >= len(context):
        raise ValueError(f"an answer starts at {place}, but the context ends at {len(context)}")
    found = context[place : place + len(text)]
    if found != text:
        raise ValueError(
            f"the context has {_shown(found)} at {place} where the answer says {_shown(text)} (offsets count "
            "code points)"
        )
    return place + len(text) - len(text.lstrip()), place + len(text.rstrip())


def _start(start: Any) -> int:
    # CSV holds numbers as text, Parquet integers as floats once one of them is missing.
    if isinstance(start, str) and start.strip().isdecimal():
        return int(start)
    is_number = isinstance(start, int | float) and not isinstance(start, bool) and math.isfinite(start)
    if is_number and start == int(start) >= 0:
        return int(start)
    raise ValueError(f"an answer's start is no whole number from 0 but {start!r}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _positions(window: Tokens, start: int, end: int) -> tuple[int, int]:
    tokens = context_of(window)
    assert window.spans is not None, "windows have spans"
    offsets = window.spans.offsets[tokens]
    if not offsets or offsets[0][0] > start or offsets[-1][1] < end:
        return NO_ANSWER
    # The last token that begins by `start` and the first that ends from `end` on; of the several tokens
    # that one character may be (bytes of an emoji), all.
    begins = offsets[bisect_right(offsets, start, key=lambda o: o[0]) - 1][0]
    ends = offsets[bisect_left(offsets, end, key=lambda o: o[1])][1]
    first = bisect_left(offsets, begins, key=lambda o: o[0])
    last = bisect_right(offsets, ends, key=lambda o: o[1]) - 1
    while first < last and _is_empty(offsets[first]):
        first += 1
    while first < last and _is_empty(offsets[last]):
        last -= 1
    return (tokens.start + first, tokens.start + last) if first <= last else NO_ANSWER


def _is_empty(offset: tuple[int, int]) -> bool:
    # Byte-level tokenizers make tokens of spaces that they leave out of offsets.
    return offset[0] == offset[1]
