"""Known answers are read in each of SQuAD's notations, refused where they are wrong, and found in windows."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from examples.assets import minilm
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example
from services.tasks.question_answering.answer_targets import NO_ANSWER, read_answers, target_positions

CONTEXT = "🎬 Ada met Bob in Köln, then 電影 with Ada."


@cache
def encoder(max_length: int) -> Encoder:
    return Encoder.from_file(minilm() / "tokenizer.json", max_length)


@pytest.mark.parametrize(
    "values",
    [
        {"answers": [{"text": "Ada", "answer_start": 2}, {"text": "Köln", "answer_start": 17}]},
        {"answers": [{"text": "Ada", "start": 2}, {"text": "Köln", "start": 17}]},
        {"answers": {"text": ["Ada", "Köln"], "answer_start": [2, 17]}},
        {"answers": {"text": ["Ada", "Ada", "Köln"], "answer_start": [2, 2, 17]}},
    ],
)
def test_all_notations_of_answers_mean_the_same_code_points(values: dict[str, Any]) -> None:
    assert read_answers(values, CONTEXT) == [[2, 5], [17, 21]]


@pytest.mark.parametrize("start", [28, "28", 28.0])
def test_a_text_beside_its_start_is_an_answer(start: Any) -> None:
    assert read_answers({"answers": "電影", "answer_start": start}, CONTEXT) == [[28, 30]]


@pytest.mark.parametrize(
    "values",
    [
        {"answers": []},
        {"answers": {"text": [], "answer_start": []}},
        {"answers": None, "answer_start": None},
        {"answers": "", "answer_start": ""},
    ],
)
def test_a_question_may_have_no_answer(values: dict[str, Any]) -> None:
    assert read_answers(values, CONTEXT) == []


def test_space_around_an_answer_is_not_part_of_it() -> None:
    assert read_answers({"answers": " Ada ", "answer_start": 1}, CONTEXT) == [[2, 5]]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"answers": "Ada", "answer_start": 3}, "the context has 'da ' at 3 where the answer says 'Ada'"),
        ({"answers": "Ada.", "answer_start": 999}, "starts at 999, but the context ends at 40"),
        ({"answers": "Ada", "answer_start": 40}, "starts at 40, but the context ends at 40"),
        ({"answers": " ", "answer_start": 1}, "text is empty"),
        ({"answers": "", "answer_start": 1}, "text is empty"),
        ({"answers": [{"text": 7, "answer_start": 1}]}, "text is not a string but int"),
        ({"answers": [{"text": "Ada"}]}, "start is no whole number from 0 but None"),
        ({"answers": "Ada", "answer_start": -39}, "start is no whole number from 0 but -39"),
        ({"answers": "Ada", "answer_start": 2.5}, "start is no whole number from 0 but 2.5"),
        ({"answers": "Ada", "answer_start": True}, "start is no whole number from 0 but True"),
        ({"answers": "Ada", "answer_start": float("inf")}, "start is no whole number from 0 but inf"),
        ({"answers": ["Ada"]}, "no object with text and answer_start but str"),
        ({"answers": {"text": "Ada", "answer_start": 2}}, "lacks its lists text and answer_start"),
        ({"answers": {"text": ["Ada"], "answer_start": []}}, "has 1 texts and 0 starts"),
        ({"answers": "Ada"}, "a text without an answer_start"),
        ({"answers": None}, "answers is missing"),
    ],
)
def test_an_answer_that_does_not_stand_where_it_is_said_to_is_refused(
    values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_answers(values, CONTEXT)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match="where the answer says") as caught:
        read_answers({"answers": "x" * 5000, "answer_start": 0}, "y" * 9000)
    assert len(str(caught.value)) < 200


def encoded(context: str, *spans: tuple[int, int], max_length: int = 24, stride: int = 6) -> Encoded:
    [windows] = encoder(max_length).windows(["who was it?"], [context], stride=stride)
    return Encoded(Example("who was it?", context, [list(span) for span in spans], 1), windows)


def texts_at(one: Encoded) -> list[str | None]:
    """Returns the text that each window's positions stand for, None for no answer."""
    found: list[str | None] = []
    for window, (first, last) in zip(one.windows, target_positions(one), strict=True):
        assert window.spans is not None
        place = slice(window.spans.offsets[first][0], window.spans.offsets[last][1])
        found.append(None if (first, last) == NO_ANSWER else one.example.text_pair[place])
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from("film 電影 🎬 unbelievably café don't".split()), min_size=3, max_size=40),
    st.data(),
)
def test_positions_stand_for_the_answer_in_every_window_that_holds_it_whole(
    words: list[str], data: st.DataObject
) -> None:
    context = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = min(len(words) - 1, first + data.draw(st.integers(0, 1)))
    start = len(" ".join(words[:first])) + bool(first)
    end = len(" ".join(words[: last + 1]))
    one = encoded(context, (start, end))
    for window, found in zip(one.windows, texts_at(one), strict=True):
        assert window.spans is not None
        held = [o for o, s in zip(window.spans.offsets, window.spans.sequence_ids, strict=True) if s == 1]
        whole = held[0][0] <= start and end <= held[-1][1]
        assert found == (context[start:end] if whole else None)


def test_an_answer_within_a_word_is_the_tokens_that_it_touches() -> None:
    context = "unbelievably good"
    [found] = texts_at(encoded(context, (3, 6)))
    assert found is not None
    assert "eli" in found
    assert len(found) < 12


def test_of_several_answers_the_first_is_trained_on_and_none_is_no_answer() -> None:
    assert texts_at(encoded("Ada met Bob", (8, 11), (0, 3))) == ["Bob"]
    assert texts_at(encoded("Ada met Bob")) == [None]


def test_all_tokens_of_one_character_belong_to_the_answer() -> None:
    # A byte-level tokenizer makes four tokens of an emoji, all at the same code point.
    vocabulary = {
        token: i for i, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    [windows] = Encoder(tokenizer.to_str(), 64).windows(["who"], ["x 🎬 y"], stride=8)
    [(first, last)] = target_positions(Encoded(Example("who", "x 🎬 y", [[2, 3]], 1), windows))
    assert last - first == 3
    assert tokenizer.decode(windows[0].input_ids[first : last + 1]) == "🎬"
