"""LoRA: low-rank matrices are trained beside frozen weights, and merged into them at the end.

Knows peft; knows nothing about tasks or training. Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from pathlib import Path
from typing import Any

import peft

from services.tasks.base import LowRank

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
"""What stands in a resumable checkpoint instead of the model's own files."""


def adapted(model: Any, low_rank: LowRank | None) -> Any:
    """Returns what is trained: matrices beside every linear layer but the last one, or `model` itself.

    The matrices are initialised from torch's global seed.
    """
    if low_rank is None:
        return model
    config = peft.LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,  # type: ignore[arg-type]  # a float does as well
        target_modules="all-linear",
        fan_in_fan_out=_has_conv1d(model),
    )
    return peft.get_peft_model(model, config)


def merged(base: Any, checkpoint: Path) -> Any:
    """Returns the base model with the matrices of a resumable checkpoint merged into its weights."""
    return peft.PeftModel.from_pretrained(base, str(checkpoint)).merge_and_unload()


def _has_conv1d(model: Any) -> bool:
    # GPT-2 keeps its weights transposed.
    return any(type(module).__name__ == "Conv1D" for module in model.modules())
