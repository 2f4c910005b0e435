"""The classes that load checkpoints: transformers' own and those that it lacks.

Knows their names as tasks give them; knows nothing about tasks.
"""

from typing import Any

import transformers

from services.embedder import Embedder

_OURS = {"Embedder": Embedder}


def model_class(name: str) -> Any:
    """Returns the class named `name`, whose from_pretrained loads a checkpoint with its task's head."""
    return _OURS.get(name) or getattr(transformers, name)
