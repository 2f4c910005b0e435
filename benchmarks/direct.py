"""One caller, one text at a time: straight to Triton with the stock tritonclient, or through the gateway.

Both sides are synchronous clients in this process and take turns call by call; both tokenize.
"""

import time
from collections.abc import Callable

from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from benchmarks.prepared import FP32, MAX_LENGTH, MODEL, version_folder
from conch.client import Conch
from services.tasks.encoding import Encoder, pad


class Direct:
    """A caller of its own: text to tokens, ModelInfer at the exact shape, logits back."""

    def __init__(self, triton: str) -> None:
        self._client = InferenceServerClient(triton)
        self._encoder = Encoder.from_file(version_folder(FP32) / "tokenizer.json", MAX_LENGTH)

    def __call__(self, text: str) -> None:
        rows = self._encoder.encode([text])
        inputs = []
        for name, value in pad(rows, len(rows[0]), self._encoder.pad_id).items():
            inputs.append(InferInput(name, value.shape, "INT64"))
            inputs[-1].set_data_from_numpy(value)
        outputs = [InferRequestedOutput("logits")]
        self._client.infer(MODEL, inputs, str(FP32), outputs=outputs).as_numpy("logits")


class Through:
    """A caller of Conch's own client."""

    def __init__(self, gateway: str) -> None:
        self._client = Conch(gateway)

    def __call__(self, text: str) -> None:
        self._client.classify([text], model=MODEL, version=FP32)


def seconds(call: Callable[[str], None], text: str) -> float:
    """Returns how long one call takes."""
    started = time.perf_counter()
    call(text)
    return time.perf_counter() - started
