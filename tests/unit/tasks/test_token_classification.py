"""Rows become spans or complaints, span figures are those of an oracle, and parity figures hide nothing."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.v1 import job_pb2, tasks_pb2
from examples.assets import minilm
from services.errors import InvalidRequest
from services.tasks import Encoded, Example, Facts, find_task
from services.tasks.encoding import Encoder
from services.tasks.tensors import Answer
from services.tasks.token_classification.spans import Span, join_tokens, spans_of_tags, tags_of

TASK = find_task("token-classification")
NO_SPEC = tasks_pb2.TaskSpec()
FACTS = Facts(tags_of(["LOC", "PER"]))
WORDS = "ada oslo paris flew to from the old city and alan".split()
ENCODER = Encoder.from_file(minilm() / "tokenizer.json", 24)


def example(*spans: tuple[int, int, str], text: str = "ada flew to oslo", row: int = 1) -> Example:
    return Example(text, "", [list(span) for span in spans], row)


def sentence(tags: list[str]) -> tuple[Example, Answer, list[Span]]:
    """A sentence of one-token words whose tags are true, and an answer that gives other tags."""
    dice = random.Random(str(tags))
    tokens = dice.choices(WORDS, k=len(tags))
    text, offsets = join_tokens(tokens)
    spans = spans_of_tags(tags, tokens, offsets)
    return example(*((s.start, s.end, s.label) for s in spans), text=text), [], spans


def answers(encoded: list[Encoded], tags: list[list[str]]) -> list[Answer]:
    made: list[Answer] = []
    for read, names in zip(encoded, tags, strict=True):
        assert len(read.windows) == 1
        logits = np.zeros((len(read.windows[0]), len(FACTS.labels)), np.float32)
        for i, tag in enumerate(names, start=1):
            logits[i, FACTS.labels.index(tag)] = 3.0
        made.append([{"logits": logits}])
    return made


def random_tags(dice: random.Random, *, valid: bool) -> list[str]:
    tags: list[str] = []
    for _ in range(dice.randint(1, 12)):
        known = [t for t in FACTS.labels if not valid or t[:2] != "I-" or (tags and tags[-1][2:] == t[2:])]
        tags.append(dice.choice([*known, "O"]))
    return tags


def oracle(tags: list[str]) -> set[tuple[str, int, int]]:
    """Chunks of IOB2 tags, in tokens, as conlleval counts them: an I- of another type begins one."""
    chunks: list[list[Any]] = []
    before = "O"
    for i, tag in enumerate(tags):
        if tag != "O":
            if tag[0] == "B" or before[2:] != tag[2:]:
                chunks.append([tag[2:], i, i])
            chunks[-1][2] = i
        before = tag
    return {(label, first, last) for label, first, last in chunks}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_figures_are_those_of_conlleval(seed: int, count: int) -> None:
    dice = random.Random(seed)
    true = [random_tags(dice, valid=True) for _ in range(count)]
    found = [[tag if dice.random() < 0.7 else dice.choice(FACTS.labels) for tag in tags] for tags in true]
    encoded = TASK.encode(ENCODER, [sentence(tags)[0] for tags in true], FACTS)
    evaluation = TASK.evaluate(encoded, answers(encoded, found), FACTS)
    pairs = [(oracle(want), oracle(got)) for want, got in zip(true, found, strict=True)]
    for name in ("", "LOC", "PER"):
        hits = sum(len([c for c in want & got if name in ("", c[0])]) for want, got in pairs)
        wanted = sum(len([c for c in want if name in ("", c[0])]) for want, _ in pairs)
        given_ = sum(len([c for c in got if name in ("", c[0])]) for _, got in pairs)
        precision, recall = hits / max(1, given_), hits / max(1, wanted)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        if not name:
            metrics = [evaluation.metrics[f"span_{m}"] for m in ("precision", "recall", "f1")]
            assert metrics == pytest.approx([precision, recall, f1])
            continue
        [detail] = [m for m in evaluation.spans.labels if m.label == name]
        assert [detail.precision, detail.recall, detail.f1] == pytest.approx([precision, recall, f1])
        assert detail.num_examples == wanted
    assert evaluation.num_examples == count
    assert [m.label for m in evaluation.spans.labels] == ["LOC", "PER"]


def test_the_loss_is_the_cross_entropy_that_training_sees() -> None:
    torch = pytest.importorskip("torch")
    encoded = TASK.encode(ENCODER, [example((0, 3, "PER")), example(text="the old city " * 20)], FACTS)
    assert len(encoded[1].windows) > 1
    rng = np.random.default_rng(2)
    made = [
        [{"logits": rng.normal(0, 3, (len(w), 5)).astype(np.float32)} for w in one.windows] for one in encoded
    ]
    logits = np.concatenate([row["logits"] for answer in made for row in answer])
    targets = np.concatenate([t["labels"] for one in encoded for t in TASK.targets(one, FACTS)])
    want = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets)).item()
    assert TASK.evaluate(encoded, made, FACTS).metrics["loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "text", "target"),
    [
        (
            {"text": "ab 👩c", "spans": [{"start": 3, "end": 5, "label": "X"}]},
            "ab 👩c",
            [[3, 5, "X"]],
        ),
        ({"text": "ab", "spans": []}, "ab", []),
        ({"text": "ab", "spans": '[{"start": 0, "end": 1, "label": "X"}]'}, "ab", [[0, 1, "X"]]),
        ({"tokens": ["👩", "bc"], "tags": ["O", "B-X"]}, "👩 bc", [[2, 4, "X"]]),
        ({"tokens": ["a", "b"], "tags": ["B-X", "E-X"], "text": "ignored"}, "a b", [[0, 3, "X"]]),
    ],
)
def test_rows_become_texts_with_spans_in_code_points(
    values: dict[str, Any], text: str, target: list[Any]
) -> None:
    found = TASK.read(values, 7, NO_SPEC)
    assert (found.text, found.target, found.row) == (text, target, 7)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "has 1 tokens and 2 tags"),
        ({"tokens": [], "tags": []}, "tokens is empty"),
        ({"tokens": None, "tags": []}, "tokens is missing"),
        ({"tokens": "a b", "tags": []}, "tokens is not a list but str"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "token 2 is ' ', not a string with something in it"),
        ({"tokens": ["a", 3], "tags": ["O", "O"]}, "token 2 is 3"),
        ({"tokens": ["a\ud800"], "tags": ["O"]}, "token 1 is not valid UTF-8"),
        ({"tokens": ["a"], "tags": [1]}, "token 1 'a' has the number 1 for a tag"),
        ({"tokens": ["a"], "tags": [None]}, "token 1 'a' has a tag that is no string"),
        ({"tokens": ["a"], "tags": ["I-X"]}, "I-X of token 1 'a' stands at the beginning"),
        ({"text": "ab"}, "spans is missing"),
        ({"text": " ", "spans": []}, "text is empty"),
        ({"text": "ab", "spans": "x"}, "spans is not a list but str"),
        ({"text": "ab", "spans": [[0, 1, "X"]]}, "span 1 is no object with start, end and label"),
        ({"text": "ab", "spans": [{"start": 0, "end": 1}]}, "span 1 is no object"),
        ({"text": "ab", "spans": [{"start": 0, "end": 1, "label": " "}]}, "span 1 [0, 1) has no label"),
        ({"text": "ab", "spans": [{"start": 0, "end": 1, "label": 3}]}, "span 1 [0, 1) has no label"),
        ({"text": "ab", "spans": [{"start": 0, "end": 1, "label": "O"}]}, "which stands for no entity"),
        (
            {"text": "ab", "spans": [{"start": "0", "end": 1, "label": "X"}]},
            "span 1 begins or ends at '0', which is no whole number",
        ),
        ({"text": "ab", "spans": [{"start": 0, "end": 1.5, "label": "X"}]}, "span 1 begins or ends at 1.5"),
        ({"text": "ab", "spans": [{"start": 0, "end": 9, "label": "X"}]}, "lies beyond the text"),
    ],
)
def test_rows_that_make_no_sense_say_why(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is asserted
        TASK.read(values, 1, NO_SPEC)
    assert complaint in str(caught.value)


def test_types_are_those_of_the_training_split_sorted_or_those_of_the_spec() -> None:
    train = [example((0, 3, "PER"), (12, 16, "LOC"))]
    facts = TASK.settle(train, NO_SPEC)
    assert facts.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert list(facts.spec.token_classification.labels) == ["LOC", "PER"]
    assert not facts.spec.token_classification.HasField("stride")
    asked = tasks_pb2.TaskSpec()
    asked.token_classification.labels[:] = ["PER", "LOC"]
    assert TASK.settle(train, asked).labels[1] == "B-PER"
    assert TASK.config(facts)["id2label"][3] == "B-PER"


def test_splits_that_no_model_can_learn_from_are_refused_with_rows() -> None:
    train = [example((0, 3, "PER")), example((0, 3, "ODD"), row=2)]
    asked = tasks_pb2.TaskSpec()
    asked.token_classification.labels[:] = ["PER", "LOC"]
    problems = TASK.find_problems(train, [example((0, 3, "NEW"), row=5)], TASK.settle(train, asked))
    assert [p.description for p in problems] == [
        "the training split has no example of 'LOC'",
        "label 'ODD' (row 2) is not among the spec's labels",
        "label 'NEW' (row 5) never occurs in the training split",
    ]
    [none] = TASK.find_problems([example()], [], TASK.settle([example()], NO_SPEC))
    assert none.description == "the training split has no entity at all"


@pytest.mark.parametrize("labels", [["X", "X"], ["X", " "], ["O"]])
def test_labels_that_cannot_be_types_are_refused(labels: list[str]) -> None:
    spec = tasks_pb2.TaskSpec()
    spec.token_classification.labels[:] = labels
    assert [p.field for p in TASK.check_spec(spec)] == ["spec.task_spec.token_classification.labels"]


def test_the_stratum_is_the_rarest_type_and_a_single_text_joins_the_largest() -> None:
    both = example((0, 3, "PER"), (12, 16, "LOC"), text="both")
    people = [example((0, 3, "PER"), text=f"p{i}") for i in range(4)]
    places = [example((0, 3, "LOC"), text=f"l{i}") for i in range(2)]
    odd = example((0, 3, "ODD"), text="odd")
    assert TASK.strata([both, *people, *places, odd]) == ["LOC", *["PER"] * 4, *["LOC"] * 2, "PER"]


def compared(want: np.ndarray, got: np.ndarray, *, known: bool = True) -> dict[str, float]:
    target = example((0, 3, "PER"), (12, 16, "LOC"))
    asked = [target if known else Example(target.text, "", None, 1)] * 2
    encoded = TASK.encode(ENCODER, asked, FACTS)
    right = [{"logits": want}]
    return TASK.compare(encoded, [right, right], [right, [{"logits": got}]], FACTS)


def logits() -> np.ndarray:
    """What a perfect model says of "ada flew to oslo"."""
    made = np.zeros((6, 5), np.float32)
    for i, tag in enumerate(("O", "B-PER", "O", "O", "B-LOC", "O")):
        made[i, FACTS.labels.index(tag)] = 4
    return made


@pytest.mark.parametrize("known", [True, False])
def test_an_equal_answer_has_perfect_figures_and_another_span_shows(known: bool) -> None:
    assert set(compared(logits(), logits(), known=known).values()) == {0.0}
    changed = logits()
    changed[4] = 0
    changed[4, 0] = 1
    figures = compared(logits(), changed, known=known)
    assert figures["max_abs_logit_difference"] == 4
    assert figures["span_flip_rate"] == 0.5
    assert figures["span_f1_drop"] == pytest.approx(1 - 2 * 3 / (4 + 3))
    assert figures["num_nonfinite"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_counted_and_is_never_a_right_answer(bad: float) -> None:
    changed = logits()
    changed[2, 0] = bad
    figures = compared(logits(), changed)
    assert figures["num_nonfinite"] == 1
    assert figures["span_flip_rate"] == 0.5
    assert figures["span_f1_drop"] > 0
    assert np.isfinite(figures["max_abs_logit_difference"])
    everywhere = compared(logits(), np.full((6, 5), bad, np.float32))
    assert everywhere["num_nonfinite"] == 30


def test_every_precision_has_a_limit_for_every_figure() -> None:
    for precision in (job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16, job_pb2.PRECISION_INT8):
        assert TASK.limits(precision).keys() == compared(logits(), logits()).keys()
    assert TASK.rates <= TASK.limits(job_pb2.PRECISION_FP32).keys()


@pytest.mark.parametrize(("stride", "fits"), [(0, True), (11, True), (12, False), (40, False)])
def test_a_stride_of_half_a_window_is_refused_and_one_below_reads_on(stride: int, fits: bool) -> None:
    spec = tasks_pb2.TaskSpec()
    spec.token_classification.stride = stride
    facts, long = Facts(FACTS.labels, spec), example(text="ada flew to oslo " * 30)
    if fits:
        [encoded] = TASK.encode(ENCODER, [long], facts)
        assert len(encoded.windows) > 5
        assert not any(window.truncated for window in encoded.windows)
        return
    with pytest.raises(InvalidRequest) as caught:
        TASK.encode(ENCODER, [long], facts)
    [problem] = caught.value.violations
    assert problem.field == "spec.task_spec.token_classification.stride"
