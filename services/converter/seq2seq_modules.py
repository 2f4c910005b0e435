"""An encoder-decoder of transformers as the two functions of flat tensors that become graphs.

Knows transformers' seq2seq models (T5, Marian, BART and what is built as they are), caches and attention
interface; knows nothing about ONNX.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_ATTENTION = "conch_shared_source"


class Encoder(torch.nn.Module):
    """Gives the last hidden state and each layer's cross-attention key and value.

    It runs one decoder step too, which makes those; what else that computes is pruned from the graph.
    """

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=input_ids[:, :1],
            use_cache=True,
            return_dict=True,
        )
        return answer.encoder_last_hidden_state, *_tensors(answer.past_key_values.cross_attention_cache)


class Decoder(torch.nn.Module):
    """Gives the logits and each layer's self-attention key and value after `input_ids` of every beam."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        parents: torch.Tensor,
        attention_mask: torch.Tensor,
        cross: list[torch.Tensor],
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        sources, beams, target = input_ids.shape
        chosen = [tensor.index_select(0, parents.reshape(-1)) for tensor in past]
        answer = self.model(
            # Given cross-attention keys and values, models read nothing of it but that it is there.
            encoder_outputs=BaseModelOutput(last_hidden_state=past[0].new_zeros(1, 1, 1)),
            attention_mask=(1 - attention_mask[:, None, None].float()) * torch.finfo(torch.float32).min,
            decoder_input_ids=input_ids.reshape(sources * beams, target),
            past_key_values=EncoderDecoderCache(_cache(chosen), _cache(cross)),
            use_cache=True,
            return_dict=True,
        )
        logits = answer.logits.reshape(sources, beams, target, -1)
        return logits, *_tensors(answer.past_key_values.self_attention_cache)


def _cache(tensors: Sequence[torch.Tensor]) -> DynamicCache:
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(key, value, layer)
    return cache


def _tensors(cache: Any) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **others: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eager attention in which a source's beams are more queries over the same keys.

    `query` `(sequence, head, target, size)`, `key` and `value` `(source, head, tokens, size)`.
    """
    crossing = module.is_decoder and not module.is_causal
    shape = query.shape
    if crossing:
        sources, (_, heads, target, size) = key.shape[0], shape
        query = query.reshape(sources, -1, heads, target, size).transpose(1, 2)
        query = query.reshape(sources, heads, -1, size)
    weights = query @ key.transpose(2, 3) * (scaling if scaling is not None else shape[-1] ** -0.5)
    # T5's bias of the cross-attention is zeros.
    for term in (None if crossing else position_bias, attention_mask):
        weights = weights if term is None else weights + term
    weights = torch.softmax(weights, dim=-1)
    answer = weights @ value
    if crossing:
        answer = answer.reshape(sources, heads, -1, target, size).transpose(1, 2).reshape(shape)
    return answer.transpose(1, 2), weights


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION, eager_mask)


@contextlib.contextmanager
def shared_source(model: transformers.PreTrainedModel) -> Iterator[None]:
    """Lets the beams of a source share its keys and values while `model` is traced."""
    before = model.config._attn_implementation
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
