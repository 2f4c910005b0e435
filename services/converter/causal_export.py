"""A causal language model to one portable ONNX graph: tokens in, every token's logits out, nothing cached.

Knows what such models want beside tokens; the export itself is onnx_export's.
"""

from pathlib import Path

import torch
import transformers

from services.converter import onnx_export
from services.tasks import Task


def export(model: transformers.PreTrainedModel, task: Task, *, max_length: int, path: Path) -> None:
    """Writes `model` to `path`. Raises NotReady as onnx_export.export does."""
    wrapped: transformers.PreTrainedModel = _Logits(model)  # type: ignore[assignment]  # as far as it is used
    onnx_export.export(wrapped, task, max_length=max_length, path=path)


class _Logits(torch.nn.Module):
    """Gives a model the positions of its tokens, whichever side is padded."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def set_attn_implementation(self, name: str) -> None:
        """Sets the model's."""
        self.model.set_attn_implementation(name)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, return_dict: bool = True
    ) -> dict[str, torch.Tensor]:
        positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        answer = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, use_cache=False
        )
        return {"logits": answer.logits}
