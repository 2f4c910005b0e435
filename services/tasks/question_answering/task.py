"""question-answering: the span of a context that answers a question, by logits for its start and end.

Knows everything that is particular to the task but how spans are found (answer_spans), how known answers
are read from rows and laid into windows (answer_targets), and how good answers are (answer_figures).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from conch.v1 import job_pb2, tasks_pb2
from services.errors import InvalidRequest, Violation
from services.tasks.base import Column, Task
from services.tasks.encoding import Encoder, NoRoomError
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.question_answering.answer_figures import LIMITS, OUTPUTS, evaluation_of, figures_of
from services.tasks.question_answering.answer_question import MAX_ANSWER_TOKENS, AnswerQuestion, max_tokens_of
from services.tasks.question_answering.answer_targets import read_answers, target_positions
from services.tasks.reading import TRAIN, read_text, rows_shown
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer, Array, TensorSpec

_STRIDE = "spec.task_spec.question_answering.stride"


class QuestionAnswering(Task):
    """Spans of a context, or none; see the module's docstring.

    An example is a question with its context as its pair; its target is [[start, end], ...], the spans of
    the context that are right answers, in code points; empty where there is none.
    """

    id: ClassVar[str] = "question-answering"
    auto_model: ClassVar[str] = "AutoModelForQuestionAnswering"
    outputs: ClassVar[tuple[TensorSpec, ...]] = tuple(
        TensorSpec(name, "float32", ("batch", "sequence")) for name in OUTPUTS
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column("question", ("question", "query")),
        Column("context", ("context", "passage", "paragraph", "document", "text")),
        Column("answers", ("answers", "answer")),
        Column("answer_start", ("answer_start", "start"), required=False),
    )
    best_metric: ClassVar[str] = "f1"
    rates: ClassVar[frozenset[str]] = frozenset({"answer_flip_rate", "exact_match_drop"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {"AnswerQuestion": AnswerQuestion()}
    ask: ClassVar[str] = 'answer --model {model} --context "..." "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        if (asked := spec.question_answering.max_answer_tokens) <= MAX_ANSWER_TOKENS:
            return []
        field = "spec.task_spec.question_answering.max_answer_tokens"
        return [Violation(field, f"must be in [1, {MAX_ANSWER_TOKENS}], is {asked}")]

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        question, context = read_text(values, "question"), read_text(values, "context")
        return Example(question, context, read_answers(values, context), row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Fills in the longest answer; the stride stays open, since it follows from max_length."""
        full = open_copy(spec)
        full.question_answering.max_answer_tokens = max_tokens_of(Facts(spec=spec))
        return Facts((), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        if any(example.target for example in train):
            return []
        return [Violation(TRAIN, "no question has an answer: there is nothing to learn")]

    def strata(self, examples: Sequence[Example]) -> list[str]:
        """Returns whether each question has an answer, where there are several of either kind."""
        kinds = ["answerable" if example.target else "unanswerable" for example in examples]
        counts = Counter(kinds)
        return kinds if len(counts) > 1 and min(counts.values()) > 1 else [""] * len(examples)

    def config(self, facts: Facts) -> dict[str, Any]:
        return {"num_labels": len(OUTPUTS)}

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Returns each question with its context in windows.

        Raises InvalidRequest for a question that leaves its context no room in a window, for a stride
        that is none, and for a known answer that no window holds whole.
        """
        stride = _stride(encoder, facts)
        texts, pairs = [e.text for e in examples], [e.text_pair for e in examples]
        try:
            windows = encoder.windows(texts, pairs, stride=stride)
        except NoRoomError as error:
            raise _no_room(examples[error.index], error) from error
        encoded = [Encoded(*both) for both in zip(examples, windows, strict=True)]
        _require_whole_answers(encoded)
        return encoded

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        """Returns the first and last token of the first right answer in each window that holds it whole."""
        return [
            {
                "start_positions": np.array(first, dtype=np.int64),
                "end_positions": np.array(last, dtype=np.int64),
            }
            for first, last in target_positions(encoded)
        ]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        """Returns SQuAD's scores; "no answer" is an answer where a split has unanswerable questions."""
        return evaluation_of(encoded, answers, max_tokens_of(facts))

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        return figures_of(encoded, reference, candidate, max_tokens_of(facts))

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(LIMITS[precision])


def _stride(encoder: Encoder, facts: Facts) -> int:
    spec = facts.spec.question_answering
    stride = spec.stride if spec.HasField("stride") else encoder.max_length // 4
    if 2 * stride >= encoder.max_length:
        raise InvalidRequest.field(
            _STRIDE, f"{stride} tokens; below half of max_length, {encoder.max_length}, is wanted"
        )
    return int(stride)


def _no_room(example: Example, error: NoRoomError) -> InvalidRequest:
    found = f"{error.num_tokens} tokens; at most {error.most} leave room for the context"
    if example.target is None:
        field = f"questions[{example.row - 1}]"
        return InvalidRequest.field(field, f"has {found}", reason="QUESTION_TOO_LONG")
    return InvalidRequest.field(
        "spec.hyperparameters.max_length", f"row {example.row}: the question has {found}", reason="BAD_DATA"
    )


def _require_whole_answers(encoded: Sequence[Encoded]) -> None:
    # Trained on, it would teach that there is no answer where there is one.
    cut = [
        one.example.row
        for one in encoded
        if one.example.target and not any(first for first, _ in target_positions(one))
    ]
    if cut:
        message = f"{rows_shown(cut)}: no window holds the answer whole; a greater stride or max_length may"
        raise InvalidRequest.field(_STRIDE, message, reason="BAD_DATA")
