"""Translate and Summarize: which pair is meant, how search options are checked, what an answer says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.v1 import inference_pb2, tasks_pb2
from services.errors import InvalidRequest, NotReady
from services.tasks import Facts, find_task
from services.tasks.encoding import Encoder
from services.tasks.tensors import Row
from services.tasks.text2text_generation.sequences import figures, generated_texts
from services.tasks.text2text_generation.summarize import Summarize
from services.tasks.text2text_generation.translate import Translate

TASK = find_task("text2text-generation")
PAIRS = [
    {"source": "en", "target": "de", "prefix": "de: "},
    {"source": "en", "target": "fr", "prefix": "fr: "},
]


@dataclass(frozen=True)
class Version:
    """As much of a served version as rpcs read."""

    facts: Facts
    encoder: Any = None


def version(*pairs: dict[str, str], prefix: str = "") -> Version:
    own = tasks_pb2.Text2TextGenerationSpec(prefix=prefix)
    own.language_pairs.extend(tasks_pb2.LanguagePair(**pair) for pair in pairs)
    return Version(TASK.settle([], tasks_pb2.TaskSpec(text2text_generation=own)))


def translate(served: Version, **request: Any) -> list[Any]:
    return Translate().examples(inference_pb2.TranslateRequest(texts=["x"], **request), served)


def test_the_prefix_is_that_of_the_pair_that_is_meant() -> None:
    assert [e.text for e in translate(version(*PAIRS), target_language="FR")] == ["fr: x"]
    assert [e.text for e in translate(version(PAIRS[0]))] == ["de: x"]


def test_an_unknown_or_ambiguous_pair_is_refused_with_those_there_are() -> None:
    for languages in ({"target_language": "it"}, {}, {"source_language": "de", "target_language": "fr"}):
        with pytest.raises(InvalidRequest, match="the model knows en to de, en to fr") as refused:
            translate(version(*PAIRS), **languages)
        assert refused.value.violations[0].field == "target_language"


def test_a_model_without_pairs_does_not_translate_and_a_translator_does_not_summarize() -> None:
    with pytest.raises(NotReady, match="names no language pairs"):
        translate(version())
    with pytest.raises(NotReady, match="does not summarize"):
        Summarize().examples(inference_pb2.SummarizeRequest(texts=["x"]), version(PAIRS[0]))


def test_a_model_with_a_prefix_of_its_own_beside_its_pairs_summarizes_too() -> None:
    request = inference_pb2.SummarizeRequest(texts=["x"])
    assert [e.text for e in Summarize().examples(request, version(*PAIRS, prefix="sum: "))] == ["sum: x"]


def test_options_become_parameters_of_their_dtypes() -> None:
    options = inference_pb2.SearchOptions(
        num_beams=4, max_new_tokens=20, min_new_tokens=3, length_penalty=0, no_repeat_ngram_size=2
    )
    [example] = translate(version(PAIRS[0]), options=options)
    assert example.parameters == {
        "num_beams": 4,
        "max_new_tokens": 20,
        "min_new_tokens": 3,
        "no_repeat_ngram_size": 2,
        "length_penalty": 0.0,
    }
    assert isinstance(example.parameters["length_penalty"], float)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"num_beams": 17}, "num_beams"),
        ({"max_new_tokens": 4097}, "max_new_tokens"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens"),
        ({"min_new_tokens": 129}, "min_new_tokens"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": -10.5}, "length_penalty"),
        ({"no_repeat_ngram_size": 33}, "no_repeat_ngram_size"),
    ],
)
def test_a_bad_option_is_refused_by_its_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translate(version(PAIRS[0]), options=inference_pb2.SearchOptions(**options))
    assert [v.field for v in refused.value.violations] == [f"options.{field}"]


def row(ids: list[int], *, score: float = -1.0, ended: int = 1, padding: int = 0) -> Row:
    return {
        "sequences": np.array([*ids, *[0] * padding], np.int64),
        "sequence_scores": np.array([score], np.float32),
        "sequence_lengths": np.array([len(ids)], np.int64),
        "sequence_ended": np.array([ended], np.int64),
    }


def test_an_answer_is_the_text_without_padding_and_says_why_it_ended(tiny_t5: Path) -> None:
    encoder = Encoder.from_file(tiny_t5 / "tokenizer.json", 16)
    served = Version(version().facts, encoder)
    request = inference_pb2.SummarizeRequest(texts=["fine trip", "dull " * 30])
    encoded = TASK.encode(encoder, Summarize().examples(request, served), served.facts)
    ids = encoder.ids("a trip to the city", add_special_tokens=True)
    answers = [[row(ids, padding=3)], [row(ids[:2], ended=0)]]
    whole, cut = generated_texts(encoded, answers, served)
    assert (whole.text, whole.num_generated_tokens) == ("a trip to the city", len(ids))
    assert whole.finish_reason == inference_pb2.FINISH_REASON_STOP
    assert cut.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    assert (whole.tokens.truncated, cut.tokens.truncated) == (False, True)


def test_figures_see_other_tokens_other_scores_and_scores_that_are_none() -> None:
    want = [[row([3, 4, 1])], [row([3, 1])], [row([5, 1])], [row([6, 1])]]
    got = [
        [row([3, 4, 1], score=-1.5, padding=2)],
        [row([4, 1], score=-9)],
        [row([5, 1], score=float("nan"))],
        [row([6, 1])],
    ]
    assert figures(want, got) == {
        "sequence_mismatch_rate": 0.25,
        "max_abs_score_difference": 0.5,
        "num_nonfinite": 1.0,
    }
    assert set(figures(want, want).values()) == {0.0}
