"""What rollouts and crashes rest on: loading again does not disturb, and a killed Triton leaves nothing."""

import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.triton import RunningTriton, scores_graph, started, triton

__all__ = ["triton"]

CONFIG = (
    'backend: "onnxruntime" max_batch_size: 8 version_policy { all {} } '
    "instance_group [{ kind: KIND_CPU count: 1 }] dynamic_batching {}"
)
IDS = np.arange(6, dtype=np.int64).reshape(1, 6)


class Caller:
    """Calls one version over and over in a thread; `failures` holds what went wrong."""

    def __init__(self, address: str, model: str) -> None:
        self._address, self._model = address, model
        self._stop, self._answered = threading.Event(), threading.Event()
        self.failures: list[InferenceServerException] = []
        self.num_calls = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Caller":
        self._thread.start()
        assert self._answered.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from tritonclient.grpc import InferenceServerClient

        from tests.integration.triton import tensors

        with InferenceServerClient(self._address) as client:
            while not self._stop.is_set():
                try:
                    client.infer(self._model, tensors({"ids": IDS}), model_version="1")
                except InferenceServerException as error:
                    self.failures.append(error)
                self.num_calls += 1
                self._answered.set()


def test_loading_again_brings_and_takes_versions_without_a_failed_call(triton: RunningTriton) -> None:
    triton.add("rollout", scores_graph(), CONFIG)
    triton.load("rollout")
    with Caller(triton.address, "rollout") as caller:
        triton.add("rollout", scores_graph(seed=8), CONFIG, version=2)
        triton.load("rollout")
        assert triton.infer("rollout", {"ids": IDS}, version="2")["logits"].shape == (1, 3)
        shutil.rmtree(triton.repository / "rollout" / "2")
        triton.load("rollout")
    assert not triton.client.is_model_ready("rollout", "2")
    assert caller.failures == []
    assert caller.num_calls > 10


def test_a_version_that_cannot_be_loaded_leaves_the_others_serving(triton: RunningTriton) -> None:
    triton.add("survivor", scores_graph(), CONFIG)
    triton.load("survivor")
    broken = triton.repository / "survivor" / "2"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no graph")
    refused = pytest.raises(InferenceServerException, match="version 2 is at UNAVAILABLE state")
    with Caller(triton.address, "survivor") as caller, refused:
        triton.load("survivor")
    assert caller.failures == []
    assert triton.client.is_model_ready("survivor", "1")


def test_two_tritons_and_a_killed_one_do_not_disturb_each_other(tmp_path: Path) -> None:
    with started(tmp_path / "first") as first, started(tmp_path / "second") as second:
        for server in (first, second):
            server.add("scores", scores_graph(), CONFIG)
            server.load("scores")
        answer = first.infer("scores", {"ids": IDS})["logits"]
        orphans = second.stubs()
        second.process.send_signal(signal.SIGKILL)
        second.process.wait()
        assert psutil.wait_procs(orphans, timeout=10)[1] == []
        np.testing.assert_array_equal(first.infer("scores", {"ids": IDS})["logits"], answer)
        with started(tmp_path / "second") as third:
            third.load("scores")
            np.testing.assert_array_equal(third.infer("scores", {"ids": IDS})["logits"], answer)


def test_sigterm_ends_triton_within_seconds_and_with_exit_code_0(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        server.add("scores", scores_graph(), CONFIG)
        server.load("scores")
        begin = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=15) == 0
        assert time.monotonic() - begin < 10
