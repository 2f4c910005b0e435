"""Typed spans of a text: as data files write them, as tags of tokens, and across the windows of a long text.

Knows offsets, IOB2 and BIOES tags and windows; knows nothing about probabilities or requests.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.tasks.encoding import SPECIAL, Tokens
from services.tasks.tensors import IGNORED, FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
TagArray = npt.NDArray[np.intp]

OUTSIDE = "O"
"""The tag of a token that belongs to no entity."""


class Span(NamedTuple):
    """A part of a text, in code points [start, end), and what it is."""

    label: str
    start: int
    end: int


def tags_of(types: Iterable[str]) -> tuple[str, ...]:
    """Returns the model's labels for entity types: O, then B- and I- of each."""
    return (OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI"))


def types_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Returns the entity types of a model's labels, in their order."""
    return tuple(tag[2:] for tag in tags if tag.startswith("B-"))


def check_spans(spans: Sequence[Span], text: str) -> list[Span]:
    """Returns the spans in the order of the text. Raises ValueError unless each is a part of it."""
    for span in spans:
        if problem := _span_problem(span, text):
            raise ValueError(f"span [{span.start}, {span.end}) {span.label!r} {problem}")
    ordered = sorted(spans, key=lambda span: (span.start, span.end))
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise ValueError(
                f"spans [{one.start}, {one.end}) {one.label!r} and [{other.start}, {other.end}) "
                f"{other.label!r} overlap"
            )
    return ordered


def _span_problem(span: Span, text: str) -> str:
    if span.start < 0 or span.end > len(text):
        return f"lies beyond the text, which has {len(text)} characters"
    if span.start >= span.end:
        return "is empty: its start must be below its end"
    if not text[span.start : span.end].strip():
        return "is only white space"
    return ""


def join_tokens(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Returns the text of tokens with a space between them, and where each lies in it."""
    offsets, at = [], 0
    for token in tokens:
        offsets.append((at, at + len(token)))
        at += len(token) + 1
    return " ".join(tokens), offsets


def spans_of_tags(
    tags: Sequence[str], tokens: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> list[Span]:
    """Returns the spans that IOB2 or BIOES tags of tokens say.

    Raises ValueError that names the token whose tag is none of these or cannot stand where it stands.
    """
    is_bioes = any(tag[:2] in ("E-", "S-") for tag in tags)
    spans: list[Span] = []
    open_type = ""
    for i, (tag, (start, end)) in enumerate(zip(tags, offsets, strict=True)):
        prefix, name = _split_tag(tag, i, tokens)
        continues = prefix in ("I", "E")
        if continues and name != open_type:
            raise ValueError(_broken(i, tags, tokens))
        if is_bioes and open_type and not continues:
            raise ValueError(
                f"{_token(i - 1, tags, tokens)} is not followed by I-{open_type} or E-{open_type}"
            )
        if continues:
            spans[-1] = spans[-1]._replace(end=end)
        elif name:
            spans.append(Span(name, start, end))
        open_type = name if prefix in ("B", "I") else ""
    if is_bioes and open_type:
        raise ValueError(f"{_token(len(tags) - 1, tags, tokens)} ends the text: E-{open_type} is missing")
    return spans


def _split_tag(tag: str, i: int, tokens: Sequence[str]) -> tuple[str, str]:
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, name = tag.partition("-")
    if not dash or prefix not in ("B", "I", "E", "S") or not name.strip():
        raise ValueError(
            f"token {i + 1} {tokens[i]!r} has the tag {tag!r}: O, B-X and I-X (IOB2) or O, B-X, I-X, E-X and "
            "S-X (BIOES) are known"
        )
    return prefix, name


def _broken(i: int, tags: Sequence[str], tokens: Sequence[str]) -> str:
    before = f"after {_token(i - 1, tags, tokens)}" if i else "at the beginning"
    return (
        f"{_token(i, tags, tokens)} stands {before}: no {tags[i][2:]} is open there (in IOB2 and BIOES each "
        "entity begins with B- or S-; IOB1 is not read)"
    )


def _token(i: int, tags: Sequence[str], tokens: Sequence[str]) -> str:
    return f"{tags[i]} of token {i + 1} {tokens[i]!r}"


def token_targets(window: Tokens, spans: Sequence[Span], tags: Sequence[str]) -> IntArray:
    """Returns the index of each token's tag among `tags`, int64 `(sequence,)`; IGNORED for special tokens.

    Every token that shares a character with a span is of that span, a part of a word as well as a whole
    one: SIMPLE aggregation, the default of ExtractEntities, asks every token for its type.
    """
    assert window.spans is not None, "windows know their offsets"
    index = {tag: i for i, tag in enumerate(tags)}
    targets = np.full(len(window), IGNORED, dtype=np.int64)
    at, begun = 0, -1
    for i, (start, end) in enumerate(window.spans.offsets):
        if window.spans.sequence_ids[i] == SPECIAL:
            continue
        while at < len(spans) and spans[at].end <= start:
            at += 1
        if at == len(spans) or end <= spans[at].start:
            targets[i] = index[OUTSIDE]
            continue
        # Several tokens may be parts of one character, of which only the first begins the span.
        begins = start <= spans[at].start and begun != at
        targets[i] = index[f"{'B' if begins else 'I'}-{spans[at].label}"]
        begun = at
    return targets


class Reading(NamedTuple):
    """The tokens of a whole text, each once: ids, offsets, and the model's logits `(token, label)`."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    logits: FloatArray


def stride_of(asked: int | None, max_length: int) -> int:
    """Returns the tokens that windows of `max_length` share: those asked for, else a quarter of it."""
    return max_length // 4 if asked is None else asked


def read_once(
    windows: Sequence[Tokens], logits: Sequence[FloatArray], tags: Sequence[str], stride: int | None
) -> Reading:
    """Returns the tokens of a text that was read in `windows`, special tokens left out.

    What two windows share is taken from the left one up to a cut and from the right one after it: a
    token then has the window where it stands farther from the edge, and no entity is cut in two.
    """
    parts = [_content(window) for window in windows]
    if len(windows) > 1:
        # All windows but the last are full.
        parts = _cut(parts, logits, _continuing(tags), stride_of(stride, len(windows[0])))
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for window, (start, end) in zip(windows, parts, strict=True):
        assert window.spans is not None, "windows know their offsets"
        ids += window.input_ids[start:end]
        offsets += window.spans.offsets[start:end]
    kept = [rows[start:end] for rows, (start, end) in zip(logits, parts, strict=True)]
    return Reading(ids, offsets, kept[0] if len(kept) == 1 else np.concatenate(kept))


def _content(window: Tokens) -> tuple[int, int]:
    """Returns where the tokens of the text begin and end, between the special ones."""
    assert window.spans is not None, "windows know their offsets"
    start, end = 0, len(window)
    sequences = window.spans.sequence_ids
    while start < end and sequences[start] == SPECIAL:
        start += 1
    while end > start and sequences[end - 1] == SPECIAL:
        end -= 1
    return start, end


def _continuing(tags: Sequence[str]) -> BoolArray:
    return np.array([tag.startswith("I-") for tag in tags])


def _cut(
    parts: Sequence[tuple[int, int]], logits: Sequence[FloatArray], continuing: BoolArray, stride: int
) -> list[tuple[int, int]]:
    """Returns what of each window is kept, given where its text begins and ends."""
    kept = []
    start = parts[0][0]
    for i in range(len(parts) - 1):
        shared, after = parts[i][1] - stride, parts[i + 1][0]
        left = logits[i][shared : shared + stride].argmax(axis=1)
        right = logits[i + 1][after : after + stride].argmax(axis=1)
        cut = _best_cut(left, right, continuing, least=max(0, start - shared))
        kept.append((start, shared + cut))
        start = after + cut
    return [*kept, (start, parts[-1][1])]


def _best_cut(left: TagArray, right: TagArray, continuing: BoolArray, *, least: int) -> int:
    """Returns how many shared tokens the left window keeps, given the tags that both windows gave them.

    About half; where neither goes on with an entity; and, if there is such a place, where both agree on
    the tokens before and after it: at its edge a window may have missed the rest of an entity.
    """
    middle = max(least, len(left) // 2)
    outside = ~(continuing[left] | continuing[right])
    agreed = left == right
    agreed[1:] &= agreed[:-1]
    for places in (outside & agreed, outside):
        if len(found := np.flatnonzero(places[least:]) + least):
            return int(found[np.abs(found - middle).argmin()])
    return middle
