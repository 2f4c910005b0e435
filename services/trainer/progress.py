"""What a training run tells while it goes on, and its ear for cancellation.

Knows transformers' callbacks and the Reporter; knows nothing about models.
"""

import math
import time
from pathlib import Path
from typing import Any

from google.protobuf import duration_pb2
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conch.v1 import job_pb2
from services.errors import Cancelled, InvalidRequest
from services.jobs.reporting import Reporter
from services.trainer import together


class Progress(TrainerCallback):
    """Reports steps and checkpoints; when the job is cancelled, saves after the step at hand and stops."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._num_examples = 0
        self._busy_seconds = 0.0
        self._step_began = self._train_began = time.monotonic()
        self._first_step = 0
        self._stopping = False

    def count(self, num_examples: int) -> None:
        """Counts examples that went through the model."""
        self._num_examples += num_examples

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._train_began, self._first_step = time.monotonic(), state.global_step

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._step_began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._busy_seconds += time.monotonic() - self._step_began
        if state.global_step >= state.max_steps:
            control.should_log = True
        self._stopping = together.any_of(self._report.cancelled)
        if self._stopping:
            control.should_save, control.should_evaluate = True, False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        _check_finite(logs["loss"], state.global_step)
        self._report.event(training_step=self._training_step(state, logs))
        self._num_examples, self._busy_seconds = 0, 0.0

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        saved = job_pb2.CheckpointSaved(step=state.global_step, uri=str(folder))
        self._report.event(checkpoint_saved=saved)
        # One that was asked to stop since may only stop where all do, after the next step.
        if self._stopping or (together.count() == 1 and self._report.cancelled):
            raise Cancelled(f"stopped after step {state.global_step}", reason="CANCELLED")

    def _training_step(self, state: TrainerState, logs: dict[str, float]) -> job_pb2.TrainingStep:
        return job_pb2.TrainingStep(
            step=state.global_step,
            num_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            examples_per_second=self._num_examples / max(self._busy_seconds, 1e-9),
            time_remaining=self._time_remaining(state),
        )

    def _time_remaining(self, state: TrainerState) -> duration_pb2.Duration:
        # By the clock, not by busy time: evaluations in between take their share of what remains.
        pace = (time.monotonic() - self._train_began) / max(1, state.global_step - self._first_step)
        remaining = duration_pb2.Duration()
        remaining.FromMilliseconds(round(1000 * pace * (state.max_steps - state.global_step)))
        return remaining


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise InvalidRequest.field(
            "spec.hyperparameters.learning_rate",
            f"the loss became {loss} by step {step}: training diverged, use a lower learning rate",
            reason="TRAINING_DIVERGED",
        )
