"""Encoders that give one vector a text: pooling and normalisation end their forward pass.

Knows torch and how transformers loads encoders; knows nothing about data, losses or ONNX. What it is given
beside the weights stands in config.json, so that the checkpoint loads as it was trained, and stays one that
transformers' AutoModel reads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils.hub import cached_file

from services.tasks.feature_extraction.vectors import VECTOR

# Below every hidden state there is, and finite in bf16 too.
_LOWEST = -1e30


class Embedder:
    """Stands where a transformers auto class does; what it loads gives {VECTOR: (batch, dimension)}."""

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Any:
        """Returns what AutoModel.from_pretrained does, its model giving float32 vectors.

        `pooling` ("mean", "cls", "max"), `normalize` and `dimensions` (those that a vector may be cut to)
        replace what the config says of them. Raises ValueError if the model is no encoder or its vectors
        are too short.
        """
        given = {name: options.pop(name) for name in _CHOICES if name in options}
        config = transformers.AutoConfig.from_pretrained(source)
        for name, default in _CHOICES.items():
            setattr(config, name, given.get(name, getattr(config, name, default)))
        _check(config)
        loaded = transformers.AutoModel.from_pretrained(source, config=config, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # A hook and no module around it: parameters keep the names under which every library knows them.
        model.register_forward_hook(_embed, with_kwargs=True)
        return loaded


def find_other_pooling(source: str, config: Any) -> str:
    """Returns what sentence-transformers' files beside the weights say of the pooling, if `config` differs.

    A model that was trained with one pooling gives poor vectors with another.
    """
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors")}
    path = cached_file(source, "1_Pooling/config.json", **quiet)
    said = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    others = [name for name, flag in _FLAGS.items() if said.get(flag) or said.get("pooling_mode") == name]
    if not others or config.pooling in others:
        return ""
    return f"{source} was trained with {others[0]} pooling, {config.pooling} pooling was asked for"


_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
}
_CHOICES: dict[str, Any] = {"pooling": "mean", "normalize": True, "dimensions": []}


def _check(config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{config.model_type} is an encoder with a decoder; vectors need an encoder alone")
    if too_long := [d for d in config.dimensions if d >= config.hidden_size]:
        raise ValueError(
            f"its vectors have {config.hidden_size} dimensions: dimensions {too_long} are not below that"
        )


def _embed(model: Any, args: Any, inputs: Mapping[str, torch.Tensor], output: Any) -> dict[str, torch.Tensor]:
    hidden = output.last_hidden_state.float()  # (batch, sequence, dimension)
    vectors = _POOLINGS[model.config.pooling](hidden, inputs["attention_mask"].unsqueeze(-1))
    if model.config.normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return {VECTOR: vectors}


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    kept = mask.to(hidden.dtype)
    return (hidden * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)


def _cls(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask == 0, _LOWEST).amax(dim=1)


_POOLINGS = {"mean": _mean, "cls": _cls, "max": _max}
