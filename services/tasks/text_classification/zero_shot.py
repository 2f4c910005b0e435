"""Zero-shot classification: how well a text entails "This example is <label>.", asked of an NLI model.

Method and choice of softmax as in transformers' ZeroShotClassificationPipeline (Yin et al. 2019,
https://arxiv.org/abs/1909.00161). Knows requests, labels and logits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, NotReady
from services.tasks.example import Encoded, Example, Facts
from services.tasks.rpcs import input_tokens
from services.tasks.scores import ranked, softmax
from services.tasks.tensors import Answer, FloatArray
from services.tasks.text_classification.label_problem import SINGLE_LABEL

_TEMPLATE, _SLOT = "This example is {}.", "{}"
_MOST_LABELS, _MOST_CHARACTERS = 100, 1000
_LABELS = "candidate_labels"


class Entailment(NamedTuple):
    """Where an NLI model's logits say that the text entails the hypothesis, and that it contradicts it."""

    entailment: int
    contradiction: int


def entailment(facts: Facts) -> Entailment:
    """Returns where a model's labels say so. Raises NotReady if it does not know entailment."""
    names = [label.lower() for label in facts.labels]
    spec = facts.spec.text_classification
    found = next((i for i, name in enumerate(names) if name.startswith("entail")), -1)
    if found < 0 or spec.problem_type not in (0, SINGLE_LABEL):
        known = ", ".join(facts.labels) or "none"
        raise NotReady(
            f"candidate_labels need a model with a label entailment; its labels are {known}",
            reason="NO_ENTAILMENT",
        )
    against = next((i for i, name in enumerate(names) if name.startswith("contra")), -1)
    fallback = len(names) - 1 if found == 0 else 0
    return Entailment(found, against if against >= 0 else fallback)


def hypotheses(request: inference_pb2.ClassifyRequest) -> list[str]:
    """Returns the hypothesis of each candidate label. Raises InvalidRequest."""
    labels, template = list(request.candidate_labels), request.hypothesis_template or _TEMPLATE
    if len(labels) > _MOST_LABELS:
        raise _invalid(_LABELS, f"{len(labels)} labels, at most {_MOST_LABELS} may be sent")
    if len(set(labels)) < len(labels):
        raise _invalid(_LABELS, "labels must differ")
    for i, label in enumerate(labels):
        if not label.strip() or len(label) > _MOST_CHARACTERS:
            raise _invalid(f"{_LABELS}[{i}]", f"must have 1 to {_MOST_CHARACTERS} characters")
    if template.count(_SLOT) != 1 or len(template) > _MOST_CHARACTERS:
        raise _invalid(
            "hypothesis_template", f"must hold {_SLOT} once, in at most {_MOST_CHARACTERS} characters"
        )
    if request.text_pairs:
        raise _invalid("text_pairs", "cannot be combined with candidate_labels")
    return [template.replace(_SLOT, label) for label in labels]


def pairs(request: inference_pb2.ClassifyRequest) -> list[Example]:
    """Returns each text with each hypothesis, all of a text side by side. Raises InvalidRequest."""
    wanted = hypotheses(request)
    both = ((text, hypothesis) for text in request.texts for hypothesis in wanted)
    return [Example(text, hypothesis, None, row) for row, (text, hypothesis) in enumerate(both, start=1)]


def classifications(
    request: inference_pb2.ClassifyRequest,
    encoded: Sequence[Encoded],
    answers: Sequence[Answer],
    facts: Facts,
) -> list[inference_pb2.Classification]:
    """Returns the candidate labels of each text, best first."""
    size, places = len(request.candidate_labels), entailment(facts)
    logits = np.stack([answer[0]["logits"] for answer in answers]).reshape(len(request.texts), size, -1)
    return [
        inference_pb2.Classification(
            labels=ranked(
                _scores(rows, places, multi_label=request.multi_label).tolist(),
                request.candidate_labels,
                request.top_k,
            ),
            tokens=input_tokens([w for one in encoded[i * size : (i + 1) * size] for w in one.windows]),
        )
        for i, rows in enumerate(logits)
    ]


def _scores(logits: FloatArray, places: Entailment, *, multi_label: bool) -> FloatArray:
    """Returns the score of each label from its logits `(label, class)`."""
    if multi_label or len(logits) == 1:
        # Each label by itself: does the text rather entail it or contradict it?
        return softmax(logits[:, [places.contradiction, places.entailment]])[:, 1]
    return softmax(logits[:, places.entailment])


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest.field(field, description, reason="BAD_CANDIDATE_LABELS")
