"""The trainer's worker: labelled text in, a fine-tuned checkpoint artifact out.

    python -m services.trainer.run ORDER_JSON

Reads top to bottom like a recipe. Everything that can be wrong with the data or the base model is
found before the first step; a restarted attempt goes on from its last whole checkpoint.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from conch.v1 import job_pb2, training_pb2, worker_pb2
from services.errors import Cancelled
from services.jobs import worker
from services.jobs.reporting import Reporter
from services.jobs.work import KeptFolders
from services.models import find_remark
from services.tasks import Architecture, Facts, Task, find_task
from services.tasks.base import LowRank
from services.tasks.encoding import Encoder
from services.trainer import (
    adaptation,
    architectures,
    base_model,
    checkpoint,
    dataset,
    resume,
    together,
    written_texts,
)
from services.trainer.dataset import Splits
from services.trainer.defaults import with_defaults
from services.trainer.evaluate import Predictor
from services.trainer.features import Features
from services.trainer.train import Run, Trained, train

_NUM_STAGES = 5


def run(order: worker_pb2.WorkOrder, report: Reporter) -> training_pb2.TrainingResult:
    """Does what a training order says and returns what the job leaves.

    Raises InvalidRequest (the data, the base model or the hyperparameters can never work), Cancelled
    (after a checkpoint was written), NotReady (disk full), BackendUnavailable (store or hub away).
    """
    if (written := checkpoint.find_written(order)) is not None:
        return written
    with together.first_ends_last() as wait_for_first:
        return _run(order, report, wait_for_first)


def _run(
    order: worker_pb2.WorkOrder, report: Reporter, wait_for_first: together.Wait
) -> training_pb2.TrainingResult:
    spec = with_defaults(order.training)
    task = find_task(spec.task, field="spec.task")
    work = together.own_folder(Path(order.work_dir))
    _prepare_process(spec.hyperparameters)
    _settle_precision(spec.hyperparameters, report)

    report.stage("data", 1, _NUM_STAGES)
    splits = dataset.load(spec, task, scratch=work / "data", report=report)

    report.stage("model", 2, _NUM_STAGES)
    source = base_model.locate(spec.base_model, work / "base")
    encoder, facts = _encoder(source, spec, task, splits.facts, work / "tokenizer", report)
    splits = replace(splits, facts=facts, train=[] if spec.hyperparameters.evaluate_only else splits.train)
    model = _model(source, task, splits.facts, spec.hyperparameters, report)
    if remark := find_remark(task.auto_model, source, model.config):
        report.warning("BASE_MODEL_DIFFERS", remark)
    kept = KeptFolders(work / "checkpoints", order.work_uri, last=resume.STATE)
    plan = _plan(model, task, splits, encoder, spec, kept, report)
    _stop_if_cancelled(report)

    report.stage("train", 3, _NUM_STAGES)
    low_rank = None if spec.hyperparameters.evaluate_only else task.low_rank(facts)
    trained = train(adaptation.adapted(model, low_rank), plan)
    if together.rank() > 0:
        wait_for_first(lambda: report.cancelled)
        return training_pb2.TrainingResult()

    report.stage("evaluate", 4, _NUM_STAGES)
    model = _trained_model(source, trained, task, facts, low_rank)
    predict = architectures.predictor(model, task, names=plan.input_names, pad_id=plan.pad_id)
    evaluation = trained.evaluation or _evaluate(predict, plan, trained)
    written_texts.add_scores(evaluation, plan, predict, encoder)
    examples = architectures.golden_examples(plan.validation, predict, task, encoder=encoder, facts=facts)

    report.stage("write", 5, _NUM_STAGES)
    content = checkpoint.Content(model, work / "tokenizer", examples, splits, encoder.max_length, evaluation)
    result = checkpoint.write(content, order, spec, task, scratch=work / "artifact")
    report.event(
        artifact_written=job_pb2.ArtifactWritten(
            kind="checkpoint", uri=result.checkpoint_uri, digest=result.checkpoint_digest
        )
    )
    return result


def _prepare_process(h: training_pb2.Hyperparameters) -> None:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    num_threads = together.num_threads(h.num_threads or len(os.sched_getaffinity(0)))
    torch.set_num_threads(num_threads)
    # Without it accelerate chooses another number as machines begin to train together.
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    transformers.set_seed(h.seed)


def _settle_precision(h: training_pb2.Hyperparameters, report: Reporter) -> None:
    # Where bf16 has to be emulated it is many times slower than fp32, and speed is all it is asked for.
    if h.precision == job_pb2.PRECISION_BF16 and not _computes_bf16():
        report.warning("BF16_UNSUPPORTED", "this CPU has no bf16 instructions: training computes in fp32")
        h.precision = job_pb2.PRECISION_FP32


def _computes_bf16() -> bool:
    able = torch.cpu.get_capabilities()
    named = ("avx512_bf16", "amx_bf16", "bf16")
    return torch.cuda.is_available() or any(able.get(name, False) for name in named)


def _encoder(
    source: str,
    spec: training_pb2.TrainingSpec,
    task: Task,
    facts: Facts,
    folder: Path,
    report: Reporter,
) -> tuple[Encoder, Facts]:
    config = base_model.load_config(source)
    max_length, limit = int(spec.hyperparameters.max_length), base_model.position_limit(config)
    if max_length > limit:
        message = f"max_length {max_length} is more than the model can read: {limit} tokens are used"
        report.warning("MAX_LENGTH_CLAMPED", message)
        max_length = limit
    special = base_model.save_tokenizer(
        source,
        folder,
        max_length=max_length,
        pads_with_eos=task.architecture is Architecture.DECODER,
        chat_template=facts.spec.text_generation.chat_template,
    )
    base_model.check_vocabulary(folder, config)
    return Encoder.from_file(folder / "tokenizer.json", max_length), task.with_special_tokens(facts, special)


def _model(source: str, task: Task, facts: Facts, h: training_pb2.Hyperparameters, report: Reporter) -> Any:
    if h.evaluate_only:
        return architectures.settle_writing(base_model.load_trained_model(source, task, facts), task, facts)
    model, fresh = base_model.load_model(source, task, facts)
    if fresh:
        message = f"{len(fresh)} weights below the head are not in the base model and start fresh: {fresh[0]}"
        report.warning("BASE_MODEL_INCOMPLETE", message + (", ..." if len(fresh) > 1 else ""))
    return architectures.settle_writing(model, task, facts)


def _trained_model(source: str, trained: Trained, task: Task, facts: Facts, low_rank: LowRank | None) -> Any:
    if low_rank is None:
        return base_model.load_model(str(trained.folder), task, facts)[0]
    return adaptation.merged(base_model.load_model(source, task, facts)[0], trained.folder)


def _plan(
    model: Any,
    task: Task,
    splits: Splits,
    encoder: Encoder,
    spec: training_pb2.TrainingSpec,
    kept: KeptFolders,
    report: Reporter,
) -> Run:
    train_split = Features(splits.train, task, encoder, splits.facts)
    validation = Features(splits.validation, task, encoder, splits.facts)
    if cut := train_split.num_truncated:
        message = (
            f"{cut} of {len(splits.train)} training texts are longer than {encoder.max_length} tokens and cut"
        )
        report.warning("TEXTS_TRUNCATED", message)
    return Run(
        task=task,
        facts=splits.facts,
        train=train_split,
        validation=validation,
        input_names=base_model.input_names(model, task),
        pad_id=encoder.pad_id,
        hyperparameters=spec.hyperparameters,
        kept=kept,
        report=report,
    )


def _evaluate(predict: Predictor, plan: Run, trained: Trained) -> job_pb2.Evaluation:
    answered = predict.split(plan.validation, stop=lambda: plan.report.cancelled)
    if answered is None:
        raise Cancelled("stopped during the last evaluation", reason="CANCELLED")
    evaluation = plan.task.evaluate(*answered, plan.facts)
    evaluation.split, evaluation.step = "validation", trained.step
    plan.report.event(evaluation=evaluation)
    return evaluation


def _stop_if_cancelled(report: Reporter) -> None:
    if report.cancelled:
        raise Cancelled("stopped before the first step", reason="CANCELLED")


if __name__ == "__main__":
    worker.main(run)
