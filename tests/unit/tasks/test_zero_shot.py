"""Candidate labels are scored as transformers' zero-shot pipeline scores them."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, pipeline

from conch.v1 import inference_pb2
from examples.assets import minilm
from services.errors import InvalidRequest, NotReady
from services.tasks import TASKS, Facts
from services.tasks.encoding import Encoder, pad

TASK = TASKS["text-classification"]
RPC: Any = TASK.rpcs["Classify"]
NLI = ("contradiction", "entailment", "neutral")
TEXTS = ["The bank raised its rates by a quarter point.", "Great goal in the last minute! ⚽"]


class Served:
    def __init__(self, *labels: str) -> None:
        self.facts = Facts(labels)


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=3, id2label=dict(enumerate(NLI)), label2id={name: i for i, name in enumerate(NLI)},
    )  # fmt: skip
    made = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        made.classifier.weight.mul_(80)
    return made


def ours(model: Any, request: inference_pb2.ClassifyRequest) -> list[inference_pb2.Classification]:
    served: Any = Served(*NLI)
    encoder = Encoder.from_file(minilm() / "tokenizer.json", 64)
    encoded = TASK.encode(encoder, RPC.examples(request, served), served.facts)
    answers = []
    for one in encoded:
        inputs = {k: torch.from_numpy(v) for k, v in pad(one.windows, len(one.windows[0]), 0).items()}
        with torch.inference_mode():
            answers.append([{"logits": model(**inputs).logits[0].numpy()}])
    return list(RPC.respond(request, encoded, answers, served).classifications)


@pytest.mark.parametrize("labels", [["finance"], ["finance", "sport", "politics"]])
@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_those_of_the_transformers_pipeline(
    model: Any, labels: list[str], multi_label: bool
) -> None:
    theirs = pipeline(
        "zero-shot-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(minilm())
    )
    request = inference_pb2.ClassifyRequest(
        texts=TEXTS, candidate_labels=labels, multi_label=multi_label, hypothesis_template="It is about {}."
    )
    want = theirs(TEXTS, labels, multi_label=multi_label, hypothesis_template="It is about {}.")
    for expected, found in zip(want, ours(model, request), strict=True):
        assert [s.label for s in found.labels] == expected["labels"]
        assert [s.score for s in found.labels] == pytest.approx(expected["scores"], abs=1e-4)
        assert found.tokens.num_tokens > 0


def test_top_k_cuts_the_candidates(model: Any) -> None:
    request = inference_pb2.ClassifyRequest(texts=TEXTS, candidate_labels=["a", "b", "c"], top_k=1)
    assert [len(found.labels) for found in ours(model, request)] == [1, 1]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"candidate_labels": ["a", "a"]}, "candidate_labels"),
        ({"candidate_labels": ["a", " "]}, "candidate_labels[1]"),
        ({"candidate_labels": [str(i) for i in range(101)]}, "candidate_labels"),
        ({"candidate_labels": ["a"], "hypothesis_template": "no slot"}, "hypothesis_template"),
        ({"candidate_labels": ["a"], "text_pairs": ["x", "y"]}, "text_pairs"),
    ],
)
def test_bad_candidates_are_refused_by_their_field(fields: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        RPC.examples(inference_pb2.ClassifyRequest(texts=TEXTS, **fields), Served(*NLI))
    assert [v.field for v in caught.value.violations] == [field]


def test_a_model_that_knows_no_entailment_says_what_it_knows() -> None:
    request = inference_pb2.ClassifyRequest(texts=TEXTS, candidate_labels=["a"])
    with pytest.raises(NotReady, match="negative, positive"):
        RPC.examples(request, Served("negative", "positive"))


def test_without_contradiction_the_pipeline_s_rule_names_the_class_against() -> None:
    from services.tasks.text_classification.zero_shot import entailment

    assert entailment(Facts(("entailment", "not_entailment"))) == (0, 1)
    assert entailment(Facts(("other", "entailment"))) == (1, 0)
    assert np.array_equal(entailment(Facts(NLI)), (1, 0))
