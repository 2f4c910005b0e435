"""The whole path on one machine: real reviews -> fine-tuned MiniLM -> certified version -> typed answers.

Run by `make demo`. Everything lies in CONCH_HOME/demo; each run ships one more version.
"""

import os
import secrets
import time
from pathlib import Path

from conch.client import Conch as Client
from examples.assets import minilm, movie_reviews
from examples.stack import Conch, running
from services.targets import target_name

MODEL = "sentiment"
TEXTS = (
    "A tender, funny film that I could watch again tomorrow.",
    "A complete waste of time: dull, badly acted and far too long.",
    "The plot is thin, but the music and the actors carry it.",
)
# The least training that is well above 0.80 on held-out reviews, as measured on two cores.
RECIPE = (
    "--max-train-examples 2400 --max-validation-examples 500 --epochs 1 --max-length 128 --batch-size 16 "
    "--learning-rate 1.5e-4 --evaluations-per-epoch 1 --precision bf16"
).split()


def main() -> None:
    """Runs the demo and prints what came out."""
    started = time.monotonic()
    home = Path(os.environ.get("CONCH_HOME", ".conch")).absolute() / "demo"
    data, base = movie_reviews(), minilm()
    with running(home) as conch:
        job = f"demo-{secrets.token_hex(3)}"
        conch.show("ship", str(data), "--model", MODEL, "--base-model", str(base), "--id", job, *RECIPE)
        version = _show_answers(conch)
        accuracy = _accuracy(conch, version)
    seconds = time.monotonic() - started
    print(f"\ndemo ok model={MODEL} version={version} accuracy={accuracy:.4f} seconds={seconds:.0f}")


def _show_answers(conch: Conch) -> int:
    with Client(conch.gateway) as client:
        answer = client.classify(TEXTS, model=MODEL, top_k=1)
    print(f"\nconch.client.Conch({conch.gateway!r}).classify(texts, model={MODEL!r}, top_k=1)")
    for text, result in zip(TEXTS, answer.classifications, strict=True):
        best = result.labels[0]
        print(f"  {best.label}  {best.score:.3f}  {result.tokens.num_tokens:>3} tokens  {text}")
    by = answer.served_by
    target = target_name(by.runtime, by.precision)
    print(f"  served by {by.model}@{by.version} {target} artifact {by.artifact_digest[:12]}")
    return by.version


def _accuracy(conch: Conch, version: int) -> float:
    shown = conch("models", "show", MODEL, "--version", str(version))
    return float(shown["manifest"]["checkpoint"]["evaluation"]["metrics"]["accuracy"])


if __name__ == "__main__":
    main()
