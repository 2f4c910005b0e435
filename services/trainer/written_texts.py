"""The last evaluation's scores of whole texts that the trained model writes by itself.

Knows which examples and when; how texts are written is the predictor's, how scored `text_scores`'.
"""

import random
from collections.abc import Iterator, Sequence

from conch.v1 import job_pb2
from services.errors import Cancelled
from services.tasks.encoding import Encoder
from services.tasks.tensors import Row
from services.tasks.text2text_generation.sequences import ids_of
from services.trainer.evaluate import Predictor, batches_by_length
from services.trainer.text_scores import SCORES
from services.trainer.train import Run

NUM_WRITTEN = 200
"""Examples that are written whole: a search takes as many steps as a text has tokens."""


def add_scores(evaluation: job_pb2.Evaluation, run: Run, predict: Predictor, encoder: Encoder) -> None:
    """Adds the scores that the task names, if any, on up to 200 validation examples, and reports that.

    Raises Cancelled.
    """
    names, examples = run.task.text_scores(run.facts), run.validation.examples
    if not names:
        return
    chosen = random.Random(run.hyperparameters.seed).sample(
        range(len(examples)), min(NUM_WRITTEN, len(examples))
    )
    written: dict[int, str] = {}
    for batch, rows in _written(chosen, run, predict):
        written |= {i: encoder.decode(ids_of(row)) for i, row in zip(batch, rows, strict=True)}
    references = [str(examples[i].target) for i in chosen]
    for name in names:
        evaluation.metrics.update(SCORES[name]([written[i] for i in chosen], references))
    evaluation.metrics["num_written"] = len(chosen)
    run.report.event(evaluation=evaluation)


def _written(chosen: Sequence[int], run: Run, predict: Predictor) -> Iterator[tuple[list[int], list[Row]]]:
    windows = {i: run.validation.encoded(i).windows[0] for i in chosen}
    for batch in batches_by_length([len(windows[i]) for i in chosen], predict.tokens_at_once):
        if run.report.cancelled:
            raise Cancelled("stopped during the last evaluation", reason="CANCELLED")
        members = [chosen[place] for place in batch]
        yield members, predict([windows[i] for i in members])
