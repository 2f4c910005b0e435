"""Fine-tuning: transformers' Trainer with our batches, our evaluation and exact resumption.

Knows the training loop; knows nothing about data files or artifacts.
"""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers.trainer_callback import PrinterCallback

from conch.v1 import job_pb2, training_pb2
from services.jobs.reporting import Reporter
from services.jobs.work import KeptFolders
from services.tasks import Facts, Task
from services.trainer import architectures, contrastive, resume, together
from services.trainer.features import Features, Item, LengthGroupedBatches, collate
from services.trainer.progress import Progress

_LOGGED_STEPS = 50
_LOSSES = {"contrastive": contrastive.loss}
"""The losses that tasks name; the heads of the others compute their own."""


@dataclass(frozen=True)
class Run:
    """Everything that a training run is made of but the model."""

    task: Task
    facts: Facts
    train: Features
    validation: Features
    input_names: list[str]
    pad_id: int
    hyperparameters: training_pb2.Hyperparameters
    kept: KeptFolders
    """Where resumable checkpoints go, and what becomes of them if the machine is lost."""
    report: Reporter

    @property
    def folder(self) -> Path:
        """Where resumable checkpoints go."""
        return self.kept.folder


@dataclass(frozen=True)
class Trained:
    """The best checkpoint's folder and step; its evaluation if this process made it."""

    folder: Path
    step: int
    evaluation: job_pb2.Evaluation | None


def train(model: Any, run: Run) -> Trained:
    """Trains `model`, from the newest whole checkpoint in `run.folder` if there is one.

    Of several processes that train together only the first one has something to return.

    Raises Cancelled once a checkpoint is written, InvalidRequest if the loss is no number any more,
    NotReady(DISK_FULL) if the checkpoints would not fit.
    """
    if run.hyperparameters.evaluate_only:
        return _as_it_is(model, run.folder / "untrained")
    run.kept.restore()
    point = resume.newest(run.folder)
    trainer = FineTuning(model, run)
    together.check_same(point.step if point is not None else 0)
    if point is None or not point.finished:
        resume.check_room(run.folder, num_parameters=model.num_parameters(only_trainable=True))
        trainer.train(resume_from_checkpoint=str(point.folder) if point else None)
        point = resume.newest(run.folder) if together.rank() == 0 else None
    if together.rank() > 0:
        return Trained(run.folder, 0, None)
    assert point is not None, "the Trainer saves at its last step"
    folder = point.best or point.folder
    step = int(folder.name.rpartition("-")[2])
    return Trained(folder, step, trainer.evaluations.get(step))


class FineTuning(transformers.Trainer):
    """The Trainer with batches of like length, fp32 evaluation by the task, and events."""

    def __init__(self, model: Any, run: Run) -> None:
        self._run = run
        self._progress = Progress(run.report)
        self._predict = architectures.predictor(model, run.task, names=run.input_names, pad_id=run.pad_id)
        self.evaluations: dict[int, job_pb2.Evaluation] = {}
        super().__init__(
            model=model,
            args=_arguments(run),
            train_dataset=run.train,
            eval_dataset=run.validation,
            callbacks=_callbacks(run, self._progress),
        )
        self.remove_callback(PrinterCallback)  # it prints to stdout
        # transformers 5.23 takes BERT's **kwargs for a promise to average over the whole step, and
        # then multiplies loss and gradients by the accumulation steps: tests/integration/test_trainer.py.
        self.model_accepts_loss_kwargs = architectures.averages_over_tokens(run.task)

    def get_train_dataloader(self) -> Any:
        """Returns batches of like length, in an order that survives a restart."""
        loader = DataLoader(self._run.train, batch_sampler=_batches(self._run), collate_fn=self._collate)
        return self.accelerator.prepare(loader)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Runs one forward and backward pass; counts its examples for the reported throughput."""
        self._progress.count(_num_items(inputs))
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Returns the loss of the model's own head, or the one that the task names."""
        run = self._run
        if not run.task.loss:
            return super().compute_loss(model, inputs, *args, **kwargs)
        read = {name: inputs[name] for name in run.input_names}
        targets = {name: tensor for name, tensor in inputs.items() if name not in read}
        return _LOSSES[run.task.loss](model, read, targets, run.facts)

    def compute_loss_context_manager(self) -> Any:
        """Returns bf16 autocast where asked for; evaluation stays outside of it and is fp32."""
        if self._run.hyperparameters.precision != job_pb2.PRECISION_BF16:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, torch.bfloat16)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Returns the task's metrics on the validation split and reports them."""
        answered = self._predict.split(self._run.validation, stop=lambda: self._run.report.cancelled)
        unevaluated = together.any_of(answered is None)
        metrics = self._unevaluated() if answered is None or unevaluated else self._evaluated(*answered)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluated(self, encoded: Any, answers: Any) -> dict[str, float]:
        run, step = self._run, self.state.global_step
        evaluation = run.task.evaluate(encoded, answers, run.facts)
        evaluation.split, evaluation.step = "validation", step
        self.evaluations[step] = evaluation
        run.report.event(evaluation=evaluation)
        return {f"eval_{name}": value for name, value in evaluation.metrics.items()}

    def _unevaluated(self) -> dict[str, float]:
        # Cancelled in between: never the best, so that only the checkpoint is written before we stop.
        worst = -math.inf if self._run.task.greater_is_better else math.inf
        return {f"eval_{self._run.task.metric_of(self._run.facts)}": worst}

    def _collate(self, items: list[Item]) -> dict[str, torch.Tensor]:
        return collate(items, self._run.input_names, self._run.pad_id)


def _as_it_is(model: Any, folder: Path) -> Trained:
    model.save_pretrained(str(folder))
    return Trained(folder, 0, None)


def num_steps(run: Run) -> int:
    """Returns how many optimizer steps the run has unless it stops early."""
    return int(run.hyperparameters.max_steps) or max(
        1, math.ceil(run.hyperparameters.num_epochs * _steps_per_epoch(run))
    )


def _num_items(inputs: dict[str, Any]) -> int:
    # Targets have one row an item; inputs have one a window, of which an item may have several.
    return min(len(tensor) for tensor in inputs.values())


def _steps_per_epoch(run: Run) -> int:
    batches = math.ceil(len(_batches(run)) / together.count())
    return math.ceil(batches / run.hyperparameters.gradient_accumulation_steps)


def _batches(run: Run) -> LengthGroupedBatches:
    return LengthGroupedBatches(
        run.train.lengths,
        batch_size=run.hyperparameters.batch_size,
        accumulation=run.hyperparameters.gradient_accumulation_steps,
        seed=run.hyperparameters.seed,
    )


def _callbacks(run: Run, progress: Progress) -> list[transformers.TrainerCallback]:
    patience = run.hyperparameters.early_stopping_patience
    stopping = [transformers.EarlyStoppingCallback(patience)] if patience else []
    return [Keeping(run.kept), progress, *stopping]


class Keeping(transformers.TrainerCallback):
    """Keeps each checkpoint outside of this machine as soon as it is whole, before anyone hears of it."""

    def __init__(self, kept: KeptFolders) -> None:
        self._kept = kept

    def on_save(self, *_: Any, **__: Any) -> None:
        if together.rank() == 0:
            self._kept.keep()


def _without_gpus() -> dict[str, Any]:
    # NCCL, which they would choose, knows no CPUs.
    alone = together.count() == 1 or torch.cuda.is_available()
    return {} if alone else {"use_cpu": True, "ddp_backend": "gloo"}


def _arguments(run: Run) -> transformers.TrainingArguments:
    h, steps = run.hyperparameters, num_steps(run)
    every = math.ceil(_steps_per_epoch(run) / h.evaluations_per_epoch)
    arguments = transformers.TrainingArguments(
        output_dir=str(run.folder),
        max_steps=steps,
        per_device_train_batch_size=h.batch_size,
        gradient_accumulation_steps=h.gradient_accumulation_steps,
        learning_rate=h.learning_rate,
        warmup_steps=math.ceil(h.warmup_ratio * steps),
        weight_decay=h.weight_decay,
        seed=h.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=resume.NUM_KEPT,
        metric_for_best_model=run.task.metric_of(run.facts),
        greater_is_better=run.task.greater_is_better,
        logging_steps=max(1, steps // _LOGGED_STEPS),
        logging_nan_inf_filter=False,  # it would show a diverged run as a healthy one
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        restore_callback_states_from_checkpoint=True,  # or a resumed run forgets how long it was patient
        **_without_gpus(),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several would turn on DataParallel and multiply the batch
    return arguments
