"""What an encoder-decoder of transformers writes, and what it makes of known targets: the reference of both.

Knows transformers' generate; knows nothing about data, jobs or graphs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from services.tasks.encoding import Tokens, pad
from services.tasks.tensors import IGNORED, Row
from services.token_scores import ends_of, scored


def search(model: Any, tokens: Sequence[Tokens], pad_id: int) -> list[Row]:
    """Returns what `model` writes for each row of a batch, named as sequences are (text2text_generation).

    The rows' parameters must be alike.
    """
    settings = {
        name: value if name == "length_penalty" else int(value)
        for name, value in tokens[0].parameters.items()
    }
    beams = int(settings["num_beams"])
    with torch.inference_mode():
        answer = model.generate(
            **_inputs(model, tokens, pad_id),
            **settings,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=beams == 1,
            output_scores=beams > 1,
        )
    sequences = answer.sequences[:, 1:].cpu()
    rows = [_cut(ids, ends_of(model, None)) for ids in sequences.tolist()]
    scores = answer.sequences_scores.tolist() if beams > 1 else _totals(model, answer.logits, rows, settings)
    return [_row(ids, score, model, settings) for ids, score in zip(rows, scores, strict=True)]


def score_targets(
    model: Any, tokens: Sequence[Tokens], targets: Sequence[Sequence[int]], pad_id: int
) -> list[Row]:
    """Returns what `model` makes of each row's target, named as in text_generation.next_tokens."""
    with torch.inference_mode():
        ids = decoder_inputs(model, targets)
        logits = model(**_inputs(model, tokens, pad_id), decoder_input_ids=ids).logits
    return [scored(logits[i, : len(ids)], torch.tensor(ids)) for i, ids in enumerate(targets)]


def decoder_inputs(model: Any, targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Returns what the decoder reads to say `targets`: the same one later, `(row, longest)`."""
    longest = max(map(len, targets))
    labels = [[*ids, *[IGNORED] * (longest - len(ids))] for ids in targets]
    shifted: torch.Tensor = model.prepare_decoder_input_ids_from_labels(
        labels=torch.tensor(labels, device=model.device)
    )
    return shifted


def _inputs(model: Any, tokens: Sequence[Tokens], pad_id: int) -> dict[str, torch.Tensor]:
    arrays = pad(tokens, max(map(len, tokens)), pad_id)
    return {name: torch.from_numpy(arrays[name]).to(model.device) for name in ("input_ids", "attention_mask")}


def _cut(ids: Sequence[int], ends: set[int]) -> list[int]:
    """Returns a sequence up to the token that ends it, that included."""
    length = next((place for place, token in enumerate(ids, start=1) if token in ends), len(ids))
    return list(ids[:length])


def _totals(
    model: Any, logits: Sequence[torch.Tensor], rows: Sequence[Sequence[int]], settings: dict[str, Any]
) -> list[float]:
    """Returns the sum of each row's log-probabilities; `logits` `(row, vocabulary)` by step.

    A token that the rules force is certain.
    """
    totals = [0.0] * len(rows)
    config = model.generation_config
    for place, step in enumerate(logits):
        probabilities = step.float().log_softmax(dim=-1)
        first = place == 0 and config.forced_bos_token_id is not None
        last = place + 1 == settings["max_new_tokens"] and config.forced_eos_token_id is not None
        for i, ids in enumerate(rows):
            if place < len(ids) and not (first or last):
                totals[i] += float(probabilities[i, ids[place]])
    return totals


def _row(ids: Sequence[int], score: float, model: Any, settings: dict[str, Any]) -> Row:
    forced = model.generation_config.forced_eos_token_id is not None
    ended = ids[-1] in ends_of(model, None) and not (forced and len(ids) >= settings["max_new_tokens"])
    # As golden examples hold them: float32 holds every token's id exactly.
    return {
        "sequences": np.array(ids, np.float32),
        "sequence_scores": np.array([score], np.float32),
        "sequence_lengths": np.array([len(ids)], np.float32),
        "sequence_ended": np.array([ended], np.float32),
    }
