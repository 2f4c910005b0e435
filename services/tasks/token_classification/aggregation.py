"""Tokens' probabilities to entities, as transformers' TokenClassificationPipeline aggregates them.

Knows logits, tags and offsets; knows nothing about windows, requests or training. Followed:
transformers 5.23.0, src/transformers/pipelines/token_classification.py.
"""

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from services.tasks.scores import softmax
from services.tasks.tensors import FloatArray
from services.tasks.token_classification.spans import Reading


class Aggregation(Enum):
    """How the tokens of a word that disagree are settled."""

    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


class Found(NamedTuple):
    """An entity of a text, in code points [start, end); `score` in [0, 1]."""

    label: str
    start: int
    end: int
    score: float


class _Tag(NamedTuple):
    type: str
    begins: bool


class _Unit(NamedTuple):
    """A token, or a word of several, with its tag."""

    tag: int
    score: float
    start: int
    end: int


def find_entities(
    reading: Reading,
    text: str,
    tags: Sequence[str],
    *,
    how: Aggregation = Aggregation.SIMPLE,
    continues: Sequence[bool] = (),
) -> list[Found]:
    """Returns the entities of a text in its order; they do not overlap.

    `continues` says of each token whether it goes on with the word before it; SIMPLE does without.
    """
    if not reading.ids:
        return []
    scores = softmax(reading.logits)
    units = _tokens(scores, reading) if how is Aggregation.SIMPLE else _words(scores, reading, how, continues)
    known = _parsed(tuple(tags))
    found: list[Found] = []
    for group in _groups(units, known):
        # Tokens that are parts of one character share its offsets, and may belong to two entities.
        least = found[-1].end if found else 0
        entity = _entity(group, text, known, least)
        if entity.start < entity.end:
            found.append(entity)
    return found


def _groups(units: Sequence[_Unit], known: Sequence[_Tag]) -> list[list[_Unit]]:
    """Returns neighbours of one type together, parted where one begins anew."""
    groups: list[list[_Unit]] = []
    open_type = ""
    for unit in units:
        tag = known[unit.tag]
        if tag.type and (tag.begins or tag.type != open_type):
            groups.append([unit])
        elif tag.type:
            groups[-1].append(unit)
        open_type = tag.type
    return groups


@lru_cache(maxsize=64)
def _parsed(tags: tuple[str, ...]) -> tuple[_Tag, ...]:
    return tuple(_Tag(tag[2:] if tag[1:2] == "-" else "", tag.startswith("B-")) for tag in tags)


def _entity(group: Sequence[_Unit], text: str, known: Sequence[_Tag], least: int) -> Found:
    start, end = max(group[0].start, least), group[-1].end
    # Tokens of some tokenizers begin with the space before their word.
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    score = sum(unit.score for unit in group) / len(group)
    return Found(known[group[0].tag].type, start, end, score)


def _tokens(scores: FloatArray, reading: Reading) -> list[_Unit]:
    best, top = scores.argmax(axis=1).tolist(), scores.max(axis=1).tolist()
    return [
        _Unit(tag, score, start, end)
        for tag, score, (start, end) in zip(best, top, reading.offsets, strict=True)
    ]


def _words(scores: FloatArray, reading: Reading, how: Aggregation, continues: Sequence[bool]) -> list[_Unit]:
    starts = [i for i, goes_on in enumerate(continues) if i == 0 or not goes_on]
    ends = [*starts[1:], len(reading.ids)]
    top = scores.max(axis=1)
    units = []
    for start, end in zip(starts, ends, strict=True):
        word = _word_scores(scores[start:end], top[start:end], how)
        tag = int(word.argmax())
        units.append(_Unit(tag, float(word[tag]), reading.offsets[start][0], reading.offsets[end - 1][1]))
    return units


def _word_scores(tokens: FloatArray, top: FloatArray, how: Aggregation) -> FloatArray:
    if how is Aggregation.AVERAGE:
        return np.asarray(tokens.mean(axis=0))
    return np.asarray(tokens[int(top.argmax())] if how is Aggregation.MAX else tokens[0])
