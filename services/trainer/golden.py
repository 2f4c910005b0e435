"""Golden examples: a few held-out texts with the trained model's own answers.

Knows how they are chosen and computed; what they prove is the gateway's business.
"""

from collections import defaultdict
from collections.abc import Sequence

from conch.v1 import models_pb2
from services.tasks import Example, Task
from services.tasks.encoding import Encoder
from services.trainer.evaluate import Predictor
from services.trainer.features import encode
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


def golden_examples(
    examples: Sequence[Example], predict: Predictor, encoder: Encoder
) -> models_pb2.GoldenExamples:
    """Returns the examples with the model's fp32 outputs, each computed alone and without padding."""
    return models_pb2.GoldenExamples(examples=[_golden(e, predict, encoder) for e in examples])


def _golden(example: Example, predict: Predictor, encoder: Encoder) -> models_pb2.GoldenExample:
    outputs = predict(encode(encoder, [example]))
    return models_pb2.GoldenExample(
        text=example.text,
        text_pair=example.text_pair,
        outputs={
            name: models_pb2.FloatTensor(shape=value.shape[1:], values=value[0].ravel())
            for name, value in outputs.items()
        },
    )


def _spread(ordered: Sequence[int], share: int) -> list[int]:
    if share == 1:
        return [ordered[len(ordered) // 2]]
    last = len(ordered) - 1
    return [ordered[round(k * last / (share - 1))] for k in range(share)]
