"""Causal language models in training: what is adapted and measured, and what a kill costs."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from google.protobuf import json_format
from safetensors.torch import load_file

from conch.v1 import models_pb2, tasks_pb2, training_pb2, worker_pb2
from services import storage
from services.errors import Cancelled, InvalidRequest
from services.jobs.reporting import Reporter
from services.jobs.spool import SPOOL, read_spool
from services.tasks.base import LowRank
from services.trainer import adaptation
from services.trainer.run import run
from tests import causal_models

Spec = tasks_pb2.TextGenerationSpec
KINDS = {"gpt2": causal_models.save_gpt2, "llama": causal_models.save_llama}


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    causal_models.seeded()
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 short documents as plain text, apart by empty lines."""
    path = tmp_path_factory.mktemp("novel") / "novel.txt"
    path.write_text("\n\n".join(causal_models.documents(64, longest=3)) + "\n")
    return path


def order_for(
    folder: Path, data: Path, base: Path, *, attempt: int = 1, **given: Any
) -> worker_pb2.WorkOrder:
    own = {name: given.pop(name) for name in ("adaptation", "lora_rank", "chat_template") if name in given}
    quick = {"max_steps": 6, "learning_rate": 5e-3, "batch_size": 8, "max_length": 64, "num_threads": 1}
    return worker_pb2.WorkOrder(
        job_id="novel",
        attempt=attempt,
        work_dir=str(folder / "work"),
        output_uri=str(folder / "artifact"),
        training=training_pb2.TrainingSpec(
            task="text-generation",
            base_model=str(base),
            dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.25),
            hyperparameters=training_pb2.Hyperparameters(**{**quick, **given}),
            task_spec=tasks_pb2.TaskSpec(text_generation=Spec(**own)),
        ),
    )


def trained(folder: Path, *args: Any, **kwargs: Any) -> training_pb2.TrainingResult:
    return run(order_for(folder, *args, **kwargs), Reporter(folder / SPOOL))


def losses(folder: Path) -> list[float]:
    found = [r.event for r in read_spool(folder / SPOOL) if r.HasField("event")]
    return [e.training_step.loss for e in found if e.HasField("training_step")]


def golden_of(artifact: Path) -> list[models_pb2.GoldenExample]:
    text = (artifact / "golden.json").read_text()
    return list(json_format.Parse(text, models_pb2.GoldenExamples()).examples)


def test_lora_leaves_a_plain_checkpoint_that_transformers_answers_alike_with(
    base: Path, novel: Path, tmp_path: Path
) -> None:
    result = trained(tmp_path, novel, base)
    artifact = tmp_path / "artifact"
    names = set(load_file(artifact / "model.safetensors"))
    assert names == set(load_file(base / "model.safetensors"))
    assert not list(artifact.glob("adapter*"))
    model = transformers.AutoModelForCausalLM.from_pretrained(artifact).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    golden = golden_of(artifact)
    assert 8 <= len(golden) <= 16
    for example in golden:
        ids = tokenizer(example.text, return_tensors="pt")
        assert ids.input_ids.shape[1] <= 49  # <s> counted
        theirs = model.generate(**ids, max_new_tokens=32, do_sample=False, pad_token_id=0)
        rest = theirs[0, ids.input_ids.shape[1] :]
        assert tokenizer.decode(rest, skip_special_tokens=True) == example.generated
    manifest, _ = storage.read_manifest(str(artifact))
    own = manifest.checkpoint.task_spec.text_generation
    assert (own.adaptation, own.eos_token, own.bos_token) == (Spec.ADAPTATION_LORA, causal_models.EOS, "")
    assert result.evaluation.metrics.keys() == {"loss", "perplexity", "token_accuracy", "num_tokens"}


def test_perplexity_is_that_of_transformers_own_loss(base: Path, novel: Path, tmp_path: Path) -> None:
    result = trained(tmp_path, novel, base, evaluate_only=True)
    artifact = tmp_path / "artifact"
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    texts = [json.loads(line)["text"] for line in (artifact / "held_out.jsonl").open()]
    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text + causal_models.EOS, return_tensors="pt").input_ids
        for start in range(0, ids.shape[1], 64):
            assert start == 0, "all texts fit one window"
            with torch.no_grad():
                total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    assert result.evaluation.metrics["num_tokens"] == count
    assert result.evaluation.metrics["loss"] == pytest.approx(total / count, abs=1e-4)
    before, after = (load_file(f / "model.safetensors") for f in (base, artifact))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", [Spec.ADAPTATION_LORA, Spec.ADAPTATION_FULL])
def test_the_logged_loss_does_not_depend_on_accumulation(
    base: Path, novel: Path, tmp_path: Path, kind: Spec.Adaptation.ValueType
) -> None:
    trained(tmp_path / "a", novel, base, adaptation=kind, batch_size=8)
    trained(tmp_path / "b", novel, base, adaptation=kind, batch_size=2, gradient_accumulation_steps=4)
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), abs=2e-3)
    assert losses(tmp_path / "a")[-1] < losses(tmp_path / "a")[0]


class _CancelledAt(Reporter):
    """Is cancelled once step 3 is reported."""

    def event(self, **event: Any) -> None:
        super().event(**event)
        if "training_step" in event and event["training_step"].step == 3:
            self.cancel()


def test_lora_goes_on_from_a_checkpoint_to_the_same_model(base: Path, novel: Path, tmp_path: Path) -> None:
    (tmp_path / "stopped").mkdir()
    with pytest.raises(Cancelled):
        run(order_for(tmp_path / "stopped", novel, base), _CancelledAt(tmp_path / "stopped" / SPOOL))
    saved = next((tmp_path / "stopped/work/checkpoints").glob("checkpoint-*"))
    assert (saved / adaptation.WEIGHTS).is_file()
    assert not (saved / "model.safetensors").exists()
    # A checkpoint that a kill left half written is none.
    torn = shutil.copytree(saved, saved.with_name("checkpoint-5"))
    (torn / adaptation.WEIGHTS).unlink()
    second = order_for(tmp_path / "stopped", novel, base, attempt=2)
    run(second, Reporter(tmp_path / "stopped" / "second"))
    trained(tmp_path / "whole", novel, base)
    mine, theirs = (load_file(tmp_path / f / "artifact/model.safetensors") for f in ("stopped", "whole"))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_matrices_stand_beside_every_linear_layer_but_the_last(base: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    inside = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and name != "lm_head"
    ]
    adapted = adaptation.adapted(model, LowRank(4, 8.0))
    weights = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(weights) == 2 * len(inside)
    assert all("lora_" in name for name in weights)


def test_conversations_are_trained_on_with_the_template_that_is_given(base: Path, tmp_path: Path) -> None:
    dice, data = random.Random(2), tmp_path / "talks.jsonl"
    talks = [
        [
            {"role": "user", "content": f"{i}? {causal_models.sentence(dice)}"},
            {"role": "assistant", "content": causal_models.sentence(dice)},
        ]
        for i in range(24)
    ]
    data.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    template = causal_models.CHAT_TEMPLATE.replace("<|", "[").replace("|>", "]")
    trained(tmp_path / "run", data, base, max_steps=2, max_length=128, chat_template=template)
    for example in golden_of(tmp_path / "run/artifact"):
        assert example.text.startswith("[user]")
        assert example.text.endswith("[assistant]")
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "run/artifact")
    assert kept.chat_template == template


def test_a_file_without_anything_to_write_is_refused_with_its_columns(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_text('{"review": "x", "label": 1}\n' * 4)
    with pytest.raises(InvalidRequest) as caught:
        trained(tmp_path, data, base)
    assert "text or prompt and completion or messages" in caught.value.violations[0].description
