"""Rows to pairs of texts, directions of translation, targets and parameters of text2text-generation."""

from pathlib import Path
from typing import Any

import pytest

from conch.v1 import tasks_pb2
from services.tasks import Example, find_task
from services.tasks.encoding import Encoder

TASK = find_task("text2text-generation")
EN_DE = {"source": "en", "target": "de"}
DE_EN = {"source": "de", "target": "en"}


def spec(*pairs: dict[str, str], **own: Any) -> tasks_pb2.TaskSpec:
    """Returns a spec with these language pairs."""
    made = tasks_pb2.Text2TextGenerationSpec(**own)
    made.language_pairs.extend(tasks_pb2.LanguagePair(**pair) for pair in pairs)
    return tasks_pb2.TaskSpec(text2text_generation=made)


def read(asked: tasks_pb2.TaskSpec, **values: Any) -> tuple[str, str]:
    example = TASK.read(values, 1, asked)
    return example.text, example.target


def test_a_plain_row_is_its_text_behind_the_prefix_and_its_target() -> None:
    assert read(spec(prefix="summarize: "), text="long", target="short") == ("summarize: long", "short")
    assert read(spec(EN_DE), text="house", translation="Haus") == ("house", "Haus")


def test_a_translation_by_language_goes_in_the_direction_of_the_pair() -> None:
    translation = {"en": "house", "de": "Haus", "fr": "maison"}
    assert read(spec(EN_DE), translation=translation) == ("house", "Haus")
    assert read(spec({**DE_EN, "prefix": "to en: "}), translation=translation) == ("to en: Haus", "house")


def test_a_row_s_tags_choose_among_pairs() -> None:
    both = spec({**EN_DE, "prefix": "> "}, {**DE_EN, "prefix": "< "})
    found = read(both, text="Haus", target="house", source_language="DE", target_language="en")
    assert found == ("< Haus", "house")


@pytest.mark.parametrize(
    ("asked", "values", "complaint"),
    [
        (spec(EN_DE), {"text": "a", "target": " "}, "target is empty"),
        (spec(), {"text": "", "target": "b"}, "text is empty"),
        (spec(EN_DE), {"translation": {"en": "a", "de": None}}, "de is missing"),
        (spec(EN_DE), {"translation": {"en": "a", "fr": "b"}}, "de is missing"),
        (spec(), {"translation": {"en": "a", "de": "b"}}, "names no language_pairs"),
        (spec(EN_DE, DE_EN), {"text": "a", "target": "b"}, "several pairs fit any to any"),
        (
            spec(EN_DE),
            {"text": "a", "target": "b", "target_language": "fr"},
            "no pair fits any to fr; the model knows en to de",
        ),
    ],
)
def test_a_row_that_cannot_be_read_says_why(
    asked: tasks_pb2.TaskSpec, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        TASK.read(values, 7, asked)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (spec({"source": "english", "target": "de_DE"}), "language_pairs[0].target"),
        (spec(EN_DE, {"source": "EN", "target": "de"}), "language_pairs"),
        (spec(EN_DE, {"source": "en", "target": "fr"}), "language_pairs"),
        (spec(max_target_length=1), "max_target_length"),
        (spec(num_beams=17), "num_beams"),
    ],
)
def test_a_spec_that_can_never_work_is_refused_by_field(asked: tasks_pb2.TaskSpec, field: str) -> None:
    problems = TASK.check_spec(asked)
    assert [p.field for p in problems] == [f"spec.task_spec.text2text_generation.{field}"]


def test_pairs_of_different_targets_are_told_apart_by_their_prefixes() -> None:
    french = {"source": "en", "target": "fr", "prefix": "to French: "}
    assert TASK.check_spec(spec(EN_DE, french)) == []


def test_defaults_are_settled_and_parameters_follow_them() -> None:
    facts = TASK.settle([], spec(EN_DE))
    assert facts.spec.text2text_generation.max_target_length == 128
    assert TASK.default_parameters(facts) == {
        "num_beams": 1,
        "max_new_tokens": 128,
        "min_new_tokens": 0,
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
    }
    assert TASK.warming_parameters(facts)["max_new_tokens"] == 2


def test_targets_are_cut_and_still_end(tiny_t5: Path) -> None:
    encoder = Encoder.from_file(tiny_t5 / "tokenizer.json", 16)
    facts = TASK.settle([], spec(max_target_length=4))
    long, short = (Example("fine", "", target, 1) for target in ("a trip to the city of", "a"))
    cut, whole = (
        TASK.targets(one, facts)[0]["labels"].tolist() for one in TASK.encode(encoder, [long, short], facts)
    )
    full = encoder.ids("a trip to the city of", add_special_tokens=True)
    assert len(full) > 4
    assert cut == [*full[:3], 1]
    assert whole == encoder.ids("a", add_special_tokens=True)


def test_what_an_example_asks_for_stands_above_the_defaults(tiny_t5: Path) -> None:
    encoder = Encoder.from_file(tiny_t5 / "tokenizer.json", 16)
    facts = TASK.settle([], spec(num_beams=3))
    [one] = TASK.encode(encoder, [Example("fine", "", None, 1, {"max_new_tokens": 5})], facts)
    assert one.windows[0].parameters == TASK.default_parameters(facts) | {"max_new_tokens": 5}
    assert one.target_ids == []


def test_translations_are_scored_by_bleu_and_chrf_and_other_texts_by_rouge() -> None:
    assert TASK.text_scores(TASK.settle([], spec(EN_DE))) == ("bleu", "chrf")
    assert TASK.text_scores(TASK.settle([], spec())) == ("rouge",)
