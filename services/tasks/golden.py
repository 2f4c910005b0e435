"""Golden examples: held-out texts with the trained model's own answers, as messages and as arrays.

Knows how they are written down; how they are chosen is the trainer's, what they prove the gateway's.
"""

from collections.abc import Iterable

import numpy as np

from conch.v1 import models_pb2
from services.tasks.example import Encoded, Example
from services.tasks.tensors import Answer, Row


def golden_example(encoded: Encoded, answer: Answer) -> models_pb2.GoldenExample:
    """Returns an example with the model's answer to it, as golden.json holds it."""
    return models_pb2.GoldenExample(
        text=encoded.example.text,
        text_pair=encoded.example.text_pair,
        windows=[_window(row) for row in answer],
    )


def golden_answers(
    golden: Iterable[models_pb2.GoldenExample],
) -> tuple[list[Example], list[Answer]]:
    """Returns golden examples, without targets, and the trained model's answers to them.

    Raises ValueError if a tensor's values do not fill its shape.
    """
    found = list(golden)
    examples = [Example(e.text, e.text_pair, None, row) for row, e in enumerate(found, start=1)]
    return examples, [[_row(window) for window in e.windows] for e in found]


def _window(row: Row) -> models_pb2.GoldenWindow:
    tensors = {
        name: models_pb2.FloatTensor(shape=value.shape, values=value.ravel()) for name, value in row.items()
    }
    return models_pb2.GoldenWindow(outputs=tensors)


def _row(window: models_pb2.GoldenWindow) -> Row:
    return {
        name: np.array(tensor.values, dtype=np.float32).reshape(list(tensor.shape))
        for name, tensor in window.outputs.items()
    }
