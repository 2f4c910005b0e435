"""Encoder-decoders in training: what they learn from, how they are measured, what their checkpoint says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from google.protobuf import json_format

from conch.v1 import models_pb2, tasks_pb2, training_pb2, worker_pb2
from services.errors import InvalidRequest
from services.jobs.reporting import Reporter
from services.jobs.spool import SPOOL, read_spool
from services.trainer.run import run

Spec = tasks_pb2.Text2TextGenerationSpec
PAIR = tasks_pb2.LanguagePair(source="en", target="de")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signs") / "signs.jsonl"
    rows = [{"source": f"fine city {i}", "target": f"{i} dull trip"} for i in range(48)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trained(folder: Path, base: Path, data: Path, spec: Spec, **given: Any) -> training_pb2.TrainingResult:
    quick = {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 8, "max_length": 16, "num_threads": 1}
    order = worker_pb2.WorkOrder(
        job_id="signs",
        attempt=1,
        work_dir=str(folder / "work"),
        output_uri=str(folder / "artifact"),
        training=training_pb2.TrainingSpec(
            task="text2text-generation",
            base_model=str(base),
            dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.25),
            hyperparameters=training_pb2.Hyperparameters(**{**quick, **given}),
            task_spec=tasks_pb2.TaskSpec(text2text_generation=spec),
        ),
    )
    return run(order, Reporter(folder / SPOOL))


@pytest.fixture(scope="module")
def translator(tiny_t5: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a translator was trained."""
    folder = tmp_path_factory.mktemp("translator")
    trained(folder, tiny_t5, data, Spec(language_pairs=[PAIR], max_target_length=8, num_beams=2))
    return folder


def manifest_of(folder: Path) -> models_pb2.CheckpointManifest:
    text = (folder / "artifact" / "manifest.json").read_text()
    return json_format.Parse(text, models_pb2.Manifest()).checkpoint


def test_the_loss_is_that_of_the_model_s_own_head_on_the_held_out_targets(translator: Path) -> None:
    artifact = translator / "artifact"
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(artifact).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    total, count = 0.0, 0
    for line in (artifact / "held_out.jsonl").read_text().splitlines():
        row = json.loads(line)
        labels = tokenizer(text_target=row["target"], return_tensors="pt").input_ids
        assert labels.shape[1] <= 8 or labels[0, -1] == tokenizer.eos_token_id
        if labels.shape[1] > 8:
            labels = torch.cat([labels[:, :7], labels[:, -1:]], dim=1)
        with torch.inference_mode():
            loss = model(**tokenizer(row["text"], return_tensors="pt"), labels=labels).loss
        total, count = total + float(loss) * labels.shape[1], count + labels.shape[1]
    metrics = manifest_of(translator).evaluation.metrics
    assert metrics["loss"] == pytest.approx(total / count, rel=1e-4)
    assert metrics["num_tokens"] == count


def test_the_last_evaluation_alone_scores_texts(translator: Path) -> None:
    metrics = manifest_of(translator).evaluation.metrics
    assert metrics["num_written"] == 12
    assert {"bleu", "chrf", "perplexity", "token_accuracy"} <= set(metrics)
    told = [r.event.evaluation for r in read_spool(translator / SPOOL) if r.event.HasField("evaluation")]
    assert ["bleu" in evaluation.metrics for evaluation in told][-1]
    assert not any("bleu" in evaluation.metrics for evaluation in told[:-1])


def test_golden_examples_are_what_generate_writes_by_its_own_defaults(translator: Path) -> None:
    artifact = translator / "artifact"
    golden = json_format.Parse((artifact / "golden.json").read_text(), models_pb2.GoldenExamples())
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(artifact).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (2, 8)
    assert len(golden.examples) == 12
    for example in golden.examples:
        ids = model.generate(**tokenizer(example.text, return_tensors="pt"))[0][1:].tolist()
        assert list(example.windows[0].outputs["sequences"].values) == ids


def test_a_summarizer_is_scored_by_rouge_and_its_search_settings_replace_the_base_model_s(
    tiny_t5: Path, data: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    transformers.AutoTokenizer.from_pretrained(tiny_t5).save_pretrained(base)
    settings = {
        "num_beams": 4,
        "length_penalty": 2.0,
        "early_stopping": True,
        "min_length": 5,
        "max_length": 9,
    }
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(base)
    result = trained(tmp_path, base, data, Spec(max_target_length=6), max_steps=1)
    assert {"rouge_1", "rouge_2", "rouge_l"} <= set(result.evaluation.metrics)
    saved = transformers.GenerationConfig.from_pretrained(tmp_path / "artifact")
    assert (saved.num_beams, saved.max_new_tokens, saved.length_penalty) == (1, 6, 1.0)
    assert (saved.min_length, saved.max_length) == (None, None)


def test_a_base_model_with_a_tokenizer_for_each_language_is_refused(data: Path, tmp_path: Path) -> None:
    """Marian's two SentencePiece models make no tokenizer.json."""
    base = tmp_path / "marian"
    transformers.MarianConfig(vocab_size=96, d_model=32).save_pretrained(base)
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    for name in ("source.spm", "target.spm", "vocab.json"):
        (base / name).write_text("{}")
    with pytest.raises(InvalidRequest, match=r"spec\.base_model: cannot load") as refused:
        trained(tmp_path, base, data, Spec())
    assert refused.value.reason == "UNREADABLE_BASE_MODEL"


def test_a_trained_checkpoint_is_evaluated_as_it_is(translator: Path, data: Path, tmp_path: Path) -> None:
    spec = Spec(language_pairs=[PAIR], max_target_length=8, num_beams=2)
    result = trained(tmp_path, translator / "artifact", data, spec, evaluate_only=True)
    before = dict(manifest_of(translator).evaluation.metrics)
    assert dict(result.evaluation.metrics) == pytest.approx(before, rel=1e-5)
