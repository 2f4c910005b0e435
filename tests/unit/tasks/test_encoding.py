"""Our encoder gives what transformers' tokenizer gives: the model is trained and served on equal tokens."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from examples.assets import minilm
from services.tasks.encoding import Encoder, Tokens, pad

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from("the film was über-good, naïve 電影 🎬 don't\n[SEP] ##ing".split(" "))).map(
        " ".join
    ),
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return AutoTokenizer.from_pretrained(str(minilm()))


@cache
def ours(max_length: int) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from([8, 11, 40]))
def test_texts_become_the_tokens_that_transformers_makes(
    theirs: Any, batch: list[str], max_length: int
) -> None:
    want = theirs(batch, truncation=True, max_length=max_length)
    got = ours(max_length).encode(batch)
    assert [t.input_ids for t in got] == want["input_ids"]
    assert [t.token_type_ids for t in got] == want["token_type_ids"]
    whole = theirs(batch, verbose=False)["input_ids"]
    assert [t.truncated for t in got] == [len(ids) > max_length for ids in whole]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.sampled_from([8, 11, 40]))
def test_pairs_become_the_tokens_that_transformers_makes(
    theirs: Any, batch: list[tuple[str, str]], max_length: int
) -> None:
    firsts, seconds = map(list, zip(*batch, strict=True))
    want = theirs(firsts, seconds, truncation=True, max_length=max_length)
    got = ours(max_length).encode(firsts, seconds)
    assert [t.input_ids for t in got] == want["input_ids"]
    assert [t.token_type_ids for t in got] == want["token_type_ids"]
    whole = theirs(firsts, seconds, verbose=False)["input_ids"]
    assert [t.truncated for t in got] == [len(ids) > max_length for ids in whole]


def test_a_text_beyond_the_length_says_that_it_was_cut() -> None:
    [short, long] = ours(16).encode(["fine", "fine " * 100])
    assert (len(short), short.truncated) == (3, False)
    assert (len(long), long.truncated) == (16, True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["film", "unbelievably", "\u00e9t\u00e9", "\u00ad", "\x07", "\u4f60\u597d"]),
        max_size=90,
    )
)
def test_what_lies_beyond_the_words_that_matter_changes_nothing(theirs: Any, words: list[str]) -> None:
    text = " ".join(words)
    want = theirs(text, truncation=True, max_length=8)["input_ids"]
    [got] = ours(8).encode([text])
    assert got.input_ids == want
    assert got.truncated is (len(theirs(text, verbose=False)["input_ids"]) > 8)


def test_the_side_that_is_cut_is_the_tokenizers_own(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.enable_truncation(16, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    [tokens] = Encoder.from_file(tmp_path / "tokenizer.json", 4).encode(["good good film"])
    assert tokenizer.decode(tokens.input_ids) == "good film"


def test_rows_are_padded_on_the_right_and_extra_rows_hold_one_token() -> None:
    arrays = pad([Tokens([5, 6, 7], [0, 0, 1]), Tokens([8], [0])], 4, 9, batch=3)
    assert arrays["input_ids"].tolist() == [[5, 6, 7, 9], [8, 9, 9, 9], [9, 9, 9, 9]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4]
    assert all(array.dtype == np.int64 for array in arrays.values())
