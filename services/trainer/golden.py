"""Golden examples: a few held-out texts with the trained model's own answers.

Knows how they are chosen and computed; what they prove is the gateway's business.
"""

from collections import defaultdict
from collections.abc import Sequence

from conch.v1 import models_pb2
from services.tasks import Encoded, Example, Task
from services.tasks.golden import golden_example
from services.trainer.evaluate import Predictor
from services.trainer.splits import allocate

NUM_GOLDEN = 32


def choose_golden(examples: Sequence[Example], lengths: Sequence[int], task: Task) -> list[int]:
    """Returns the indices of up to 32 examples: strata in proportion, each from shortest to longest."""
    strata: dict[str, list[int]] = defaultdict(list)
    for index, stratum in enumerate(task.strata(examples)):
        strata[stratum].append(index)
    kept = dict(sorted(strata.items(), key=lambda s: (-len(s[1]), s[0]))[:NUM_GOLDEN])
    counts = {stratum: len(found) for stratum, found in kept.items()}
    shares = allocate(counts, min(NUM_GOLDEN, sum(counts.values())))
    chosen: list[int] = []
    for stratum, share in shares.items():
        chosen += _spread(sorted(kept[stratum], key=lambda i: (lengths[i], i)), share)
    return sorted(chosen)


def golden_examples(encoded: Sequence[Encoded], predict: Predictor) -> models_pb2.GoldenExamples:
    """Returns the examples with the model's fp32 outputs, each window computed alone and without padding."""
    answers = ([predict([window])[0] for window in one.windows] for one in encoded)
    return models_pb2.GoldenExamples(examples=map(golden_example, encoded, answers))


def _spread(ordered: Sequence[int], share: int) -> list[int]:
    if share == 1:
        return [ordered[len(ordered) // 2]]
    last = len(ordered) - 1
    return [ordered[round(k * last / (share - 1))] for k in range(share)]
