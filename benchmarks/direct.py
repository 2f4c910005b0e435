"""One caller straight to Triton with the stock tritonclient, tokenizing included."""

import time

from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from benchmarks.prepared import FP32, MAX_LENGTH, MODEL, version_folder
from services.tasks.encoding import Encoder, pad


class Direct:
    """A caller of its own: text to tokens, ModelInfer at the exact shape, logits back."""

    def __init__(self, triton: str) -> None:
        self._client = InferenceServerClient(triton)
        self._encoder = Encoder.from_file(version_folder(FP32) / "tokenizer.json", MAX_LENGTH)

    def latencies(self, text: str, calls: int) -> list[float]:
        """Returns the seconds of each of `calls` calls in a row."""
        return [self._timed(text) for _ in range(calls)]

    def _timed(self, text: str) -> float:
        started = time.perf_counter()
        rows = self._encoder.encode([text])
        inputs = []
        for name, value in pad(rows, len(rows[0]), self._encoder.pad_id).items():
            inputs.append(InferInput(name, value.shape, "INT64"))
            inputs[-1].set_data_from_numpy(value)
        outputs = [InferRequestedOutput("logits")]
        self._client.infer(MODEL, inputs, str(FP32), outputs=outputs).as_numpy("logits")
        return time.perf_counter() - started
