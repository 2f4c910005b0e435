"""Small encoder-decoders with random weights that generate sequences worth comparing.

Fresh models repeat one token for ever; scaled up, these wander, and with several end tokens they end at
unequal lengths.
"""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from services.converter import seq2seq_export

VOCABULARY = 96
"""Tokens of every model here, the special ones among them."""


@dataclass(frozen=True)
class Exported:
    """A model and the version folder that was made of it."""

    model: transformers.PreTrainedModel
    folder: Path


@functools.cache
def exported(name: str) -> Exported:
    """Returns the model that the function `name` here makes, exported once a session."""
    model = {"t5": t5, "gated_t5": gated_t5, "marian": marian, "bart": bart}[name]()
    folder = Path(_FOLDER.name) / name
    folder.mkdir()
    seq2seq_export.export(model, folder)
    return Exported(model, folder)


_FOLDER = tempfile.TemporaryDirectory(prefix="seq2seq-")


def t5(
    *, seed: int = 0, layers: float = 5, embeddings: float = 1, **changes: Any
) -> transformers.PreTrainedModel:
    """Returns a two-layer T5 (pad 0, end 1 or others): relu and tied embeddings, as the first release had."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    config = transformers.T5Config(**(settings | changes))
    return _spread(transformers.T5ForConditionalGeneration(config), layers=layers, embeddings=embeddings)


def gated_t5(*, seed: int = 0) -> transformers.PreTrainedModel:
    """Returns a T5 as version 1.1 and FLAN have it: gated gelu, a head of its own, fewer decoder layers."""
    return t5(
        seed=seed,
        layers=2,
        embeddings=0.3,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        num_layers=3,
        num_decoder_layers=2,
    )


def marian(*, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """Returns a two-layer Marian: its start token is padding, which it must never generate."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
        "pad_token_id": VOCABULARY - 1,
        "decoder_start_token_id": VOCABULARY - 1,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "scale_embedding": True,
    }
    config = transformers.MarianConfig(**(settings | changes))
    model = _spread(transformers.MarianMTModel(config), layers=8, embeddings=6)
    model.generation_config.bad_words_ids = [[VOCABULARY - 1]]
    model.generation_config.forced_eos_token_id = 0
    return model


def bart(*, seed: int = 0) -> transformers.PreTrainedModel:
    """Returns a two-layer BART that forces its first and its last token, as the summarizers do."""
    torch.manual_seed(seed)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    model = _spread(transformers.BartForConditionalGeneration(config), layers=8, embeddings=0.3)
    model.generation_config.early_stopping = True
    return model


def _spread(
    model: transformers.PreTrainedModel, *, layers: float, embeddings: float
) -> transformers.PreTrainedModel:
    """Scales the weights of the layers and of the embeddings, positions excepted."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "positions" not in name:
                outer = any(part in name for part in ("shared", "embed_tokens", "lm_head"))
                weight.mul_(embeddings if outer else layers)
    return model.eval()
