"""The vectors of an EmbedResponse as numbers: plain lists, or one numpy array where numpy is installed.

Knows how vectors are packed; knows nothing about models. The base install has no numpy and needs none.
"""

import sys
from array import array
from typing import TYPE_CHECKING

from conch.v1 import inference_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_INT8 = inference_pb2.VECTOR_TYPE_INT8


def vectors(response: inference_pb2.EmbedResponse) -> list[list[float]]:
    """Returns one list of `num_dimensions` numbers a text, int8 already multiplied by its scale."""
    return [_numbers(embedding, response.vector_type) for embedding in response.embeddings]


def matrix(response: inference_pb2.EmbedResponse) -> "npt.NDArray[np.float32]":
    """Returns the same as one array `(texts, num_dimensions)`. Raises ImportError without numpy."""
    import numpy as np

    dtype = np.dtype(np.int8) if response.vector_type == _INT8 else np.dtype("<f4")
    packed = b"".join(embedding.vector for embedding in response.embeddings)
    rows = np.frombuffer(packed, dtype).reshape(len(response.embeddings), response.num_dimensions)
    if response.vector_type != _INT8:
        return rows.astype(np.float32)
    scales = np.array([embedding.scale for embedding in response.embeddings], np.float32)
    return rows.astype(np.float32) * scales[:, None]


def _numbers(embedding: inference_pb2.Embedding, vector_type: int) -> list[float]:
    if vector_type == _INT8:
        return [number * embedding.scale for number in array("b", embedding.vector)]
    numbers = array("f", embedding.vector)
    if sys.byteorder == "big":  # the wire is little-endian
        numbers.byteswap()
    return numbers.tolist()
