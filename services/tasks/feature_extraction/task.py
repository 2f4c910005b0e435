"""feature-extraction: one vector a text, near those of texts that belong to it.

Learns from pairs, triplets or scored pairs. Knows everything that is particular to the task; knows nothing
about how models run.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from conch.v1 import job_pb2, tasks_pb2
from services.errors import Violation
from services.tasks.base import Column, Task
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.feature_extraction import vector_parity
from services.tasks.feature_extraction.embed import Embed
from services.tasks.feature_extraction.rank import Rank
from services.tasks.feature_extraction.vector_quality import measure
from services.tasks.feature_extraction.vectors import VECTOR
from services.tasks.feature_extraction.zero_shot_similarity import ZeroShotSimilarity
from services.tasks.reading import TRAIN, VALIDATION, read_text, rows_shown
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer, Array, TensorSpec

_SPEC = "spec.task_spec.feature_extraction"
_Spec = tasks_pb2.FeatureExtractionSpec
_POOLINGS = {_Spec.POOLING_MEAN: "mean", _Spec.POOLING_CLS: "cls", _Spec.POOLING_MAX: "max"}
_TEMPERATURE = 0.05


class FeatureExtraction(Task):
    """Vectors by pooling and normalisation inside the graph; see the module's docstring."""

    id: ClassVar[str] = "feature-extraction"
    auto_model: ClassVar[str] = "Embedder"
    loss: ClassVar[str] = "contrastive"
    grouped: ClassVar[bool] = True
    outputs: ClassVar[tuple[TensorSpec, ...]] = (TensorSpec(VECTOR, "float32", ("batch", "dimension")),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", ("query", "anchor", "question", "text", "sentence1", "premise", "text_a")),
        Column(
            "text_pair",
            ("passage", "positive", "answer", "text_pair", "document", "sentence2", "hypothesis", "text_b"),
        ),
        Column("negative", ("negative", "hard_negative"), required=False),
        Column("score", ("score", "similarity", "similarity_score", "relatedness_score"), required=False),
    )
    best_metric: ClassVar[str] = "ndcg_at_10"
    rates: ClassVar[frozenset[str]] = frozenset({"rank_flip_rate"})
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any]]] = {
        "Embed": Embed(),
        "Rank": Rank(),
        "Classify": ZeroShotSimilarity(),
    }
    ask: ClassVar[str] = 'embed --model {model} "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        """Refuses poolings, temperatures and dimensions that no model can have."""
        given, problems = spec.feature_extraction, []
        if given.pooling and given.pooling not in _POOLINGS:
            problems.append(Violation(f"{_SPEC}.pooling", f"there is no pooling {given.pooling}"))
        if not 0 <= given.temperature <= 10:
            problems.append(Violation(f"{_SPEC}.temperature", "must be in (0, 10]"))
        if 0 in given.dimensions or len(set(given.dimensions)) < len(given.dimensions):
            problems.append(Violation(f"{_SPEC}.dimensions", "must differ and be 1 at least"))
        return problems

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads a pair; its target is {"negative": text}, {"score": number} or {}."""
        target: dict[str, Any] = {}
        if "negative" in values:
            target["negative"] = read_text(values, "negative")
        if "score" in values:
            target["score"] = _score(values["score"])
        if len(target) > 1:
            raise ValueError("a row has a negative or a score, not both")
        return Example(read_text(values), read_text(values, "text_pair"), target, row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Fills in the defaults; the first row says what the data teaches."""
        full = open_copy(spec)
        ours = full.feature_extraction
        ours.pooling = ours.pooling or _Spec.POOLING_MEAN
        ours.normalize = ours.normalize if ours.HasField("normalize") else True
        ours.temperature = ours.temperature or _TEMPERATURE
        ours.dimensions[:] = sorted(ours.dimensions)
        ours.objective = _objective(train[0]) if train else _Spec.OBJECTIVE_RANKING
        return Facts((), full)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        if other := [e.row for e in validation if set(e.target) != set(train[0].target)]:
            message = f"{rows_shown(other)}: negatives and scores are in both splits or in none"
            return [Violation(VALIDATION, message)]
        if is_similarity(facts):
            return _flat_scores(train)
        if len({e.text_pair.strip() for e in train}) < 2:
            return [Violation(TRAIN, "all rows have the same second text: there is nothing to tell apart")]
        return []

    def metric_of(self, facts: Facts) -> str:
        """NDCG of pairs and triplets, Spearman's correlation of scored pairs."""
        return "spearman" if is_similarity(facts) else self.best_metric

    def config(self, facts: Facts) -> dict[str, Any]:
        """What services.embedder adds to a transformers config."""
        spec = facts.spec.feature_extraction
        return {
            "pooling": _POOLINGS[spec.pooling],
            "normalize": spec.normalize,
            "dimensions": list(spec.dimensions),
        }

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Returns a window for each text of an example: text, second text and negative, with their prefixes.

        An example of one text is a request's, whose prefix its rpc has put before it.
        """
        texts = [_texts(example, facts.spec.feature_extraction) for example in examples]
        rows = iter(encoder.encode([text for own in texts for text in own]))
        return [Encoded(e, tuple(islice(rows, len(own)))) for e, own in zip(examples, texts, strict=True)]

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        """Returns the score, or a key of each text: equal texts are no negatives of each other."""
        example = encoded.example
        if is_similarity(facts):
            return [{"score": np.array(example.target["score"], dtype=np.float32)}]
        keys = [_key(text) for text in _texts(example, _Spec())]
        return [{"keys": np.array(keys, dtype=np.int64)}]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        """Measures whole vectors, and those cut to each of the spec's dimensions ("..._dim_64")."""
        examples = [one.example for one in encoded]
        metrics = measure(examples, answers)
        for size in facts.spec.feature_extraction.dimensions:
            metrics |= {f"{name}_dim_{size}": v for name, v in measure(examples, answers, size).items()}
        return job_pb2.Evaluation(num_examples=len(examples), metrics=metrics)

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        return vector_parity.compare([one.example for one in encoded], reference, candidate)

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(vector_parity.LIMITS[precision])


def is_similarity(facts: Facts) -> bool:
    """Returns whether a model was taught by scored pairs."""
    return facts.spec.feature_extraction.objective == _Spec.OBJECTIVE_SIMILARITY


def _objective(example: Example) -> tasks_pb2.FeatureExtractionSpec.Objective.ValueType:
    return _Spec.OBJECTIVE_SIMILARITY if "score" in example.target else _Spec.OBJECTIVE_RANKING


def _texts(example: Example, spec: tasks_pb2.FeatureExtractionSpec) -> list[str]:
    if not example.text_pair:
        return [example.text]
    texts = [spec.query_prefix + example.text, spec.passage_prefix + example.text_pair]
    negative = (example.target or {}).get("negative")
    return [*texts, spec.passage_prefix + negative] if negative else texts


def _key(text: str) -> int:
    digest = hashlib.blake2b(text.strip().casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _score(value: Any) -> float:
    if value is None or value == "":
        raise ValueError("score is missing")
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError("score is no finite number")
    return score


def _flat_scores(train: Sequence[Example]) -> list[Violation]:
    if len({example.target["score"] for example in train}) > 1:
        return []
    return [Violation(TRAIN, "all scores are the same: there is nothing to learn from them")]
