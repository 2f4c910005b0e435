"""The golden proof: what passes, what does not, and which figure is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.errors import NotReady
from services.gateway import proving
from services.gateway.batching import Batcher, BatchLimits, Inferred
from services.gateway.shapes import Shapes
from services.tasks import Facts, find_task
from services.tasks.encoding import Tokens

TASK = find_task("text-classification")
FACTS = Facts(("bad", "fair", "good"))
LOGITS = np.random.default_rng(3).normal(scale=4, size=(32, 3)).astype(np.float32)


class OneTokenEach:
    """Encodes the text "7" as the single token 7."""

    def encode(self, texts: list[str], pairs: list[str]) -> list[Tokens]:
        return [Tokens([int(text)], [0]) for text in texts]


def golden(logits: Any = LOGITS) -> list[models_pb2.GoldenExample]:
    return [models_pb2.GoldenExample(text=str(i), windows=[window(row)]) for i, row in enumerate(logits)]


def window(row: Any) -> models_pb2.GoldenWindow:
    return models_pb2.GoldenWindow(outputs={"logits": models_pb2.FloatTensor(shape=[3], values=row)})


async def proven(
    answers: Any, precision: job_pb2.Precision.ValueType | None = None, *, reference: Any = LOGITS
) -> dict[str, float]:
    """Proves a model that gives `answers[i]` for the text "i"."""

    async def infer(inputs: Mapping[str, Any], seconds: float | None) -> Inferred:
        return Inferred({"logits": answers[inputs["input_ids"][:, 0]]})

    shapes = Shapes((8,), (), 2048, 8, 64)
    batcher = Batcher(infer, shapes=shapes, limits=BatchLimits(), pad_id=0, subject="m@1")
    verdict = None
    if precision is not None:
        limits = TASK.limits(precision)
        figures = [job_pb2.Figure(name=name, limit=limit) for name, limit in limits.items()]
        verdict = job_pb2.Verdict(precision=precision, figures=figures)
    encoder: Any = OneTokenEach()
    return await proving.prove(
        golden(reference), task=TASK, facts=FACTS, encoder=encoder, batcher=batcher, verdict=verdict
    )


async def test_equal_answers_pass_with_figures_of_zero() -> None:
    figures = await proven(LOGITS, job_pb2.PRECISION_FP32)
    assert set(figures.values()) == {0.0}


async def test_answers_in_another_order_do_not_pass() -> None:
    with pytest.raises(NotReady, match="max_abs_logit_difference"):
        await proven(LOGITS[::-1].copy(), job_pb2.PRECISION_FP32)


async def test_a_single_nan_does_not_pass_even_without_a_certificate() -> None:
    answers = LOGITS.copy()
    answers[5, 1] = np.nan
    for precision in (job_pb2.PRECISION_BF16, None):
        with pytest.raises(NotReady, match="num_nonfinite"):
            await proven(answers, precision)


async def test_another_number_of_labels_does_not_pass() -> None:
    with pytest.raises(NotReady, match=r"\(2,\), the trained model's is \(3,\)"):
        await proven(LOGITS[:, :2].copy(), job_pb2.PRECISION_FP32)


async def test_one_flip_on_a_tie_passes_where_the_difference_is_within_the_limit() -> None:
    """One of 32 is already more than the certificate's rate, which holds over hundreds of examples."""
    reference, answers = LOGITS.copy(), LOGITS.copy()
    reference[4], answers[4] = [1.0, 1.0001, 0.0], [1.0, 0.9999, 0.0]
    figures = await proven(answers, job_pb2.PRECISION_FP32, reference=reference)
    assert figures["label_flip_rate"] == pytest.approx(1 / 32)


async def test_many_flips_do_not_pass_however_small_the_differences() -> None:
    ties = np.zeros_like(LOGITS)
    with pytest.raises(NotReady, match="label_flip_rate"):
        await proven(ties + np.float32([0.0, 1e-4, 0.0]), job_pb2.PRECISION_INT8, reference=ties)


@pytest.mark.parametrize("content", [None, "{", '{"examples": []}'])
def test_without_golden_examples_there_is_no_proof(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "golden.json").write_text(content)
    with pytest.raises(NotReady, match="did not prove itself"):
        proving.read_golden(tmp_path)


def test_golden_examples_are_read_in_order(tmp_path: Path) -> None:
    text = json_format.MessageToJson(models_pb2.GoldenExamples(examples=golden()))
    (tmp_path / "golden.json").write_text(text)
    assert [e.text for e in proving.read_golden(tmp_path)] == [str(i) for i in range(32)]
