"""Generation with an encoder-decoder's ONNX graphs, token for token as transformers generates.

Runs inside Triton's python stubs (numpy < 2), where it is a package of its own, and in the converter's
process: nothing in here imports Conch, Triton or its neighbours by an absolute name.
"""

from .answers import tensors
from .generator import Generator
from .rules import Parameters, Rules
from .search import Finished

__all__ = ["Finished", "Generator", "Parameters", "Rules", "tensors"]
