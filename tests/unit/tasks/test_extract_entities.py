"""ExtractEntities answers as transformers' pipeline does; long texts as if they were read at once."""

import functools
import random
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from conch.v1 import inference_pb2, tasks_pb2
from examples.assets import minilm
from services.errors import InvalidRequest
from services.tasks import Encoded, Example, Facts, find_task
from services.tasks.encoding import Encoder
from services.tasks.tensors import Answer
from services.tasks.token_classification.aggregation import Aggregation, find_entities
from services.tasks.token_classification.extract_entities import ExtractEntities
from services.tasks.token_classification.spans import Reading, tags_of

Request = inference_pb2.ExtractEntitiesRequest
TASK = find_task("token-classification")
FACTS = Facts(tags_of(["PER", "B-x", "LOC"]))
HOW = {
    "simple": Request.AGGREGATION_SIMPLE,
    "first": Request.AGGREGATION_FIRST,
    "average": Request.AGGREGATION_AVERAGE,
    "max": Request.AGGREGATION_MAX,
}
PIECES = (
    "Paris München cafe\u0301 naïve 北京 大学 東京タワー שלום مرحبا 😀 "
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 a\u200db \u200f \u0301 U.S. don't IBM-led 3,000 xxxxxxxxxx "
    "नमस्ते İstanbul ﬁn [SEP] [UNK] [MASK] ##ing \ufeff e\u0301a 🇩🇪 ... \x07"
).split(" ")


class Served:
    """A version that answers, as far as the codec looks at it."""

    def __init__(self, encoder: Encoder, facts: Facts = FACTS) -> None:
        self.encoder = encoder
        self.facts = facts


@functools.cache
def wordpieces() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(minilm())


@functools.cache
def bytes_() -> transformers.PreTrainedTokenizerBase:
    """A byte-level tokenizer as GPT-2's: tokens begin with spaces and may be parts of a character."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        [" ".join(PIECES)] * 9,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False
    )
    return _fast(made)


@functools.cache
def unigrams() -> transformers.PreTrainedTokenizerBase:
    """A tokenizer as SentencePiece makes them."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        [" ".join(PIECES)] * 9,
        trainers.UnigramTrainer(vocab_size=180, special_tokens=special, unk_token="<unk>"),
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _fast(made)


def _fast(tokenizer: Tokenizer) -> transformers.PreTrainedTokenizerBase:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )


@functools.cache
def model(vocabulary: int) -> transformers.PreTrainedModel:
    """A small BERT that is sure of what it says and says something else of every token."""
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.6,
        id2label=dict(enumerate(FACTS.labels)),
        label2id={tag: i for i, tag in enumerate(FACTS.labels)},
    )
    return transformers.BertForTokenClassification(config).eval()


def answered(encoded: Encoded, net: transformers.PreTrainedModel) -> Answer:
    rows = []
    for window in encoded.windows:
        with torch.inference_mode():
            out = net(
                input_ids=torch.tensor([window.input_ids]),
                token_type_ids=torch.tensor([window.token_type_ids]),
            )
        rows.append({"logits": out.logits[0].numpy()})
    return rows


def texts(count: int, *, seed: int) -> list[str]:
    dice = random.Random(seed)
    joints = [" ", " ", "", "-", ", ", "\u00a0", "\u3000"]
    made = ("".join(dice.choice(PIECES) + dice.choice(joints) for _ in range(12)) for _ in range(count))
    return [text for text in made if text.strip()]


def parted(found: list[dict[str, Any]], text: str) -> list[tuple[str, int, int, float]]:
    """The pipeline's entities without the white space that some tokenizers count to a word, and without
    the characters of which parts are tokens of the entity before, too."""
    kept: list[tuple[str, int, int, float]] = []
    for one in found:
        start, end = max(one["start"], kept[-1][2] if kept else 0), one["end"]
        inner = text[start:end].strip()
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if inner:
            kept.append((one["entity_group"], start, start + len(inner), float(one["score"])))
    return kept


@pytest.mark.parametrize("how", list(HOW))
@pytest.mark.parametrize("tokenizer", [wordpieces, bytes_, unigrams])
@pytest.mark.filterwarnings("ignore")
def test_entities_are_those_of_transformers_pipeline(tokenizer: Any, how: str) -> None:
    warnings.simplefilter("ignore")
    served = Served(Encoder(tokenizer().backend_tokenizer.to_str(), 512))
    net = model(len(tokenizer()))
    pipe = transformers.pipeline(
        "token-classification", model=net, tokenizer=tokenizer(), aggregation_strategy=how, device="cpu"
    )
    total = 0
    for text in texts(12, seed=list(HOW).index(how)):
        [encoded] = TASK.encode(served.encoder, [Example(text, "", None, 1)], FACTS)
        request = Request(texts=[text], aggregation=HOW[how])
        response = ExtractEntities().respond(request, [encoded], [answered(encoded, net)], served)
        found = response.results[0].entities
        assert all(text[e.start : e.end] == e.text for e in found)
        assert all(a.end <= b.start for a, b in pairwise(found))
        want = parted(pipe(text), text)
        assert [(e.label, e.start, e.end) for e in found] == [w[:3] for w in want]
        assert [e.score for e in found] == pytest.approx([w[3] for w in want], abs=1e-3)
        total += len(found)
    assert total > 25


def test_a_text_in_windows_is_read_as_it_is_at_once() -> None:
    """Tags that depend on the token alone must not show where windows were cut."""
    tokenizer = minilm() / "tokenizer.json"
    table = np.random.default_rng(3).normal(0, 3, (40_000, len(FACTS.labels))).astype(np.float32)
    text = " ".join(texts(20, seed=9))
    found = []
    for max_length, stride in ((100_000, 0), (32, 8), (17, 8), (16, 0), (128, 60)):
        spec = tasks_pb2.TaskSpec()
        spec.token_classification.stride = stride
        served = Served(Encoder.from_file(tokenizer, max_length), Facts(FACTS.labels, spec))
        [encoded] = TASK.encode(served.encoder, [Example(text, "", None, 1)], served.facts)
        answer = [{"logits": table[window.input_ids]} for window in encoded.windows]
        results = ExtractEntities().respond(Request(texts=[text]), [encoded], [answer], served).results
        assert results[0].tokens.num_windows == len(encoded.windows)
        found.append(list(results[0].entities))
    assert len(found[0]) > 100
    assert all(other == found[0] for other in found[1:])


def test_entities_below_min_score_are_left_out() -> None:
    served = Served(Encoder.from_file(minilm() / "tokenizer.json", 64))
    [encoded] = TASK.encode(served.encoder, [Example("ada oslo", "", None, 1)], FACTS)
    logits = np.zeros((4, len(FACTS.labels)), np.float32)
    logits[1, 1], logits[2, 5] = 2.0, 9.0

    def labels(min_score: float) -> list[str]:
        request = Request(texts=["ada oslo"], min_score=min_score)
        response = ExtractEntities().respond(request, [encoded], [[{"logits": logits}]], served)
        return [entity.label for entity in response.results[0].entities]

    assert labels(0) == ["PER", "LOC"]
    assert labels(0.9) == ["LOC"]
    assert labels(1) == []


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (Request(aggregation=7), "aggregation", "UNKNOWN_AGGREGATION"),
        (Request(min_score=1.5), "min_score", "BAD_MIN_SCORE"),
        (Request(min_score=-0.1), "min_score", "BAD_MIN_SCORE"),
        (Request(min_score=float("nan")), "min_score", "BAD_MIN_SCORE"),
    ],
)
def test_what_no_model_could_answer_is_refused_by_field(request_: Any, field: str, reason: str) -> None:
    request_.texts.append("x")
    with pytest.raises(InvalidRequest) as caught:
        ExtractEntities().examples(request_, Served(Encoder.from_file(minilm() / "tokenizer.json", 8)))
    assert caught.value.reason == reason
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_sentence_costs_little_to_decode() -> None:
    """Thirty tokens and nine labels: measured 0.05 ms of CPU; ten times that is a mistake."""
    tags = tags_of(["PER", "LOC", "ORG", "MISC"])
    logits = np.random.default_rng(1).normal(0, 3, (30, 9)).astype(np.float32)
    reading = Reading(list(range(30)), [(5 * i, 5 * i + 4) for i in range(30)], logits)
    text = "word " * 30
    best = min(_seconds(reading, text, tags) for _ in range(20))
    assert best < 0.5e-3


def _seconds(reading: Reading, text: str, tags: Sequence[str]) -> float:
    started = time.thread_time()
    for _ in range(20):
        find_entities(reading, text, tags, how=Aggregation.SIMPLE)
    return (time.thread_time() - started) / 20
