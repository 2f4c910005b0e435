"""Makes small checkpoint artifacts as the trainer lays them out, with random weights and fresh heads."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from google.protobuf import json_format
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from conch.v1 import models_pb2
from services import storage
from services.tasks.encoding import Encoder, Tokens, pad

WORDS = [
    "good",
    "bad",
    "film",
    "plot",
    "actor",
    "dull",
    "bright",
    "long",
    "short",
    "scene",
    "ending",
    "music",
    "story",
    "laugh",
    "cry",
]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert(labels: Sequence[str]) -> transformers.PreTrainedModel:
    """Returns a two-layer BERT with random weights."""
    config = transformers.BertConfig(
        vocab_size=len(_SPECIAL) + len(WORDS), max_position_embeddings=64, **_SMALL, **_named(labels)
    )
    return spread(transformers.BertForSequenceClassification(config))


def distilbert(labels: Sequence[str]) -> transformers.PreTrainedModel:
    """Returns a two-layer DistilBERT with random weights: a model without token_type_ids."""
    config = transformers.DistilBertConfig(
        vocab_size=len(_SPECIAL) + len(WORDS),
        max_position_embeddings=64,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        **_named(labels),
    )
    return spread(transformers.DistilBertForSequenceClassification(config))


def roberta(labels: Sequence[str]) -> transformers.PreTrainedModel:
    """Returns a two-layer RoBERTa with random weights: token_type_ids of one type only."""
    config = transformers.RobertaConfig(
        vocab_size=len(_SPECIAL) + len(WORDS),
        max_position_embeddings=64,
        type_vocab_size=1,
        pad_token_id=0,
        **_SMALL,
        **_named(labels),
    )
    return spread(transformers.RobertaForSequenceClassification(config))


def tokenizer_json() -> str:
    """Returns a word-level tokenizer.json over WORDS with [CLS] and [SEP]."""
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer.to_str()


def sentences(count: int, *, seed: int = 0, longest: int = 40) -> list[str]:
    """Returns `count` sentences of 1 to `longest` known words."""
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=dice.randint(1, longest))) for _ in range(count)]


def save(
    folder: Path,
    model: transformers.PreTrainedModel,
    labels: Sequence[str],
    *,
    texts: Sequence[str] = (),
    tokenizer: str = "",
    max_length: int = 48,
    task: str = "text-classification",
) -> str:
    """Writes the checkpoint artifact of `model` at `folder` and returns its URI."""
    texts = texts or sentences(64)
    model.eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer or tokenizer_json(), encoding="utf-8")
    encoder = Encoder.from_file(folder / "tokenizer.json", max_length)
    logits = [_logits(model, row, encoder) for row in encoder.encode(texts)]
    rows = [
        {"text": text, "text_pair": "", "target": labels[int(row.argmax())]}
        for text, row in zip(texts, logits, strict=True)
    ]
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "golden.json").write_text(json_format.MessageToJson(_golden(texts, logits)), encoding="utf-8")
    checkpoint = models_pb2.CheckpointManifest(task=task, labels=labels, max_length=max_length, seed=7)
    storage.upload(folder, str(folder), models_pb2.Manifest(checkpoint=checkpoint))
    return str(folder)


def _golden(texts: Sequence[str], logits: Sequence[np.ndarray]) -> models_pb2.GoldenExamples:
    examples = [
        models_pb2.GoldenExample(
            text=text,
            windows=[
                models_pb2.GoldenWindow(
                    outputs={"logits": models_pb2.FloatTensor(shape=row.shape, values=row.tolist())}
                )
            ],
        )
        for text, row in list(zip(texts, logits, strict=True))[:32]
    ]
    return models_pb2.GoldenExamples(examples=examples)


def _logits(model: transformers.PreTrainedModel, row: Tokens, encoder: Encoder) -> np.ndarray:
    inputs = {name: torch.from_numpy(array) for name, array in pad([row], len(row), encoder.pad_id).items()}
    if not getattr(model.config, "type_vocab_size", 0) > 1:
        del inputs["token_type_ids"]
    with torch.inference_mode():
        return model(**inputs).logits[0].numpy()


def _named(labels: Sequence[str]) -> dict[str, dict[int, str]]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def spread(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Scales the head up: fresh heads answer nearly 0, where any conversion looks good."""
    head = model.classifier if hasattr(model.classifier, "weight") else model.classifier.out_proj
    with torch.no_grad():
        head.weight.mul_(50)
    return model.eval()
