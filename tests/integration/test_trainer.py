"""The trainer's worker from order to artifact, on small models: what it leaves, survives and refuses."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
from watchfiles import watch

from conch.v1 import job_pb2, models_pb2, training_pb2, worker_pb2
from services import storage
from services.errors import Cancelled, InvalidRequest
from services.jobs.reporting import Reporter
from services.jobs.spool import SPOOL, read_spool
from services.tasks.encoding import Encoder, pad
from services.trainer.run import run

ROOT = Path(__file__).resolve().parents[2]
# Small and quick, but enough steps for several checkpoints.
QUICK: dict[str, Any] = {
    "num_epochs": 2,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "evaluations_per_epoch": 2,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 made-up opinions of 3 to 60 words that a small model can tell apart."""
    rng, path = random.Random(5), tmp_path_factory.mktemp("opinions") / "train.jsonl"
    words = {"good": ["fine", "lovely", "great"], "bad": ["dull", "awful", "poor"]}
    filler = "the film a story with an actor and some scenes that were long".split()
    with path.open("w") as file:
        for i in range(160):
            label = ("good", "bad")[i % 2]
            text = [rng.choice(filler + 2 * words[label]) for _ in range(rng.choice([3, 9, 60]))]
            row = {"text": f"{i} {rng.choice(words[label])} {' '.join(text)}", "label": label}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def still_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout: its loss is a function of its weights and its batch."""
    return derived(
        tiny_bert, tmp_path_factory.mktemp("still"), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def derived(base: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(base, folder, dirs_exist_ok=True)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | config))
    return folder


def order_for(
    folder: Path, data: Path, base: Path, *, attempt: int = 1, **hyperparameters: Any
) -> worker_pb2.WorkOrder:
    return worker_pb2.WorkOrder(
        job_id="opinions",
        attempt=attempt,
        work_dir=str(folder / "work"),
        output_uri=str(folder / "artifact"),
        training=training_pb2.TrainingSpec(
            task="text-classification",
            base_model=str(base),
            dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.25),
            hyperparameters=training_pb2.Hyperparameters(**{**QUICK, **hyperparameters}),
        ),
    )


def events(spool: Path, kind: str = "") -> list[Any]:
    """Returns what was reported so far, or one kind of it."""
    found = [report.event for report in read_spool(spool) if report.HasField("event")]
    return [getattr(e, kind) for e in found if e.HasField(kind)] if kind else found


def trained(folder: Path, *args: Any, **kwargs: Any) -> training_pb2.TrainingResult:
    return run(order_for(folder, *args, **kwargs), Reporter(folder / SPOOL))


# What a run leaves


@pytest.fixture(scope="module")
def finished(
    opinions: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, training_pb2.TrainingResult]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, trained(
        folder, opinions, tiny_bert, num_epochs=4, learning_rate=5e-3, early_stopping_patience=0
    )


Finished = tuple[Path, training_pb2.TrainingResult]


def test_a_run_learns_and_says_how_well(finished: Finished) -> None:
    folder, result = finished
    assert result.evaluation.split == "validation"
    assert result.evaluation.num_examples == 40
    assert result.evaluation.metrics["accuracy"] > 0.8
    assert result.evaluation in events(folder / SPOOL, "evaluation")


def test_the_manifest_says_what_the_checkpoint_is_and_where_it_came_from(finished: Finished) -> None:
    _, result = finished
    manifest, digest = storage.read_manifest(result.checkpoint_uri)
    content = manifest.checkpoint
    assert digest == result.checkpoint_digest
    assert (content.task, list(content.labels)) == ("text-classification", ["bad", "good"])
    assert (content.training_job, content.num_train_examples, content.seed) == ("opinions", 120, 42)
    assert content.evaluation == result.evaluation
    assert len(content.train_digest) == len(content.validation_digest) == 64
    assert {"torch", "transformers", "tokenizers", "python"} <= set(content.libraries)
    names = {file.path for file in manifest.files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "golden.json", "held_out.jsonl"} <= names


def test_transformers_loads_the_checkpoint_and_gives_the_reported_accuracy(finished: Finished) -> None:
    _, result = finished
    classify = pipeline("text-classification", model=result.checkpoint_uri, device="cpu")
    rows = [json.loads(line) for line in (Path(result.checkpoint_uri) / "held_out.jsonl").open()]
    answers = classify([row["text"] for row in rows], truncation=True)
    hits = sum(answer["label"] == row["target"] for answer, row in zip(answers, rows, strict=True))
    assert hits / len(rows) == pytest.approx(result.evaluation.metrics["accuracy"])


def test_golden_examples_are_the_models_own_answers_to_held_out_texts(finished: Finished) -> None:
    _, result = finished
    folder = Path(result.checkpoint_uri)
    golden = json_format.Parse((folder / "golden.json").read_text(), models_pb2.GoldenExamples())
    held_out = {json.loads(line)["text"] for line in (folder / "held_out.jsonl").open()}
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoder = Encoder.from_file(folder / "tokenizer.json", 128)
    assert len(golden.examples) == 32
    for example in golden.examples:
        assert example.text in held_out
        [tokens] = encoder.encode([example.text])
        inputs = {k: torch.from_numpy(v) for k, v in pad([tokens], len(tokens), 0).items()}
        with torch.no_grad():
            logits = model(**inputs).logits[0].numpy()
        assert list(example.windows[0].outputs["logits"].shape) == [2]
        np.testing.assert_allclose(example.windows[0].outputs["logits"].values, logits, atol=1e-6)


def test_a_length_beyond_the_models_positions_is_clamped_and_said(finished: Finished) -> None:
    folder, result = finished
    assert "MAX_LENGTH_CLAMPED" in [w.reason for w in events(folder / SPOOL, "warning")]
    manifest, _ = storage.read_manifest(result.checkpoint_uri)
    assert manifest.checkpoint.max_length == 128
    assert AutoTokenizer.from_pretrained(result.checkpoint_uri).model_max_length == 128


def test_events_tell_the_run_from_stage_to_artifact(finished: Finished) -> None:
    folder, result = finished
    stages = events(folder / SPOOL, "stage_started")
    assert [(s.name, s.index, s.num_stages) for s in stages] == [
        (name, i + 1, 5) for i, name in enumerate(["data", "model", "train", "evaluate", "write"])
    ]
    steps = events(folder / SPOOL, "training_step")
    assert [s.step for s in steps] == list(range(1, 61))
    assert all(s.num_steps == 60 and s.loss > 0 and s.examples_per_second > 0 for s in steps)
    assert steps[-1].epoch == 4
    assert steps[-1].loss < steps[0].loss
    assert [c.step for c in events(folder / SPOOL, "checkpoint_saved")] == [8, 16, 24, 32, 40, 48, 56, 60]
    [artifact] = events(folder / SPOOL, "artifact_written")
    assert (artifact.uri, artifact.digest) == (result.checkpoint_uri, result.checkpoint_digest)


def test_a_rerun_after_the_artifact_was_complete_gives_the_same_result(
    finished: Finished, opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    folder, result = finished
    again = run(order_for(folder, opinions, tiny_bert, attempt=2), Reporter(tmp_path / SPOOL))
    assert again == result
    assert events(tmp_path / SPOOL) == []


def test_the_best_checkpoint_is_what_is_kept(opinions: Path, tiny_bert: Path, tmp_path: Path) -> None:
    # Nothing is learned, so no evaluation beats the first and patience runs out.
    result = trained(
        tmp_path, opinions, tiny_bert, learning_rate=1e-9, early_stopping_patience=2, num_epochs=9
    )
    assert [e.step for e in events(tmp_path / SPOOL, "evaluation")] == [8, 16, 24]
    assert result.evaluation.step == 8
    shutil.rmtree(tmp_path / "artifact")
    again = run(order_for(tmp_path, opinions, tiny_bert, attempt=2), Reporter(tmp_path / "second"))
    assert events(tmp_path / "second", "training_step") == []
    assert again.evaluation == result.evaluation


def test_pairs_are_trained_on_as_pairs(still_bert: Path, tmp_path: Path) -> None:
    rows = [
        {"premise": f"{i} first", "hypothesis": word, "label": i % 2}
        for i, word in enumerate(["same", "other"] * 20)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = trained(tmp_path, data, still_bert, num_epochs=1)
    golden = json_format.Parse((tmp_path / "artifact/golden.json").read_text(), models_pb2.GoldenExamples())
    assert {e.text_pair for e in golden.examples} == {"same", "other"}
    assert result.evaluation.num_examples == 10


# How it trains


def losses(folder: Path, *args: Any, **kwargs: Any) -> list[float]:
    trained(folder, *args, **kwargs)
    return [step.loss for step in events(folder / SPOOL, "training_step")]


HEADS = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "roberta": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_logged_loss_does_not_depend_on_accumulation(
    opinions: Path, tiny_bert: Path, tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
    base = tmp_path / "base"
    config = AutoConfig.for_model(kind, vocab_size=30522, max_position_embeddings=130, **sizes, **HEADS[kind])
    AutoModel.from_config(config).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(base)
    quick = {"num_epochs": 1, "evaluations_per_epoch": 1, "max_length": 16}
    at_once = losses(tmp_path / "a", opinions, base, batch_size=16, **quick)
    in_parts = losses(tmp_path / "b", opinions, base, batch_size=4, gradient_accumulation_steps=4, **quick)
    assert len(at_once) == 8
    assert in_parts == pytest.approx(at_once, abs=2e-4)


def test_bf16_steps_learn_like_fp32_steps(opinions: Path, still_bert: Path, tmp_path: Path) -> None:
    fp32 = losses(tmp_path / "a", opinions, still_bert, num_epochs=1)
    bf16 = losses(tmp_path / "b", opinions, still_bert, num_epochs=1, precision=job_pb2.PRECISION_BF16)
    assert bf16 == pytest.approx(fp32, abs=0.02)
    said = [w.reason for w in events(tmp_path / "b" / SPOOL, "warning")]
    assert (bf16 == fp32) is ("BF16_UNSUPPORTED" in said)


def test_equal_seeds_train_equal_models_and_max_steps_is_kept(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    first, second, other = (
        losses(tmp_path / name, opinions, tiny_bert, seed=seed, max_steps=6)
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert first == second != other
    assert len(first) == 6


# What it survives


def spawn(folder: Path, order: worker_pb2.WorkOrder) -> tuple[subprocess.Popen[bytes], Path]:
    attempt = folder / f"attempt-{order.attempt}"
    attempt.mkdir()
    (attempt / "order.json").write_text(json_format.MessageToJson(order))
    command = [sys.executable, "-m", "services.trainer.run", str(attempt / "order.json")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (attempt / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, env=environment)
    return process, attempt / SPOOL


def wait_for(spool: Path, seen: Callable[[], bool]) -> None:
    for _ in watch(spool.parent, rust_timeout=200, yield_on_timeout=True, debounce=50, step=20):
        if seen():
            return


def test_a_killed_worker_goes_on_from_its_last_whole_checkpoint_to_the_same_model(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    def order(folder: Path, attempt: int) -> worker_pb2.WorkOrder:
        return order_for(
            folder, opinions, tiny_bert, attempt=attempt, num_epochs=5, early_stopping_patience=0
        )

    killed, spool = spawn(tmp_path, order(tmp_path, 1))
    wait_for(spool, lambda: len(events(spool, "checkpoint_saved")) >= 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    saved = events(spool, "checkpoint_saved")[-1].step
    shutil.copytree(
        tmp_path / f"work/checkpoints/checkpoint-{saved}", tmp_path / "work/checkpoints/checkpoint-74"
    )
    (tmp_path / "work/checkpoints/checkpoint-74/optimizer.pt").unlink()

    second, spool = spawn(tmp_path, order(tmp_path, 2))
    stdout, _ = second.communicate()
    assert (second.returncode, stdout) == (0, b""), (spool.parent / "worker.log").read_text()
    assert read_spool(spool)[-1].outcome.HasField("training")
    steps = [step.step for step in events(spool, "training_step")]
    assert saved < steps[0] <= saved + 2
    assert steps[-1] == 75

    whole = tmp_path / "whole"
    whole.mkdir()
    uninterrupted = run(order(whole, 1), Reporter(whole / SPOOL))
    assert read_spool(spool)[-1].outcome.training.evaluation == uninterrupted.evaluation
    mine, theirs = (load_file(f / "artifact/model.safetensors") for f in (tmp_path, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class CancelledAt(Reporter):
    """Is cancelled as soon as the worker reports the event `kind` of `step`."""

    def __init__(self, spool: Path, kind: str, step: int) -> None:
        super().__init__(spool)
        self._kind, self._step = kind, step

    def event(self, **event: Any) -> None:
        super().event(**event)
        if self._kind in event and event[self._kind].step == self._step:
            self.cancel()


def cancelled_run(order: worker_pb2.WorkOrder, folder: Path, kind: str, step: int) -> list[Any]:
    with pytest.raises(Cancelled):
        run(order, CancelledAt(folder / SPOOL, kind, step))
    assert not (folder / "artifact").exists()
    return events(folder / SPOOL)


def test_a_cancelled_run_writes_a_checkpoint_first_and_could_go_on(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    order = order_for(tmp_path, opinions, tiny_bert)
    [*_, last] = cancelled_run(order, tmp_path, "training_step", 9)
    assert last.checkpoint_saved.step == 10
    assert Path(last.checkpoint_saved.uri, "trainer_state.json").is_file()
    run(order, Reporter(tmp_path / "second"))
    assert [s.step for s in events(tmp_path / "second", "training_step")] == list(range(11, 31))


def test_a_run_cancelled_during_an_evaluation_does_not_wait_for_its_end(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    order = order_for(tmp_path, opinions, tiny_bert)
    [*_, last] = cancelled_run(order, tmp_path, "training_step", 8)
    assert last.checkpoint_saved.step == 8
    assert events(tmp_path / SPOOL, "evaluation") == []


def test_a_resumed_run_remembers_how_long_it_was_patient(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    order = order_for(
        tmp_path, opinions, tiny_bert, learning_rate=1e-9, early_stopping_patience=2, num_epochs=9
    )
    cancelled_run(order, tmp_path, "evaluation", 16)
    result = run(order, Reporter(tmp_path / "second"))
    assert [e.step for e in events(tmp_path / "second", "evaluation")] == [24, 8]
    assert result.evaluation.step == 8


def test_a_run_cancelled_before_it_trains_stops_at_once(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    report = Reporter(tmp_path / SPOOL)
    report.cancel()
    with pytest.raises(Cancelled):
        run(order_for(tmp_path, opinions, tiny_bert), report)
    assert not (tmp_path / "work/checkpoints").exists()


# What it refuses


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidRequest, match="the loss became nan by step 1") as caught:
        trained(tmp_path, opinions, base)
    assert caught.value.reason == "TRAINING_DIVERGED"


def test_bad_data_is_refused_before_the_model_is_touched(tiny_bert: Path, tmp_path: Path) -> None:
    data = tmp_path / "bad.csv"
    data.write_text("text,label\nfine,1\n,0\n")
    with pytest.raises(InvalidRequest, match="row 2: text is empty"):
        trained(tmp_path, data, tiny_bert)
    assert [s.name for s in events(tmp_path / SPOOL, "stage_started")] == ["data"]


def test_a_base_model_without_some_weights_is_warned_of(
    opinions: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1" not in name}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    trained(tmp_path, opinions, base, max_steps=1)
    assert "BASE_MODEL_INCOMPLETE" in [w.reason for w in events(tmp_path / SPOOL, "warning")]
