"""Which runtime is faster on this machine: runs a version's graphs through both, in turns.

`ratio` is for services; it runs this very file in Triton's environment, where it
prints one JSON object. There it knows onnxruntime, openvino and numpy, and cannot import Conch.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Rows and tokens of a call: one short question, and a batch of the sort that the gateway makes.
_SHAPES = ((1, 32), (8, 64), (16, 128))
_SECONDS = 6.0
WORTHWHILE = 1.15
"""onnxruntime runs everywhere and its fp32 is exact: openvino must be this much faster to be worth it."""
_MIN_ROUNDS = 3

Run = Callable[[Mapping[str, Any]], object]


def ratio(python: Path, onnxruntime_graph: Path, openvino_graph: Path, *, seconds: float = _SECONDS) -> float:
    """Returns how many times faster openvino in bf16 is than onnxruntime here; below 1 = slower.

    The median over rounds in which each runtime answers the same inputs, so that a neighbour's load
    hits both. `python` is the interpreter of Triton's environment. Takes about `seconds`. Raises
    RuntimeError with what went wrong.
    """
    command: list[str | Path] = [python, "-I", __file__, onnxruntime_graph, openvino_graph, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("; ".join(done.stderr.strip().splitlines()[-2:]) or "measuring died")
    return float(json.loads(done.stdout)["openvino_over_onnxruntime"])


def synthetic_ratio(python: Path, *, seconds: float = _SECONDS) -> float:
    """Returns `ratio` for a small synthetic encoder, for a machine that serves nothing yet."""
    # Imported here: this file also runs where neither Conch nor onnx is.
    from services.triton import synthetic_encoder

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "encoder.onnx"
        synthetic_encoder.write(graph)
        return ratio(python, graph, graph, seconds=seconds)


def _measure(onnxruntime_graph: str, openvino_graph: str, seconds: float) -> dict[str, object]:
    runs = {"onnxruntime": _onnxruntime(onnxruntime_graph), "openvino": _openvino(openvino_graph)}
    feeds = {shape: _feed(onnxruntime_graph, *shape) for shape in _SHAPES}
    for feed in feeds.values():
        for run in runs.values():
            # A shape's first call compiles.
            run(feed)
    rounds = _rounds(runs, feeds, seconds)
    ratios = {
        f"{batch}x{tokens}": round(statistics.median(r[(batch, tokens)] for r in rounds), 3)
        for batch, tokens in _SHAPES
    }
    overall = statistics.median(statistics.geometric_mean(r.values()) for r in rounds)
    return {
        "openvino_over_onnxruntime": round(overall, 3),
        "by_shape": ratios,
        "rounds": len(rounds),
    }


def _rounds(
    runs: Mapping[str, Run], feeds: Mapping[tuple[int, int], Mapping[str, Any]], seconds: float
) -> list[dict[tuple[int, int], float]]:
    end = time.perf_counter() + seconds
    rounds: list[dict[tuple[int, int], float]] = []
    names = list(runs)
    while time.perf_counter() < end or len(rounds) < _MIN_ROUNDS:
        taken = {
            (name, shape): _seconds(runs[name], feed)
            for shape, feed in feeds.items()
            for name in (names if len(rounds) % 2 else names[::-1])
        }
        rounds.append({s: taken["onnxruntime", s] / taken["openvino", s] for s in feeds})
    return rounds


def _seconds(run: Run, feed: Mapping[str, Any]) -> float:
    begin = time.perf_counter()
    run(feed)
    return time.perf_counter() - begin


def _feed(graph: str, batch: int, tokens: int) -> dict[str, Any]:
    import numpy as np
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return {
        i.name: (
            rng.integers(0, 1000, (batch, tokens))
            if i.name == "input_ids"
            else np.full((batch, tokens), i.name == "attention_mask")
        ).astype(np.int64)
        for i in session.get_inputs()
    }


def _onnxruntime(graph: str) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # As our backend runs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def _openvino(graph: str) -> Run:
    import openvino as ov

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
    request = ov.Core().compile_model(graph, "CPU", hints).create_infer_request()
    return lambda feed: request.infer(feed, share_inputs=True, share_outputs=True)


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
