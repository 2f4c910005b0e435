"""How well a causal language model knows a split, token by token.

Knows how to run such a model in fp32; what the rows mean is services.tasks.next_tokens'.
"""

from collections.abc import Sequence

import torch

from services.tasks.encoding import Tokens
from services.tasks.tensors import Row
from services.token_scores import score
from services.trainer.evaluate import Predictor
from services.trainer.features import to_tensors


class Perplexities(Predictor):
    """Runs a causal language model in fp32 without gradients."""

    tokens_at_once = 1024
    """As many rows of a vocabulary of 50,000 are 200 MB."""

    def __call__(self, tokens: Sequence[Tokens]) -> list[Row]:
        """Returns what the model makes of the learned tokens of each window of one batch."""
        self.model.eval()
        with torch.inference_mode():
            inputs = to_tensors(tokens, self.names, self.pad_id)
            inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
            return score(self.model(**inputs, use_cache=False).logits, tokens)
