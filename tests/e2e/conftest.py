"""One Conch for all end-to-end tests: `conch up` with a real Triton, and a model shipped through it."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.assets import minilm
from examples.stack import Conch, running
from tests.e2e import samples
from tests.e2e.shipped import Shipped
from tests.integration.samples import SAMPLES


@pytest.fixture(scope="session")
def conch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conch]:
    """Triton on onnxruntime and the three services."""
    with running(tmp_path_factory.mktemp("home"), runtime="onnxruntime") as conch:
        yield conch


@pytest.fixture(scope="session")
def sentiment(conch: Conch, reviews: Path) -> Shipped:
    """A served version in fp32 with 500 held-out reviews."""
    recipe = "--epochs 1 --max-length 64 --batch-size 8 --learning-rate 2e-4 --evaluations-per-epoch 1"
    sample = "--validation-fraction 0.4 --max-train-examples 480 --max-validation-examples 500"
    proof = "--precision bf16 --parity-examples 200"
    result = conch(
        "ship", str(reviews), "--model", "sentiment", "--base-model", str(minilm()), "--id", "sentiment-1",
        *recipe.split(), *sample.split(), *proof.split(),
    )  # fmt: skip
    return Shipped(
        result=result,
        checkpoint=conch.home / "artifacts" / "training" / "sentiment-1",
        versions=conch.home / "model_repository" / "sentiment",
    )


@pytest.fixture(scope="session")
def ship(
    request: pytest.FixtureRequest, conch: Conch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Ships a task's sample when it is first asked for, as a model named `held-out-<task>`."""

    @functools.cache
    def run(task: str) -> Path:
        base = request.getfixturevalue(SAMPLES[task].base)
        return samples.ship(conch, task, base, tmp_path_factory.mktemp(task))

    return run
