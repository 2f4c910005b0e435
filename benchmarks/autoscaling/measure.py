"""Measures what the simulator is fed with: how long a batch takes, and how long texts are.

Knows runtimes and clocks; knows nothing about queues, pods or autoscalers. One thread, and of every
shape the least CPU time of several runs, so that neighbours on the machine disturb little: what is
written is the speed of a core that a pod has to itself.
"""

import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.inprocess import Run, load
from services.tasks.encoding import Encoder, Tokens, pad

ROWS = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (8, 16, 32, 64, 128, 256)
LARGEST = 2048
RUNTIMES = ("onnxruntime", "openvino")
PRECISION = {"onnxruntime": "fp32", "openvino": "bf16"}
QUANTILES = 1000


def measure(version: Path, folder: Path, *, seconds: float, num_texts: int = 4000) -> None:
    """Writes service_times.json and lengths.json of a published version into `folder`."""
    share = seconds / len(RUNTIMES)
    times = {runtime: _runtime(version, runtime, share) for runtime in RUNTIMES}
    _write(folder / "service_times.json", {**_circumstances(version), "runtimes": times})
    _write(folder / "lengths.json", _lengths(version, num_texts))


def _runtime(version: Path, runtime: str, seconds: float) -> dict[str, Any]:
    started = time.process_time()
    run = load(version, runtime, 1)
    load_seconds = time.process_time() - started
    shapes = [(rows, length) for length in LENGTHS for rows in ROWS if rows * length <= LARGEST]
    weight = sum(rows * length + 64 for rows, length in shapes)
    entries = [
        [rows, length, round(_least(run, rows, length, seconds * (rows * length + 64) / weight), 6)]
        for rows, length in shapes
    ]
    return {
        "precision": PRECISION[runtime],
        "load_cpu_seconds": round(load_seconds, 2),
        "rows_length_seconds": entries,
    }


def _least(run: Run, rows: int, length: int, seconds: float) -> float:
    """Returns the least CPU time of a batch; at least 5 runs after 2 to warm up."""
    token = np.random.default_rng(rows * length).integers(1000, 20000, (rows, length))
    inputs = pad([Tokens(list(map(int, row)), [0] * length) for row in token], length, 0, batch=rows)
    for _ in range(2):
        run(inputs)
    times: list[float] = []
    ends = time.monotonic() + seconds
    while len(times) < 5 or (time.monotonic() < ends and len(times) < 200):
        started = time.process_time()
        run(inputs)
        times.append(time.process_time() - started)
    return min(times)


def _circumstances(version: Path) -> dict[str, Any]:
    manifest = json.loads((version / "manifest.json").read_text())["version"]
    return {
        "cpu": _cpu_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "model": f"{Path(manifest['checkpoint']['baseModel']).parent.name}, {manifest['checkpoint']['task']}",
        "how": "least CPU time of 5 runs or more of each shape after 2 to warm up, in process, 1 thread; "
        "other work ran on the machine meanwhile",
    }


def _lengths(version: Path, num_texts: int) -> dict[str, Any]:
    """Returns quantiles of the reviews' lengths in tokens, special tokens included, not cut."""
    encoder = Encoder.from_file(version / "tokenizer.json", 4096)
    lengths = [len(tokens) for tokens in encoder.encode(texts.mixed(num_texts))]
    quantiles = np.quantile(lengths, (np.arange(QUANTILES) + 0.5) / QUANTILES, method="nearest")
    return {
        "what": f"token lengths of {num_texts} movie reviews, {QUANTILES} equidistant quantiles",
        "mean": round(float(np.mean(lengths)), 1),
        "quantiles": [int(length) for length in quantiles],
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines: Sequence[str] = info.read_text().splitlines() if info.exists() else ()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in f"{flags} "]
    return f"{next(names, platform.processor())} ({', '.join(known)})"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content).replace("], [", "],\n [") + "\n")
    print(f"written {path}")
