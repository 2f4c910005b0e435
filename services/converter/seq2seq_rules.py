"""What a checkpoint fixes about generation, as `generation.json` says it to the seq2seq backend.

Knows transformers' generation configs; knows nothing about graphs. The other side of the file is
services/triton/backends/seq2seq/generation/rules.py.
"""

from typing import Any

import transformers

from services.errors import NotReady

FILE_NAME = "generation.json"
_UNSERVED = {
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1, 1.0),
    "renormalize_logits": (None, False),
    "constraints": (None,),
    "force_words_ids": (None,),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
}
"""Settings that would change what transformers generates and that the backend does not know."""


def rules(model: transformers.PreTrainedModel) -> dict[str, Any]:
    """Returns what `generation.json` says of `model`.

    Raises NotReady(GENERATION_UNSUPPORTED) if its generation config asks for what the backend does not do.
    """
    config: Any = model.generation_config
    assert config is not None, "every AutoModelForSeq2SeqLM generates"
    odd = {n: v for n, good in _UNSERVED.items() if (v := getattr(config, n, None)) not in good}
    if odd:
        raise NotReady(
            f"the checkpoint's generation config sets {odd}, which the seq2seq backend does not do",
            reason="GENERATION_UNSUPPORTED",
        )
    ends = _listed(config.eos_token_id)
    start = _first(config.decoder_start_token_id, config.bos_token_id)
    pad = _first(config.pad_token_id, *ends)
    if start is None or pad is None:
        raise NotReady(
            "the checkpoint's generation config has no decoder_start_token_id or no end and padding tokens",
            reason="GENERATION_UNSUPPORTED",
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    embeddings: Any = model.get_input_embeddings()
    return {
        "decoder_start_token_id": start,
        "pad_token_id": pad,
        "vocab_size": head.weight.shape[0],
        "source_vocab_size": embeddings.weight.shape[0],
        "eos_token_ids": ends,
        "forced_bos_token_id": config.forced_bos_token_id,
        "forced_eos_token_ids": _listed(config.forced_eos_token_id),
        "bad_words_ids": config.bad_words_ids or [],
        "suppress_tokens": config.suppress_tokens or [],
        "begin_suppress_tokens": config.begin_suppress_tokens or [],
        "repetition_penalty": _first(config.repetition_penalty, 1.0),
        "early_stopping": _first(config.early_stopping, False),
        "max_source_length": positions,
        "max_target_length": positions,
        "defaults": _defaults(config),
    }


def _defaults(config: Any) -> dict[str, Any]:
    """What a request that says nothing gets; null where the checkpoint says nothing either."""
    longest = config.max_new_tokens or (config.max_length and config.max_length - 1)
    shortest = config.min_new_tokens or (config.min_length and config.min_length - 1)
    return {
        "num_beams": config.num_beams,
        "max_new_tokens": longest,
        "min_new_tokens": max(shortest, 0) if shortest is not None else None,
        "no_repeat_ngram_size": config.no_repeat_ngram_size,
        "length_penalty": config.length_penalty,
    }


def _listed(ids: int | list[int] | None) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids or [])


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
