"""What an encoder-decoder wrote: one row's sequence as ids, as text, and how two of them differ.

Knows the outputs that Triton's seq2seq backend gives; knows nothing about search.
"""

from collections.abc import Sequence

import numpy as np

from conch.v1 import inference_pb2
from services.tasks.example import Encoded
from services.tasks.rpcs import Served, input_tokens
from services.tasks.tensors import WRITTEN, Answer, Row, TensorSpec

OUTPUTS = (
    TensorSpec("sequences", "int64", ("batch", WRITTEN)),
    TensorSpec("sequence_scores", "float32", ("batch", 1)),
    TensorSpec("sequence_lengths", "int64", ("batch", 1)),
    TensorSpec("sequence_ended", "int64", ("batch", 1)),
)
"""The tokens, padded to the longest row of a call; their score; how many they are, the one that ends them
included; and whether the model ended them, rather than the most tokens that it was allowed."""


def ids_of(row: Row) -> list[int]:
    """Returns the tokens of a row's sequence, the one that ends it included."""
    return [int(token) for token in row["sequences"][: int(row["sequence_lengths"][0])]]


def generated_texts(
    encoded: Sequence[Encoded], answers: Sequence[Answer], served: Served
) -> list[inference_pb2.GeneratedText]:
    """Returns each answer as the contract says it."""
    return [_generated(one, answer[0], served) for one, answer in zip(encoded, answers, strict=True)]


def figures(reference: Sequence[Answer], candidate: Sequence[Answer]) -> dict[str, float]:
    """Returns how far sequences are from those of the reference.

    Scores are compared where the tokens are the same: those of different sequences say nothing.
    """
    pairs = [(want[0], got[0]) for want, got in zip(reference, candidate, strict=True)]
    same = [ids_of(want) == ids_of(got) for want, got in pairs]
    scores = np.array([[float(row["sequence_scores"][0]) for row in pair] for pair in pairs])
    finite = np.isfinite(scores[:, 1])
    compared = np.abs(scores[:, 0] - scores[:, 1])[np.logical_and(same, finite)]
    return {
        "sequence_mismatch_rate": 1 - float(np.mean(same)),
        "max_abs_score_difference": float(compared.max(initial=0.0)),
        "num_nonfinite": float((~finite).sum()),
    }


def _generated(one: Encoded, row: Row, served: Served) -> inference_pb2.GeneratedText:
    ids = ids_of(row)
    ended = bool(row["sequence_ended"][0])
    return inference_pb2.GeneratedText(
        text=served.encoder.decode(ids),
        score=float(row["sequence_scores"][0]),
        num_generated_tokens=len(ids),
        finish_reason=inference_pb2.FINISH_REASON_STOP if ended else inference_pb2.FINISH_REASON_LENGTH,
        tokens=input_tokens(one.windows),
    )
