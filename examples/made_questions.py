"""Questions made by template from sentences whose entities are known, each with its answer's place.

Knows CoNLL-2003's columns (word, part of speech, chunk, entity); knows nothing about files' whereabouts.
The sentences and the answers are real, the questions are not: they repeat words of the sentence that they
ask about, as people's questions mostly do not. Good for trying a trainer out, not for judging a model.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_ASKED = {"PER": "Who", "ORG": "Which organisation", "LOC": "Which place", "MISC": "Which name"}
_KIND = {"PER": "person", "ORG": "organisation", "LOC": "place", "MISC": "name"}
_DAYS = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
_NO_SPACE_BEFORE = {".", ",", ";", ":", "?", "!", ")", "%", "'", "'s", "'re", "'ve", "'ll", "'d", "n't"}
_NO_SPACE_AFTER = {"(", "$"}
# Sentences of a context; and words of a sentence: what is shorter is a headline or a table's row.
_CONTEXT, _SENTENCE = (2, 3), (8, 40)
_UNANSWERABLE = 1 / 6


@dataclass(frozen=True)
class Word:
    """A token of a sentence; `entity` is its IOB2 tag."""

    text: str
    pos: str
    entity: str


Sentence = list[Word]
Place = tuple[int, int]
"""Words [first, end) of a sentence."""
Made = tuple[str, Place]
"""A question, and the words that answer it."""


def made_questions(conll: str, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yields question, context and answers {text, answer_start} for the sentences of a CoNLL file.

    One in six has no answer: it was asked about another passage of the same document.
    """
    chance = random.Random(seed)
    for document in _documents(conll):
        found = [made for passage in _passages(document, chance) for made in _asked_of(passage, chance)]
        for question, context, answer, start in found:
            others = [c for _, c, _, _ in found if answer.lower() not in c.lower()]
            if others and chance.random() < _UNANSWERABLE:
                yield _row(question, chance.choice(others), [], [])
            else:
                yield _row(question, context, [answer], [start])


def _row(question: str, context: str, texts: list[str], starts: list[int]) -> dict[str, Any]:
    return {"question": question, "context": context, "answers": {"text": texts, "answer_start": starts}}


def _documents(conll: str) -> Iterator[list[Sentence]]:
    for document in conll.split("-DOCSTART-"):
        sentences = [_sentence(block) for block in document.split("\n\n")[1:]]
        yield [sentence for sentence in sentences if _is_prose(sentence)]


def _sentence(block: str) -> Sentence:
    columns = [line.split(" ") for line in block.splitlines() if line.strip()]
    return [Word(c[0], c[1], c[-1]) for c in columns]


def _is_prose(sentence: Sentence) -> bool:
    least, most = _SENTENCE
    return least <= len(sentence) <= most and sentence[-1].text == "."


def _passages(document: Sequence[Sentence], chance: random.Random) -> Iterator[Sequence[Sentence]]:
    start = 0
    while start < len(document):
        size = chance.randint(*_CONTEXT)
        yield document[start : start + size]
        start += size


def _asked_of(passage: Sequence[Sentence], chance: random.Random) -> Iterator[tuple[str, str, str, int]]:
    """Yields (question, context, answer, its start), at most two of each sentence."""
    context, places = _written(passage)
    for number, sentence in enumerate(passage):
        made = [one for make in _TEMPLATES for one in make(sentence)]
        for question, (first, end) in chance.sample(made, min(2, len(made))):
            start, stop = places[number][first][0], places[number][end - 1][1]
            yield question, context, context[start:stop], start


def _written(passage: Sequence[Sentence]) -> tuple[str, list[list[Place]]]:
    """Returns sentences as a text, and where each word of each lies in it."""
    text, places = "", []
    for sentence in passage:
        places.append([])
        before = ""
        for word in sentence:
            tight = not text or (places[-1] and word.text in _NO_SPACE_BEFORE) or before in _NO_SPACE_AFTER
            text += word.text if tight else " " + word.text
            places[-1].append((len(text) - len(word.text), len(text)))
            before = word.text
    return text, places


def _entities(sentence: Sentence) -> Iterator[tuple[str, Place]]:
    start = 0
    while start < len(sentence):
        end = start + 1
        if sentence[start].entity.startswith("B-"):
            while end < len(sentence) and sentence[end].entity.startswith("I-"):
                end += 1
            yield sentence[start].entity[2:], (start, end)
        start = end


def _text(words: Sequence[Word]) -> str:
    return _written([list(words)])[0]


def _clause(sentence: Sentence, start: int, most: int) -> Sentence:
    """Returns up to `most` words from `start` to the next mark."""
    rest = sentence[start : start + most]
    marks = [i for i, word in enumerate(rest) if not re.search(r"\w", word.text)]
    return rest[: marks[0]] if marks else rest


def _subjects(sentence: Sentence) -> Iterator[Made]:
    """Who rejected a call to boycott lamb?"""
    for kind, (start, end) in _entities(sentence):
        verb = sentence[end].pos if end < len(sentence) else ""
        clause = _clause(sentence, end, 9)
        if verb in ("VBD", "VBZ", "VBP", "MD") and len(clause) > 2:
            yield f"{_ASKED[kind]} {_text(clause)}?", (start, end)


def _gaps(sentence: Sentence) -> Iterator[Made]:
    """Which place is missing: officials from ... said on Thursday?"""
    for kind, (start, end) in _entities(sentence):
        left, right = sentence[max(0, start - 4) : start], sentence[end : end + 4]
        if len(left) + len(right) > 5:
            yield f"Which {_KIND[kind]} is missing: {_text(left)} ... {_text(right)}?", (start, end)


def _companions(sentence: Sentence) -> Iterator[Made]:
    """Which place is named with Werner Zwingmann?"""
    found = list(_entities(sentence))
    for kind, place in found:
        others = [other for name, other in found if name != kind]
        if len(others) == 1 and len(found) == 2:
            other = _text(sentence[slice(*others[0])])
            yield f"Which {_KIND[kind]} is named with {other}?", place


def _numbers(sentence: Sentence) -> Iterator[Made]:
    """How many people were killed in the attack?"""
    for i, (number, noun) in enumerate(itertools.pairwise(sentence)):
        clause = _clause(sentence, i + 1, 6)
        if number.pos == "CD" and noun.pos == "NNS" and number.entity == "O" and len(clause) > 1:
            yield f"How many {_text(clause)}?", (i, i + 1)


def _days(sentence: Sentence) -> Iterator[Made]:
    """On which day was it that the commission said?"""
    for i, word in enumerate(sentence):
        before = sentence[max(0, i - 7) : i - 1]
        if word.text in _DAYS and i > 3 and sentence[i - 1].text == "on":
            yield f"On which day was it: {_text(before)}?", (i, i + 1)


_TEMPLATES: tuple[Callable[[Sentence], Iterator[Made]], ...] = (
    _subjects,
    _gaps,
    _companions,
    _numbers,
    _days,
)
