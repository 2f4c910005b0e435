"""The loss of vectors: texts that belong together become near, all others of a batch far.

Knows vectors and what a batch says of its texts; knows nothing about the training loop.

Pairs and triplets: InfoNCE with the other rows' texts as negatives (Henderson et al. 2017,
https://arxiv.org/abs/1705.00652), from the first text to the second and back, as CLIP has it. Scored pairs:
CoSENT (https://kexue.fm/archives/8847), which asks for the order of the scores alone. Dimensions to cut to:
Matryoshka (Kusupati et al. 2022, https://arxiv.org/abs/2205.13147).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy, normalize

from services.tasks import Facts
from services.tasks.feature_extraction.vectors import VECTOR

Tensors = Mapping[str, torch.Tensor]


def loss(model: Any, inputs: Tensors, targets: Tensors, facts: Facts) -> torch.Tensor:
    """Returns the mean loss of a batch of n rows, a scalar.

    `inputs` are `(texts * n, sequence)`: first the first text of every row, then every second text, then
    every negative. `targets` are either "keys" `(n, texts)`, equal for equal texts, or "score" `(n,)`.
    """
    spec = facts.spec.feature_extraction
    vectors = _embedded(model, inputs, num_rows=len(next(iter(targets.values()))))
    # Under autocast the products would be bf16: at a temperature of 0.05 that is noise of a tenth.
    with torch.autocast(vectors.device.type, enabled=False):
        sizes = [*spec.dimensions, vectors.shape[-1]]
        return torch.stack([_of(vectors[..., :size], targets, spec.temperature) for size in sizes]).mean()


def _embedded(model: Any, inputs: Tensors, *, num_rows: int) -> torch.Tensor:
    """Returns the vectors `(texts, n, dimension)`, fp32.

    First texts are often short and second ones long: each kind is run by itself without its common padding.
    """
    parts = zip(*(torch.split(tensor, num_rows) for tensor in inputs.values()), strict=True)
    vectors = []
    for part in parts:
        own = dict(zip(inputs, part, strict=True))
        longest = int(own["attention_mask"].sum(dim=1).max())
        vectors.append(model(**{name: tensor[:, :longest] for name, tensor in own.items()})[VECTOR].float())
    return torch.stack(vectors)


def _of(vectors: torch.Tensor, targets: Tensors, temperature: float) -> torch.Tensor:
    vectors = normalize(vectors, dim=-1)
    if "score" in targets:
        return _cosent((vectors[0] * vectors[1]).sum(dim=-1) / temperature, targets["score"])
    return _in_batch_negatives(vectors, targets["keys"], temperature)


def _in_batch_negatives(vectors: torch.Tensor, keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """`vectors` are `(texts, n, dimension)` of length 1, `keys` `(n, texts)`."""
    first, rest = vectors[0], vectors[1:].flatten(0, 1)
    logits = first @ rest.T / temperature  # (n, n * (texts - 1))
    logits = logits.masked_fill(_no_negatives(keys), -torch.inf)
    right = torch.arange(len(first), device=logits.device)
    forwards = cross_entropy(logits, right)
    backwards = cross_entropy(logits[:, : len(first)].T, right)
    return (forwards + backwards) / 2


def _no_negatives(keys: torch.Tensor) -> torch.Tensor:
    """Returns where a text of the batch is no negative of a row, yet not its own partner either.

    That is the row's own first or second text once more, or the partner of an equal first text.
    """
    first, second, others = keys[:, :1], keys[:, 1:2], keys[:, 1:].T.flatten()  # others: (n * (texts - 1),)
    same = (second == others) | (first == others)
    same[:, : len(keys)] |= first == first.T
    same.fill_diagonal_(False)
    return same


def _cosent(similarities: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Mean over nothing but the batch itself: log(1 + sum of exp(similarity of a pair of lower score - of a
    higher one))."""
    differences = similarities[:, None] - similarities[None, :]  # [lower, higher]
    wrong_way = differences[scores[:, None] < scores[None, :]]
    return torch.logsumexp(torch.cat([wrong_way, wrong_way.new_zeros(1)]), dim=0)
