"""The limit: the same graph in the same runtime called in process, tokenizing included.

Texts are tokenized, sorted by length and cut into batches by a token budget, so that padding is as
small as it can be without a network, without callers and without deadlines. The best of several
budgets counts. Runs in a process of its own, so that no idle thread pool disturbs the other side.
"""

import multiprocessing as mp
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from services.tasks.encoding import Encoder, Tokens, pad

TOKEN_BUDGETS = (512, 1024, 2048, 4096, 8192)

Run = Callable[[dict[str, Any]], Any]


@dataclass
class InProcess:
    """A child process that holds the model; `seconds(texts)` times one pass over the texts."""

    process: mp.process.BaseProcess
    pipe: Connection

    @classmethod
    def start(cls, version: Path, runtime: str, *, max_length: int, threads: int) -> "InProcess":
        """Starts the child for `runtime` ("onnxruntime" or "openvino", the latter in bf16)."""
        here, there = mp.get_context("spawn").Pipe()
        args = (there, version, runtime, max_length, threads)
        process = mp.get_context("spawn").Process(target=_serve, args=args, daemon=True)
        process.start()
        return cls(process, here)

    def seconds(self, texts: Sequence[str], token_budget: int) -> float:
        """Returns the wall seconds of one pass over `texts`."""
        self.pipe.send((list(texts), token_budget))
        return float(self.pipe.recv())

    def best_budget(self, texts: Sequence[str]) -> int:
        """Returns the token budget with the fastest pass; also warms every shape."""
        for budget in TOKEN_BUDGETS:
            self.seconds(texts, budget)
        return min(TOKEN_BUDGETS, key=lambda budget: self.seconds(texts, budget))

    def stop(self) -> None:
        """Ends the child."""
        self.process.terminate()
        self.process.join()


def load(version: Path, runtime: str, threads: int) -> Run:
    """Returns a function from named inputs to logits, for a version's folder."""
    return (
        _openvino(version / "openvino.onnx", threads)
        if runtime == "openvino"
        else _onnx(version / "model.onnx", threads)
    )


def batches(rows: Sequence[Tokens], token_budget: int) -> list[list[Tokens]]:
    """Returns rows sorted by length, cut so that rows x longest stays within the budget."""
    cut: list[list[Tokens]] = []
    for row in sorted(rows, key=len):
        if cut and (len(cut[-1]) + 1) * len(row) <= token_budget:
            cut[-1].append(row)
        else:
            cut.append([row])
    return cut


def _serve(pipe: Connection, version: Path, runtime: str, max_length: int, threads: int) -> None:
    encoder, run = Encoder.from_file(version / "tokenizer.json", max_length), load(version, runtime, threads)
    while True:
        texts, token_budget = pipe.recv()
        started = time.perf_counter()
        for batch in batches(encoder.encode(texts), token_budget):
            run(pad(batch, max(map(len, batch)), encoder.pad_id))
        pipe.send(time.perf_counter() - started)


def _onnx(path: Path, threads: int) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return lambda inputs: session.run(None, {k: v for k, v in inputs.items() if k in names})[0]


def _openvino(path: Path, threads: int) -> Run:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16",
    }
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    names = {name for value in compiled.inputs for name in value.names}
    request = compiled.create_infer_request()
    return lambda inputs: np.array(request.infer({k: v for k, v in inputs.items() if k in names})[0])
