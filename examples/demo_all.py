"""Every task on one machine, from real text to typed answers: `make demo-all`.

One Conch is started; each task is shipped through it and asked. Prints one line a task. Weights and texts
are fetched by package name once; where no trained weights exist (translation, summaries) a small model is
trained from scratch, and its figures are what minutes of training give.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.client import Conch as Client
from examples import recipes
from examples.recipes import Recipe
from examples.stack import Conch, running


@dataclass(frozen=True)
class Outcome:
    """What came of one task."""

    metric: str
    version: int
    answer: str


def main() -> int:
    """Ships and asks every task; returns the exit status, 1 if one failed."""
    home = Path(os.environ.get("CONCH_HOME", ".conch")).absolute() / "demo-all"
    wanted = sys.argv[1:] or list(recipes.RECIPES)
    failed = 0
    with running(home) as conch, Client(conch.gateway, timeout_seconds=120) as client:
        for name in wanted:
            failed += not _shown(name, lambda name=name: _run(recipes.RECIPES[name], name, conch, client))  # type: ignore[misc]
    return int(failed > 0)


def _run(recipe: Recipe, name: str, conch: Conch, client: Client) -> Outcome:
    arguments = recipe.arguments()
    shipped = conch("ship", *arguments, "--task", recipe.task, "--model", name)
    version = int(shipped["conversionJob"]["result"]["version"])
    return Outcome(_metric(recipe, shipped), version, recipe.ask(client, name))


def _metric(recipe: Recipe, shipped: dict[str, Any]) -> str:
    metrics = shipped["trainingJob"]["result"]["evaluation"]["metrics"]
    return f"{recipe.metric}:{float(metrics[recipe.metric]):.4f}"


def _shown(name: str, run: Callable[[], Outcome]) -> bool:
    started = time.monotonic()
    try:
        outcome = run()
    except Exception as error:
        print(f"demo {name} FAILED {type(error).__name__}: {error}", flush=True)
        return False
    seconds = time.monotonic() - started
    print(f"  {name} says: {outcome.answer}")
    print(
        f"demo {name} ok metric={outcome.metric} version={outcome.version} seconds={seconds:.0f}", flush=True
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
