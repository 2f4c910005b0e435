"""What differs between architectures in training: how a split is answered, and what golden examples hold.

Knows which module does it for which; knows nothing about tasks.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conch.v1 import models_pb2
from services.tasks import Architecture, Facts, Task
from services.tasks.encoding import Encoder
from services.trainer import golden, golden_texts
from services.trainer.evaluate import Predictor
from services.trainer.features import Features
from services.trainer.perplexity import Perplexities
from services.trainer.sequences import Sequences, settle_search

_PREDICTORS: dict[Architecture, type[Predictor]] = {
    Architecture.DECODER: Perplexities,
    Architecture.ENCODER_DECODER: Sequences,
}


def predictor(model: Any, task: Task, *, names: Sequence[str], pad_id: int) -> Predictor:
    """Returns what answers splits with `model`; `names` are the inputs that it takes."""
    kind = _PREDICTORS.get(task.architecture, Predictor)
    return kind(model, task, names=names, pad_id=pad_id)


def golden_examples(
    validation: Features, predict: Predictor, task: Task, *, encoder: Encoder, facts: Facts
) -> models_pb2.GoldenExamples:
    """Returns a few held-out examples with the model's own answers."""
    chosen = golden.choose_golden(validation.examples, validation.example_lengths, task)
    if task.architecture is Architecture.DECODER:
        examples = [validation.examples[i] for i in chosen]
        return golden_texts.golden_texts(examples, predict.model, encoder, facts)
    # As requests bring them: what a target adds to an example is not there then.
    bare = [replace(validation.examples[i], target=None) for i in chosen]
    return golden.golden_examples(task.encode(encoder, bare, facts), predict)


def settle_writing(model: Any, task: Task, facts: Facts) -> Any:
    """Returns `model`; if it writes texts of texts, its own defaults for that are its task's."""
    if task.architecture is Architecture.ENCODER_DECODER:
        settle_search(model, task.default_parameters(facts))
    return model


def averages_over_tokens(task: Task) -> bool:
    """Returns whether the loss is a mean over all tokens of an optimizer step, if told their number."""
    return task.architecture is Architecture.DECODER
