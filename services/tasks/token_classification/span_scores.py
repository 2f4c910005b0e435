"""How well spans are found: precision, recall and F1, where label, start and end must all be right.

Knows spans; knows nothing about tokens or models.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from conch.v1 import job_pb2
from services.tasks.token_classification.spans import Span


@dataclass(frozen=True)
class Counts:
    """Spans by type: the true ones, those that were found, and those that are both."""

    true: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def add(self, true: Iterable[Span], found: Iterable[Span]) -> None:
        """Counts the spans of one text."""
        wanted, got = set(true), set(found)
        self.true.update(span.label for span in wanted)
        self.found.update(span.label for span in got)
        self.hits.update(span.label for span in wanted & got)

    @property
    def f1(self) -> float:
        """F1 over the spans of all types."""
        return _metrics("", self.hits.total(), self.found.total(), self.true.total()).f1


def count_spans(true: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> Counts:
    """Returns the counts over texts."""
    counts = Counts()
    for wanted, got in zip(true, found, strict=True):
        counts.add(wanted, got)
    return counts


def evaluation_of(counts: Counts, types: Sequence[str]) -> job_pb2.Evaluation:
    """Returns span_precision, span_recall and span_f1 over all types, and the figures of each."""
    whole = _metrics("", counts.hits.total(), counts.found.total(), counts.true.total())
    labels = [_metrics(name, counts.hits[name], counts.found[name], counts.true[name]) for name in types]
    return job_pb2.Evaluation(
        metrics={"span_precision": whole.precision, "span_recall": whole.recall, "span_f1": whole.f1},
        spans=job_pb2.SpanDetail(labels=labels),
    )


def _metrics(label: str, hits: int, found: int, true: int) -> job_pb2.LabelMetrics:
    return job_pb2.LabelMetrics(
        label=label,
        precision=hits / max(1, found),
        recall=hits / max(1, true),
        f1=2 * hits / max(1, found + true),
        num_examples=true,
    )
