"""The classes that load checkpoints: transformers' own and those that it lacks.

Knows their names as tasks give them; knows nothing about tasks.
"""

from typing import Any

import transformers

from services.embedder import Embedder, find_other_pooling

_OURS = {"Embedder": Embedder}


def find_remark(name: str, source: str, config: Any) -> str:
    """Returns what the files of a base model say against `config`, by which class `name` loaded it; or ""."""
    return find_other_pooling(source, config) if name == Embedder.__name__ else ""


def model_class(name: str) -> Any:
    """Returns the class named `name`, whose from_pretrained loads a checkpoint with its task's head."""
    return _OURS.get(name) or getattr(transformers, name)
