"""The model under test: MiniLM fine-tuned on reviews, as fp32 (version 1) and int8 (version 2).

Shipped once into CONCH_HOME/bench through the command line, then used again.
"""

import os
from pathlib import Path

from examples.assets import minilm, movie_reviews
from examples.stack import Conch, running

MODEL = "sentiment"
FP32, INT8 = 1, 2
MAX_LENGTH = 256
_RECIPE = (
    "--max-train-examples 1600 --max-validation-examples 500 --epochs 1 --learning-rate 1.5e-4 "
    "--evaluations-per-epoch 1 --precision bf16 "
    f"--max-length {MAX_LENGTH}"
)
# Speed is under test here; how true int8 is to fp32 is the certificate's business and stays in it.
_LIMITS = "--limit label_flip_rate=0.2 --limit accuracy_drop=0.2 --limit max_abs_logit_difference=10"


def home() -> Path:
    """Returns the folder in which both versions are routed; makes them if they are not there."""
    folder = Path(os.environ.get("CONCH_HOME", ".conch")).absolute() / "bench-classification"
    if not (folder / "prepared").exists():
        with running(folder, runtime="onnxruntime") as conch:
            _ship(conch)
        (folder / "prepared").touch()
    return folder


def version_folder(version: int) -> Path:
    """Returns the published folder of a version."""
    return home() / "model_repository" / MODEL / str(version)


def _ship(conch: Conch) -> None:
    source = ("--base-model", str(minilm()), *_RECIPE.split())
    conch("ship", str(movie_reviews()), "--model", MODEL, "--id", "bench", *source)
    checkpoint = conch.home / "artifacts" / "training" / "bench"
    targets = "--target onnxruntime=int8 --target openvino=bf16"
    conch("convert", str(checkpoint), "--model", MODEL, *targets.split(), *_LIMITS.split())
    conch("route", MODEL, f"{FP32}=1", f"{INT8}=0")
