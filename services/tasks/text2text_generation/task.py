"""text2text-generation: a text is made of a text, such as a translation or a summary, token by token.

Knows pairs of texts and what a search is asked for; knows nothing about how models run or search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from conch.v1 import job_pb2, tasks_pb2
from services.errors import Violation
from services.tasks import next_tokens
from services.tasks.base import TOKENS, Architecture, Column, Task
from services.tasks.encoding import Encoder, Tokens
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.forms import ENCODER_DECODER_FORMS, Form
from services.tasks.reading import TRAIN
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer, Array, TensorSpec
from services.tasks.text2text_generation import search_options, sequences
from services.tasks.text2text_generation.language_pairs import check_pairs
from services.tasks.text2text_generation.summarize import Summarize
from services.tasks.text2text_generation.text_pairs import read_pair
from services.tasks.text2text_generation.translate import Translate

_SPEC = "spec.task_spec.text2text_generation"
_MAX_TARGET_LENGTH, _NUM_BEAMS = 128, 1


def _limits(
    *, logit: float, flips: float, perplexity: float, sequences: float, score: float
) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logit,
        "token_flip_rate": flips,
        "perplexity_increase": perplexity,
        "sequence_mismatch_rate": sequences,
        "max_abs_score_difference": score,
        "num_nonfinite": 0.0,
    }


# Measured: see docs/adr/0012-sequences-by-search-in-the-backend.md.
_LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logit=1e-3, flips=0.002, perplexity=1e-4, sequences=0.01, score=1e-3),
}


class Text2TextGeneration(Task):
    """Makes texts of texts; see the module's docstring.

    An example's `text` begins with the prefix that tells the model what is wanted; `target` is the text
    that is to be made of it.
    """

    id: ClassVar[str] = "text2text-generation"
    architecture: ClassVar[Architecture] = Architecture.ENCODER_DECODER
    auto_model: ClassVar[str] = "AutoModelForSeq2SeqLM"
    inputs: ClassVar[tuple[TensorSpec, ...]] = (*TOKENS[:2], *search_options.INPUTS)
    outputs: ClassVar[tuple[TensorSpec, ...]] = sequences.OUTPUTS
    forms: ClassVar[tuple[Form, ...]] = ENCODER_DECODER_FORMS
    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", ("text", "article", "document", "dialogue", "input", "source"), required=False),
        Column("target", ("target", "summary", "highlights", "output"), required=False),
        Column("translation", ("translation",), required=False),
        Column("source_language", ("source_language", "source_lang", "src_lang"), required=False),
        Column("target_language", ("target_language", "target_lang", "tgt_lang"), required=False),
    )
    column_sets: ClassVar[tuple[tuple[str, ...], ...]] = (("text", "target"), ("translation",))
    best_metric: ClassVar[str] = "loss"
    greater_is_better: ClassVar[bool] = False
    rates: ClassVar[frozenset[str]] = frozenset({"sequence_mismatch_rate"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {"Translate": Translate(), "Summarize": Summarize()}
    ask: ClassVar[str] = 'translate --model {model} "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        own = spec.text2text_generation
        problems = check_pairs(own)
        if own.max_target_length and not 2 <= own.max_target_length <= search_options.MAX_TOKENS:
            most = search_options.MAX_TOKENS
            problems.append(Violation(f"{_SPEC}.max_target_length", f"must be in [2, {most}]"))
        if own.num_beams > search_options.MAX_BEAMS:
            problems.append(Violation(f"{_SPEC}.num_beams", f"must be in [1, {search_options.MAX_BEAMS}]"))
        return problems

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads a text and its target, or two languages of a translation."""
        text, target = read_pair(values, spec.text2text_generation)
        return Example(text, "", target, row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        full = open_copy(spec)
        own = full.text2text_generation
        own.max_target_length = own.max_target_length or _MAX_TARGET_LENGTH
        own.num_beams = own.num_beams or _NUM_BEAMS
        return Facts((), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        if len(train) < 2:
            return [Violation(TRAIN, "two pairs are needed: one to learn, one to be held out")]
        return []

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Returns one window a text, its end cut off, with the parameters of its search; and its target."""
        rows, most = (
            super().encode(encoder, examples, facts),
            facts.spec.text2text_generation.max_target_length,
        )
        return [
            Encoded(one.example, (_with_parameters(one, facts),), _target_ids(encoder, one.example, most))
            for one in rows
        ]

    def default_parameters(self, facts: Facts) -> dict[str, float]:
        return search_options.defaults(facts)

    def warming_parameters(self, facts: Facts) -> dict[str, float]:
        return search_options.defaults(facts) | {"num_beams": 1, "max_new_tokens": 2}

    def text_scores(self, facts: Facts) -> Sequence[str]:
        return ("bleu", "chrf") if facts.spec.text2text_generation.language_pairs else ("rouge",)

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        return [{"labels": np.array(encoded.target_ids, dtype=np.int64)}]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        """Returns what the model makes of the known targets: rows are those of `next_tokens`."""
        return job_pb2.Evaluation(num_examples=len(encoded), metrics=next_tokens.metrics(answers))

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        return sequences.figures(reference, candidate)

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(_LIMITS[precision])


def _with_parameters(one: Encoded, facts: Facts) -> Tokens:
    asked = search_options.defaults(facts) | dict(one.example.parameters)
    return replace(one.windows[0], parameters=asked)


def _target_ids(encoder: Encoder, example: Example, most: int) -> list[int]:
    """Returns the target's tokens, at most `most`, the last of which ends it; none where it is unknown."""
    if example.target is None:
        return []
    ids = encoder.ids(example.target, add_special_tokens=True)
    return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
