"""What the end-to-end tests share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shipped:
    """What `conch ship` made: MiniLM fine-tuned on real reviews, as version 1 of "sentiment"."""

    result: dict[str, Any]
    checkpoint: Path
    versions: Path
