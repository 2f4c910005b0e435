"""Spans come out of tags and offsets as they were meant, or are refused; windows are read as one text."""

import functools
import itertools
import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.assets import minilm
from services.tasks.encoding import SPECIAL, Encoder, Tokens
from services.tasks.token_classification.spans import (
    IGNORED,
    Span,
    check_spans,
    join_tokens,
    read_once,
    spans_of_tags,
    stride_of,
    tags_of,
    token_targets,
    types_of,
)

TAGS = tags_of(["LOC", "PER"])
TEXT = "Ada Byron flew from Zürich to 北京 via St. Gallen-Süd yesterday 👩‍🚀 with Jürgen 電影."
SPANS = [
    Span("PER", 0, 9),
    Span("LOC", 20, 26),
    Span("LOC", 30, 32),
    Span("LOC", 37, 51),
    Span("PER", TEXT.index("Jürgen"), len(TEXT) - 1),
]


@functools.cache
def encoder(max_length: int) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


def of_tags(tags: str, *, tokens: str = "a b c d e f") -> list[tuple[str, int, int]]:
    found = tags.split()
    words = tokens.split()[: len(found)]
    return [tuple(span) for span in spans_of_tags(found, words, join_tokens(words)[1])]


def test_labels_of_the_model_are_o_and_two_tags_a_type_in_order() -> None:
    assert TAGS == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert types_of(TAGS) == ("LOC", "PER")


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-X I-X O B-Y", [("X", 0, 3), ("Y", 6, 7)]),
        ("B-X B-X", [("X", 0, 1), ("X", 2, 3)]),
        ("S-X B-Y E-Y O", [("X", 0, 1), ("Y", 2, 5)]),
        ("B-X I-X E-X S-X", [("X", 0, 5), ("X", 6, 7)]),
        ("B-a-b I-a-b", [("a-b", 0, 3)]),
    ],
)
def test_iob2_and_bioes_tags_become_spans(tags: str, spans: list[tuple[str, int, int]]) -> None:
    assert of_tags(tags) == spans


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ("I-X O", "I-X of token 1 'a' stands at the beginning: no X is open there"),
        ("O I-X", "I-X of token 2 'b' stands after O of token 1 'a'"),
        ("B-X I-Y", "I-Y of token 2 'b' stands after B-X of token 1 'a': no Y is open"),
        ("O E-X", "E-X of token 2 'b' stands after O"),
        ("S-X I-X", "I-X of token 2 'b' stands after S-X"),
        ("B-X E-X I-X", "I-X of token 3 'c' stands after E-X"),
        ("B-X O S-Y", "B-X of token 1 'a' is not followed by I-X or E-X"),
        ("S-X B-Y", "B-Y of token 2 'b' ends the text: E-Y is missing"),
        ("X", "token 1 'a' has the tag 'X'"),
        ("O B-", "token 2 'b' has the tag 'B-'"),
        ("U-X", "token 1 'a' has the tag 'U-X'"),
        ("o", "token 1 'a' has the tag 'o'"),
    ],
)
def test_tags_that_cannot_stand_where_they_stand_are_named_with_their_token(
    tags: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        of_tags(tags)


@pytest.mark.parametrize(
    ("spans", "complaint"),
    [
        ([Span("X", 0, 3), Span("Y", 2, 4)], "spans [0, 3) 'X' and [2, 4) 'Y' overlap"),
        ([Span("X", 2, 4), Span("Y", 2, 4)], "overlap"),
        ([Span("X", 5, 8)], "span [5, 8) 'X' lies beyond the text, which has 7 characters"),
        ([Span("X", -1, 2)], "lies beyond the text"),
        ([Span("X", 3, 3)], "is empty: its start must be below its end"),
        ([Span("X", 4, 3)], "is empty"),
        ([Span("X", 2, 3)], "is only white space"),
    ],
)
def test_spans_that_are_no_parts_of_the_text_are_refused(spans: list[Span], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        check_spans(spans, "ab cd👩e")


def test_spans_that_touch_are_kept_in_the_order_of_the_text() -> None:
    assert check_spans([Span("Y", 1, 2), Span("X", 0, 1)], "ab") == [Span("X", 0, 1), Span("Y", 1, 2)]


def test_every_token_of_a_span_is_a_target_and_special_tokens_are_none() -> None:
    [[window]] = encoder(64).windows([TEXT], stride=8)
    targets = token_targets(window, SPANS, TAGS)
    assert window.spans is not None
    for target, (start, end), sequence in zip(
        targets, window.spans.offsets, window.spans.sequence_ids, strict=True
    ):
        if sequence == SPECIAL:
            assert target == IGNORED
            continue
        span = next((s for s in SPANS if s.start < end and start < s.end), None)
        want = f"{'B' if span.start == start else 'I'}-{span.label}" if span else "O"
        assert TAGS[target] == want, TEXT[start:end]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_targets_read_back_are_the_spans(seed: int) -> None:
    """Tags that a perfect model gives lead to the spans that they were made of."""
    words = "Ada Zürich 北京 St. Gallen-Süd flew to don't 👩‍🚀 שלום unbelievably 3,000".split()
    dice = random.Random(seed)
    tokens = dice.choices(words, k=dice.randint(1, 60))
    text, offsets = join_tokens(tokens)
    spans = _random_spans(offsets, dice)
    windows = encoder(20).windows([text], stride=5)[0]
    logits = [_one_hot(token_targets(window, spans, TAGS)) for window in windows]
    assert spans_read(windows, logits, 5) == spans


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.sampled_from([8, 9, 20, 33]), st.integers(0, 19))
def test_windows_hold_every_token_of_the_text_once(num_words: int, max_length: int, asked: int) -> None:
    text = " ".join(f"Zürich{i}" for i in range(num_words)) or "x"
    stride = min(asked, (max_length - 1) // 2)
    windows = encoder(max_length).windows([text], stride=stride)[0]
    [[whole]] = encoder(100_000).windows([text], stride=0)
    reading = read_once(windows, [np.zeros((len(w), len(TAGS)), np.float32) for w in windows], TAGS, stride)
    assert whole.spans is not None
    assert reading.ids == whole.input_ids[1:-1]
    assert reading.offsets == list(whole.spans.offsets[1:-1])
    assert len(reading.logits) == len(reading.ids)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_an_entity_at_the_edge_of_a_window_is_neither_split_nor_doubled(seed: int, blind: int) -> None:
    """A model that sees nothing in the last few tokens before an edge leaves no trace of it."""
    dice = random.Random(seed)
    tokens = dice.choices("Ada Zürich 北京 flew to".split(), k=80)
    text, offsets = join_tokens(tokens)
    spans = _random_spans(offsets, dice)
    windows = encoder(32).windows([text], stride=15)[0]
    logits = [_one_hot(token_targets(window, spans, TAGS)) for window in windows]
    for left, right in itertools.pairwise(logits):
        left[-1 - blind : -1] = _one_hot(np.zeros(blind, np.int64))
        right[1 : 1 + blind] = _one_hot(np.zeros(blind, np.int64))
    assert spans_read(windows, logits, 15) == spans


def test_a_token_is_read_where_it_stands_farther_from_the_edge() -> None:
    windows = encoder(22).windows(["x " * 60], stride=8)[0]
    logits = [np.full((22, len(TAGS)), number, np.float32) for number in range(len(windows))]
    logits[-1] = logits[-1][: len(windows[-1])]
    read_in = read_once(windows, logits, TAGS, 8).logits[:, 0].astype(int).tolist()
    # Windows of 20 tokens begin every 12: each but the first and the last keeps the 12 in its middle.
    assert read_in == [0] * 16 + [1] * 12 + [2] * 12 + [3] * 12 + [4] * 8


def test_the_cut_avoids_an_entity_in_the_middle_of_what_two_windows_share() -> None:
    """The left window alone knows how an entity begins, the right one alone how it goes on."""
    windows = encoder(22).windows(["x " * 32], stride=8)[0]
    left, right = (np.zeros(len(window), np.int64) for window in windows)
    person, goes_on = TAGS.index("B-PER"), TAGS.index("I-PER")
    left[16:18] = person, goes_on  # tokens 15 and 16 of the text; the middle of tokens 12 to 19 is 16
    right[4:6] = person, goes_on
    assert spans_read(windows, [_one_hot(left), _one_hot(right)], 8) == [Span("PER", 30, 33)]
    right[4:6] = 0, person  # torn at 16: whoever is asked there must be asked about 15 as well
    found = spans_read(windows, [_one_hot(left), _one_hot(right)], 8)
    assert found in ([Span("PER", 30, 33)], [Span("PER", 32, 33)])


@pytest.mark.parametrize(("asked", "stride"), [(None, 32), (0, 0), (20, 20)])
def test_the_stride_is_a_quarter_of_the_window_unless_asked_for(asked: int | None, stride: int) -> None:
    assert stride_of(asked, 128) == stride


def spans_read(windows: Sequence[Tokens], logits: Sequence[np.ndarray], stride: int) -> list[Span]:
    reading = read_once(windows, logits, TAGS, stride)
    tags = [TAGS[i] for i in reading.logits.argmax(axis=1)]
    return spans_of_tags(tags, ["?"] * len(tags), reading.offsets)


def _random_spans(offsets: list[tuple[int, int]], dice: random.Random) -> list[Span]:
    at, spans = 0, []
    while at < len(offsets):
        length = dice.choice([0, 0, 1, 2, 3])
        last = min(at + length, len(offsets)) - 1
        if length:
            spans.append(Span(dice.choice(["LOC", "PER"]), offsets[at][0], offsets[last][1]))
        at += max(1, length)
    return spans


def _one_hot(targets: np.ndarray) -> np.ndarray:
    return np.eye(len(TAGS), dtype=np.float32)[np.maximum(targets, 0)]
