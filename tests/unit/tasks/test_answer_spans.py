"""Answers are those of transformers' pipeline, whole words of their context, and scored as SQuAD does."""

import random
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from examples.assets import minilm
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example
from services.tasks.question_answering.answer_spans import Found, exact_match, f1, find_answers, normalized
from tests import answer_oracle

WORDS = (
    "Amsterdam visited unbelievably 電影 🎬 don't café, 1996 (the) Grösse U.S. €5 $7 "
    "\U0001f9d1\u200d\U0001f692 e\u0301t\u00e9"
).split()


@cache
def encoder(max_length: int) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


def answered(question: str, context: str, *, seed: int, max_length: int = 32, sharp: float = 3.0) -> Any:
    """Returns an example in windows, and logits for it out of the air."""
    [windows] = encoder(max_length).windows([question], [context], stride=8)
    rng = np.random.default_rng(seed)
    rows = [
        {
            name: rng.normal(0, sharp, len(window)).astype(np.float32)
            for name in ("start_logits", "end_logits")
        }
        for window in windows
    ]
    return Encoded(Example(question, context, None, 1), windows), rows


def windows_of(encoded: Encoded, answer: Any) -> list[answer_oracle.Window]:
    """Returns an example's windows as the oracle knows them."""
    found = []
    for window, row in zip(encoded.windows, answer, strict=True):
        assert window.spans is not None
        logits = (row["start_logits"].tolist(), row["end_logits"].tolist())
        places = (window.spans.offsets, window.spans.word_ids, window.spans.sequence_ids)
        found.append(answer_oracle.Window(*logits, *places))
    return found


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=50).map(" ".join),
    st.sampled_from([(1, 5), (3, 2), (20, 30)]),
    st.sampled_from([0.5, 3.0, 8.0]),
)
def test_answers_are_those_of_the_pipeline(
    seed: int, context: str, asked: tuple[int, int], sharp: float
) -> None:
    top_k, max_tokens = asked
    encoded, answer = answered("who was it?", context, seed=seed, sharp=sharp)
    got = find_answers(encoded, answer, top_k=top_k, max_tokens=max_tokens)
    windows = windows_of(encoded, answer)
    want, null = answer_oracle.best_spans(windows, context, top_k=top_k, max_tokens=max_tokens)
    assert [(span.start, span.end) for span in got.spans] == [place for place, _ in want]
    assert [span.score for span in got.spans] == pytest.approx([score for _, score in want], abs=1e-6)
    assert got.no_answer_score == pytest.approx(null, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.text(max_size=120), st.integers(1, 30))
def test_answers_are_distinct_trimmed_pieces_of_any_context_best_first(
    seed: int, context: str, top_k: int
) -> None:
    encoded, answer = answered("who?", context, seed=seed)
    found = find_answers(encoded, answer, top_k=top_k, max_tokens=10)
    texts = [context[span.start : span.end] for span in found.spans]
    assert all(text and text == text.strip() for text in texts)
    assert len({text.casefold() for text in texts}) == len(texts) <= top_k
    scores = [span.score for span in found.spans]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in [*scores, found.no_answer_score])


def told(context: str, start: int, end: int, tokenizer: Tokenizer | None = None, **asked: int) -> list[str]:
    """Returns the answers to logits that point at the tokens of two code points of the context."""
    made = Encoder(tokenizer.to_str(), 64) if tokenizer else encoder(64)
    [[window]] = made.windows(["who"], [context], stride=8)
    assert window.spans is not None
    rows = {}
    for name, place in (("start_logits", start), ("end_logits", end)):
        logits = np.zeros(len(window), dtype=np.float32)
        for i, ((s, e), sequence) in enumerate(
            zip(window.spans.offsets, window.spans.sequence_ids, strict=True)
        ):
            if sequence == 1 and s <= place < e:
                logits[i] = 20.0
        rows[name] = logits
    encoded = Encoded(Example("who", context, None, 1), [window])
    found = find_answers(encoded, [rows], top_k=asked.get("top_k", 1), max_tokens=30)
    return [context[span.start : span.end] for span in found.spans]


def test_a_part_of_a_word_becomes_the_word() -> None:
    context = "It was unbelievably good"
    assert told(context, context.index("bel"), context.index("bly")) == ["unbelievably"]


def test_scripts_without_spaces_keep_the_models_own_borders() -> None:
    # BERT's tokenizer takes a run of kana for one word.
    context = "それは東京タワーです"
    start = context.index("タ")
    assert told(context, start, start + 1) == ["タワ"]


def test_a_tokenizer_that_glues_punctuation_to_words_does_not_glue_it_to_answers() -> None:
    pieces = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "who": 3, "in": 4, "Par": 5, "##is": 6, "##,": 7, "yes": 8}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    assert told("in Paris, yes", 3, 3, tokenizer) == ["Paris"]


def test_a_text_that_stands_twice_is_one_answer() -> None:
    context = "Rome and rome and ROME"
    texts = told(context, 0, 3, top_k=50)
    assert texts[0] == "Rome"
    assert [text.casefold() for text in texts].count("rome") == 1


def test_a_context_of_no_token_has_no_answer() -> None:
    encoded, answer = answered("who?", "\x07\u200b", seed=1)
    assert find_answers(encoded, answer, top_k=3, max_tokens=10) == Found([], 1.0)


def test_the_window_that_is_surest_of_an_answer_decides() -> None:
    encoded, answer = answered("who?", "film " * 60, seed=1)
    assert len(encoded.windows) > 2
    for row in answer:
        row["start_logits"][0] = row["end_logits"][0] = 30.0
    assert find_answers(encoded, answer, top_k=1, max_tokens=5).no_answer_score > 0.99
    answer[1]["start_logits"][0] = -30.0
    assert find_answers(encoded, answer, top_k=1, max_tokens=5).no_answer_score < 0.01


def test_a_long_context_is_searched_in_a_fraction_of_a_millisecond_a_window() -> None:
    context = " ".join(random.Random(1).choices(WORDS, k=6000))
    [windows] = encoder(384).windows(["who"], [context], stride=96)
    rng = np.random.default_rng(1)
    rows = [
        {name: rng.normal(size=len(w)).astype(np.float32) for name in ("start_logits", "end_logits")}
        for w in windows
    ]
    started = time.process_time()
    find_answers(Encoded(Example("who", context, None, 1), windows), rows, top_k=5, max_tokens=30)
    # Ten times what it took; a double loop in Python takes a hundred times as long.
    assert (time.process_time() - started) / len(windows) < 5e-3


# SQuAD's scores, by hand from the definitions of its official script (version 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("The  Eiffel Tower!", "eiffel tower"), ("a man, an ant", "man ant"), ("U.S.", "us"), ("The", "")],
)
def test_texts_are_normalized_as_the_official_script_does(text: str, wanted: str) -> None:
    assert normalized(text) == wanted


@pytest.mark.parametrize(
    ("text", "right", "exact", "overlap"),
    [
        ("the Eiffel Tower", ["Eiffel Tower"], 1.0, 1.0),
        ("Eiffel Tower in Paris", ["Eiffel Tower"], 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("tower tower", ["tower"], 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("in Paris", ["Rome", "Paris"], 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("Rome", ["Paris"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("Rome", [], 0.0, 0.0),
        ("", ["Rome"], 0.0, 0.0),
        # An answer of which nothing is left counts as none, as in the official script.
        ("", ["the"], 1.0, 1.0),
    ],
)
def test_answers_are_scored_over_all_right_ones(
    text: str, right: list[str], exact: float, overlap: float
) -> None:
    assert exact_match(text, right) == exact
    assert f1(text, right) == pytest.approx(overlap)
