"""Windows are those of transformers' tokenizer, and together they hold the whole text."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from examples.assets import minilm
from services.tasks.encoding import SPECIAL, Encoder, NoRoomError, Tokens

WORDS = (
    "the film was über-good, naïve 電影 🎬 don't\nunbelievably [SEP] \u0e44\u0e17\u0e22 e\u0301t\u00e9".split(
        " "
    )
)
contexts = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
questions = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return AutoTokenizer.from_pretrained(str(minilm()))


@cache
def ours(max_length: int) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


def written(windows: tuple[Tokens, ...]) -> list[tuple[Any, ...]]:
    """Returns all that windows say, as transformers names it."""
    found = []
    for window in windows:
        assert window.spans is not None
        sequences = [None if s == SPECIAL else s for s in window.spans.sequence_ids]
        words = [None if w == SPECIAL else w for w in window.spans.word_ids]
        offsets = list(window.spans.offsets)
        found.append((window.input_ids, window.token_type_ids, offsets, sequences, words))
    return found


def expected(encoding: Any, text: int) -> list[tuple[Any, ...]]:
    return [
        (
            encoding["input_ids"][i],
            encoding["token_type_ids"][i],
            encoding["offset_mapping"][i],
            encoding.sequence_ids(i),
            encoding.word_ids(i),
        )
        for i, of in enumerate(encoding["overflow_to_sample_mapping"])
        if of == text
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(questions, contexts), min_size=1, max_size=4), st.sampled_from([(40, 8), (48, 0)]))
def test_pairs_become_the_windows_that_transformers_makes(
    theirs: Any, batch: list[tuple[str, str]], sizes: tuple[int, int]
) -> None:
    max_length, stride = sizes
    firsts, seconds = map(list, zip(*batch, strict=True))
    want = theirs(
        firsts,
        seconds,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    got = ours(max_length).windows(firsts, seconds, stride=stride)
    assert [written(windows) for windows in got] == [expected(want, i) for i in range(len(batch))]


@settings(max_examples=60, deadline=None)
@given(st.lists(contexts, min_size=1, max_size=4))
def test_texts_become_the_windows_that_transformers_makes(theirs: Any, texts: list[str]) -> None:
    want = theirs(
        texts,
        truncation=True,
        max_length=16,
        stride=4,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    got = ours(16).windows(texts, stride=4)
    assert [written(windows) for windows in got] == [expected(want, i) for i in range(len(texts))]


def test_the_second_windows_of_a_pair_keep_the_types_of_the_tokenizers_own_template() -> None:
    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 101), ("[SEP]", 102)],
    )
    [windows] = Encoder(tokenizer.to_str(), 16).windows(["why"], ["film " * 30], stride=4)
    assert len(windows) > 2
    assert {kind for window in windows for kind in window.token_type_ids} == {0}


def test_a_first_text_that_leaves_no_room_is_named_with_its_length_and_what_would_fit() -> None:
    with pytest.raises(NoRoomError, match="1: 20 tokens, at most 8 leave room") as caught:
        ours(16).windows(["who", "who " * 20], ["film " * 50] * 2, stride=4)
    assert (caught.value.index, caught.value.num_tokens, caught.value.most) == (1, 20, 8)


def test_a_long_first_text_is_no_matter_where_both_fit_whole() -> None:
    [windows] = ours(16).windows(["who " * 11], ["film"], stride=4)
    assert [len(window) for window in windows] == [15]
