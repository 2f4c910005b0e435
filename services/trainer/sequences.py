"""What an encoder-decoder makes of a split, token by token, and what it writes by itself.

Knows how to run such a model in fp32; what rows mean is said in services.tasks: text_generation.next_tokens
and text2text_generation.sequences.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.reference_search import score_targets, search
from services.tasks import Encoded
from services.tasks.encoding import Tokens
from services.tasks.tensors import Answer, Row
from services.trainer.evaluate import Predictor, batches_by_length
from services.trainer.features import Features


class Sequences(Predictor):
    """Runs an encoder-decoder in fp32 without gradients."""

    tokens_at_once = 1024
    """As many rows of a vocabulary of 50,000 are 200 MB."""

    def __call__(self, tokens: Sequence[Tokens]) -> list[Row]:
        """Returns what the model writes for each row of one batch; their parameters must be alike."""
        self.model.eval()
        return search(self.model, tokens, self.pad_id)

    def split(
        self, features: Features, *, stop: Callable[[], bool] = lambda: False
    ) -> tuple[list[Encoded], list[Answer]] | None:
        """Returns the examples of a split and what the model makes of their targets."""
        self.model.eval()
        encoded = [features.encoded(i) for i in range(len(features.examples))]
        targets = [features[i][1]["labels"].tolist() for i in range(len(encoded))]
        lengths = [len(one.windows[0]) + len(ids) for one, ids in zip(encoded, targets, strict=True)]
        answers: list[Answer] = [[]] * len(encoded)
        for batch in batches_by_length(lengths, self.tokens_at_once):
            if stop():
                return None
            rows = score_targets(
                self.model, [encoded[i].windows[0] for i in batch], [targets[i] for i in batch], self.pad_id
            )
            for i, row in zip(batch, rows, strict=True):
                answers[i] = [row]
        return encoded, answers


def settle_search(model: Any, parameters: Mapping[str, float]) -> None:
    """Lets `model.generate()` do by default what a request that says nothing gets."""
    config = model.generation_config
    for name, value in parameters.items():
        setattr(config, name, value)
    config.max_length = config.min_length = None
    config.do_sample, config.temperature, config.top_k, config.top_p = False, None, None, None
    if parameters["num_beams"] == 1:
        # transformers saves no config that asks a greedy search when its beams are to stop.
        config.early_stopping = False
