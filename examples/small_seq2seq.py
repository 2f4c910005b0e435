"""A small encoder-decoder that knows nothing yet: T5's own code, random weights, a tokenizer of the data.

Registries hold no such weights, so demos and tests train one from scratch. Knows transformers and
tokenizers; knows nothing about Conch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SPECIAL = ("<pad>", "</s>", "<unk>")


def make(folder: Path, texts: Iterable[str], *, vocabulary: int = 4000, **sizes: Any) -> Path:
    """Writes a T5 with a unigram tokenizer learned from `texts` into `folder`, and returns that.

    `sizes` are T5Config's; left open, 3 layers of 192 dimensions each side.
    """
    import torch
    import transformers

    pieces = _pieces(texts, vocabulary)
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    defaults = {"d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 3, "num_heads": 6, "dropout_rate": 0.1}
    config = transformers.T5Config(
        vocab_size=len(pieces), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **(defaults | sizes)
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def _pieces(texts: Iterable[str], vocabulary: int) -> list[tuple[str, float]]:
    """Returns the pieces of T5's tokenizer with their log-probabilities, the special ones first."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    # As transformers.T5Tokenizer reads texts.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=list(_SPECIAL), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = json.loads(tokenizer.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in found]
