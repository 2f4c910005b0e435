"""What a causal language model makes of known text, and what it writes by itself: torch's side of generation.

Reduces logits to the rows of services.tasks.next_tokens where they are made, because those
of a whole vocabulary are 200 KB a token. Knows torch; knows nothing about data, jobs or runtimes.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from services.tasks.encoding import Tokens
from services.tasks.next_tokens import NUM_TOP
from services.tasks.tensors import IGNORED, FloatArray, Row
from services.tasks.text_generation.written import labels


def score(logits: torch.Tensor, windows: Sequence[Tokens], like: Sequence[Row] | None = None) -> list[Row]:
    """Returns a row for each window of a batch, given its logits `(batch, sequence, vocabulary)`.

    The logits that a row keeps are those that are highest, or those that the row of `like` keeps.
    """
    return [
        _scored(logits[i, : len(window)], window, None if like is None else like[i]["top_ids"])
        for i, window in enumerate(windows)
    ]


def write_greedily(model: Any, prompt: Sequence[int], *, most: int, ends: Collection[int]) -> list[int]:
    """Returns up to `most` tokens that continue a prompt, each the most probable one; none of `ends`."""
    written: list[int] = []
    tokens, past = list(prompt), None
    with torch.inference_mode():
        while len(written) < most:
            ids = torch.tensor([tokens], device=model.device)
            answer = model(input_ids=ids, past_key_values=past, use_cache=True)
            token = int(answer.logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
            tokens, past = [token], answer.past_key_values
    return written


def ends_of(model: Any, eos_id: int | None) -> set[int]:
    """Returns the tokens that end a text, by the model's configuration and by its tokenizer."""
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return {token for token in [*found, eos_id] if token is not None}


def scored(logits: torch.Tensor, target: torch.Tensor, top_ids: FloatArray | None = None) -> Row:
    """Returns the row of logits `(token, vocabulary)` that are to say the tokens `target` `(token,)`.

    The logits that it keeps are those that are highest, or those of `top_ids` `(token, k)`.
    """
    target, logits = target.to(logits.device), logits.float()
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    kept = logits.topk(min(NUM_TOP, logits.shape[-1])).indices if top_ids is None else _ids(top_ids)
    return {
        "losses": _array(losses),
        "best": _array(logits.argmax(dim=-1)),
        "target": _array(target),
        "top_ids": _array(kept),
        "top_logits": _array(logits.gather(1, kept.to(logits.device))),
    }


def _scored(logits: torch.Tensor, window: Tokens, top_ids: FloatArray | None) -> Row:
    target = torch.from_numpy(labels(window))[1:]
    learned = target != IGNORED
    return scored(logits[:-1][learned.to(logits.device)], target[learned], top_ids)


def _ids(top_ids: FloatArray) -> torch.Tensor:
    return torch.from_numpy(top_ids.astype(np.int64))


def _array(values: torch.Tensor) -> FloatArray:
    """Returns numbers as float32, which holds every token's id exactly."""
    return np.asarray(values.cpu().numpy(), dtype=np.float32)
