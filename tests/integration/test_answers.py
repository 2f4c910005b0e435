"""Question answering from a data file to answers through the real Triton, held against the pipeline."""

import json
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import inference_pb2, job_pb2, models_pb2, training_pb2, worker_pb2
from services.jobs.reporting import Reporter
from services.jobs.spool import SPOOL, read_spool
from services.trainer.run import run as train
from tests import answer_oracle
from tests.contract.gateway.stack import Stack, gateway
from tests.integration.samples import SAMPLES, Bad, Sample
from tests.integration.shipped_tasks import QUICK, Shipped, ship
from tests.integration.triton import started

MODEL = "question-answering"
PEOPLE = ["Ada Byron", "Jürgen Ångström", "Grace Hopper", "電影 太郎"]
CITIES = ["Reykjavík", "Lima", "Antananarivo", "東京"]
FILLER = ["Nothing else happened.", "It rained 🎬 all day.", "The cook's café was shut."]


def passages(folder: Path, num_rows: int) -> Path:
    """Writes questions on contexts of one window or several, one in six without an answer."""
    dice, path = random.Random(3), folder / "passages.jsonl"
    rows = [passage(i, dice) for i in range(num_rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def passage(number: int, dice: random.Random) -> dict[str, Any]:
    person, city = dice.choice(PEOPLE), dice.choice(CITIES)
    sentences = dice.choices(FILLER, k=dice.choice([1, 1, 8]))
    sentences.insert(dice.randrange(len(sentences) + 1), f"{person} flew to {city} on day {number}.")
    context = " ".join(sentences)
    asked, answer = (("Who flew?", person), ("Flew to which city?", city))[number % 2]
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    if number % 6 == 5:
        context, answers = context.replace("flew", "did not fly"), {"text": [], "answer_start": []}
    return {"question": asked, "context": context, "answers": answers}


@pytest.fixture(scope="module")
def shipped(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    given = SAMPLES[MODEL]
    sample = Sample(
        write=passages,
        requests=given.requests,
        bad=Bad("AnswerQuestion", None, ""),
        hyperparameters={"num_epochs": 6, "learning_rate": 3e-3},
    )
    home = tmp_path_factory.mktemp("answers")
    return ship(MODEL, sample, tiny_bert, home, home / "repository")


@pytest_asyncio.fixture(scope="module")
async def stack(shipped: Shipped) -> AsyncIterator[Stack]:
    """A gateway that serves the model, which it does only once its golden examples came back right."""
    home = shipped.repository.parent
    with started(home) as triton:
        async with gateway(home, triton.address) as running:
            chosen = models_pb2.WeightedVersion(version=1, weight=1)
            await running.set_route(models_pb2.Route(model=MODEL, versions=[chosen]))
            yield running


async def answers(
    stack: Stack, questions: list[str], contexts: list[str], **more: Any
) -> inference_pb2.AnswerQuestionResponse:
    request = inference_pb2.AnswerQuestionRequest(model=MODEL, questions=questions, contexts=contexts, **more)
    response: inference_pb2.AnswerQuestionResponse = await stack.inference.AnswerQuestion(request, timeout=60)
    return response


async def refusal(call: Any) -> tuple[grpc.StatusCode, list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    detail, status = error_details_pb2.BadRequest(), rpc_status.from_call(caught.value)
    assert status is not None
    assert any(part.Unpack(detail) for part in status.details)
    return caught.value.code(), [violation.field for violation in detail.field_violations]


async def test_answers_are_those_of_the_pipeline_over_the_checkpoint(stack: Stack, shipped: Shipped) -> None:
    dice = random.Random(9)
    rows = [passage(i, dice) for i in range(40)]
    got = await answers(stack, [r["question"] for r in rows], [r["context"] for r in rows], top_k=3)
    assert max(result.tokens.num_windows for result in got.results) > 2
    for row, result in zip(rows, got.results, strict=True):
        context = row["context"]
        want, null = answer_oracle.ask(
            shipped.checkpoint, row["question"], context, max_length=32, stride=8, top_k=3
        )
        assert [(a.start, a.end) for a in result.answers] == [place for place, _ in want]
        assert [a.score for a in result.answers] == pytest.approx([score for _, score in want], abs=1e-3)
        assert result.no_answer_score == pytest.approx(null, abs=1e-3)
        assert all(context[a.start : a.end] == a.text for a in result.answers)


async def test_the_served_version_is_the_certified_one(stack: Stack) -> None:
    by = (await answers(stack, ["Who flew?"], ["Ada Byron flew."])).served_by
    assert (by.model, by.version, by.uncertified) == (MODEL, 1, False)
    assert by.precision == job_pb2.PRECISION_FP32


async def test_a_model_without_labels_is_evaluated_by_its_answers(shipped: Shipped) -> None:
    metrics = shipped.manifest.evaluation.metrics
    assert set(metrics) == {"exact_match", "f1", "loss", "no_answer_accuracy"}
    assert all(0 <= metrics[name] <= 1 for name in set(metrics) - {"loss"})
    assert list(shipped.manifest.labels) == []
    assert shipped.manifest.task_spec.question_answering.max_answer_tokens == 30


async def test_one_context_serves_all_questions(stack: Stack) -> None:
    context = "Grace Hopper flew to Lima on day 7. " + "Nothing else happened. " * 30
    both = await answers(stack, ["Who flew?", "Flew to which city?"], [context])
    one = await answers(stack, ["Flew to which city?"], [context])
    assert both.results[1].answers[0].text == one.results[0].answers[0].text
    assert both.results[1].no_answer_score == pytest.approx(one.results[0].no_answer_score, abs=1e-5)
    assert not both.results[0].tokens.truncated


async def test_a_threshold_turns_answers_down(stack: Stack) -> None:
    asked = (["Who flew?"], ["Nothing else happened."])
    [kept] = (await answers(stack, *asked)).results
    [refused] = (await answers(stack, *asked, no_answer_threshold=kept.no_answer_score / 2)).results
    assert len(kept.answers) == 1
    assert len(refused.answers) == 0
    assert refused.no_answer_score == pytest.approx(kept.no_answer_score, abs=1e-5)


@pytest.mark.parametrize(
    ("questions", "contexts", "more", "field"),
    [
        (["Who?"], ["a b", "c d"], {}, "contexts"),
        (["Who?", "who " * 40], ["film " * 40], {}, "questions[1]"),
        (["Who?"], [" "], {}, "contexts[0]"),
        ([], ["a b"], {}, "questions"),
        (["Who?"], ["a b"], {"top_k": 101}, "top_k"),
        (["Who?"], ["a b"], {"no_answer_threshold": 1.5}, "no_answer_threshold"),
    ],
)
async def test_what_can_never_be_answered_names_the_field(
    stack: Stack, questions: list[str], contexts: list[str], more: dict[str, Any], field: str
) -> None:
    refused = await refusal(answers(stack, questions, contexts, **more))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, [field])


def test_the_logged_loss_does_not_depend_on_accumulation(tiny_bert: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "config.json").write_text(json.dumps(config))

    # Of equal length: transformers' head has padding in its softmax, so that the loss depends on it a little.
    words = "film plot scene music story actor night house river paper".split()
    rows = [
        {
            "question": "who was it",
            "context": f"the {a} and the {b}",
            "answer": b,
            "answer_start": 13 + len(a),
        }
        for a in words
        for b in words
    ]
    data = tmp_path / "equal.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def losses(name: str, **more: Any) -> list[float]:
        folder = tmp_path / name
        folder.mkdir()
        order = worker_pb2.WorkOrder(
            job_id=name,
            attempt=1,
            work_dir=str(folder / "work"),
            output_uri=str(folder / "artifact"),
            training=training_pb2.TrainingSpec(
                task=MODEL,
                base_model=str(base),
                dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.3),
                hyperparameters=training_pb2.Hyperparameters(**{**QUICK, **more}),
            ),
        )
        train(order, Reporter(folder / SPOOL))
        events = [report.event for report in read_spool(folder / SPOOL) if report.HasField("event")]
        return [e.training_step.loss for e in events if e.HasField("training_step")]

    at_once = losses("at-once", batch_size=16)
    in_parts = losses("in-parts", batch_size=4, gradient_accumulation_steps=4)
    assert len(at_once) > 4
    assert in_parts == pytest.approx(at_once, rel=0.01)
