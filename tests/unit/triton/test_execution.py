"""Gathering requests, running them once, handing the answers out; over a stand-in for Triton's own module."""

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


class FakeRequest:
    """A request as Triton's python stub hands it over."""

    def __init__(self, rows: Array, *, outputs: Sequence[str] = (), cancelled: bool = False) -> None:
        self._rows, self._outputs, self._cancelled = rows, outputs, cancelled

    def inputs(self) -> list[Any]:
        return [SimpleNamespace(name=lambda: "x", as_numpy=lambda: self._rows)]

    def requested_output_names(self) -> Sequence[str]:
        return self._outputs

    def is_cancelled(self) -> bool:
        return self._cancelled


class Doubling:
    """A graph that gives twice its input and its sum by row, and fails on negative values."""

    outputs = ("twice", "sum")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        rows = inputs["x"]
        if (rows < 0).any():
            raise ValueError("negative")
        self.batches.append(len(rows))
        results = {"twice": 2 * rows, "sum": rows.sum(axis=1)}
        return [results[name] for name in outputs]


@pytest.fixture
def execution(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is inside a stub."""
    stand_in = ModuleType("triton_python_backend_utils")
    stand_in.Tensor = lambda name, array: (name, array)  # type: ignore[attr-defined]
    stand_in.InferenceResponse = (  # type: ignore[attr-defined]
        lambda output_tensors=(), error=None: SimpleNamespace(tensors=dict(output_tensors), error=error)
    )
    error = lambda message, code: (message, code)  # noqa: E731
    error.INVALID_ARG, error.CANCELLED = "INVALID_ARG", "CANCELLED"  # type: ignore[attr-defined]
    stand_in.TritonError = error  # type: ignore[attr-defined]
    stand_in.Logger = SimpleNamespace(log_warn=lambda text: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in)
    monkeypatch.delitem(sys.modules, "services.triton.backends.execution", raising=False)
    from services.triton.backends import execution

    return execution


def rows(*sizes: int) -> list[Array]:
    return [np.full((size, 3), i + 1) for i, size in enumerate(sizes)]


def test_requests_run_as_one_batch_and_each_gets_its_own_rows(execution: ModuleType) -> None:
    graph, sent = Doubling(), rows(1, 3, 2)
    answers = execution.execute([FakeRequest(r) for r in sent], graph, batched=True)
    assert graph.batches == [6]
    for answer, r in zip(answers, sent, strict=True):
        np.testing.assert_array_equal(answer.tensors["twice"], 2 * r)
        np.testing.assert_array_equal(answer.tensors["sum"], r.sum(axis=1))


def test_a_model_without_batch_axis_runs_each_request_alone(execution: ModuleType) -> None:
    graph, sent = Doubling(), rows(1, 3)
    answers = execution.execute([FakeRequest(r) for r in sent], graph, batched=False)
    assert graph.batches == [1, 3]
    np.testing.assert_array_equal(answers[1].tensors["twice"], 2 * sent[1])


def test_a_bad_request_fails_alone(execution: ModuleType) -> None:
    sent = [*rows(1, 1), np.full((1, 3), -1)]
    answers = execution.execute([FakeRequest(r) for r in sent], Doubling(), batched=True)
    assert [answer.error for answer in answers] == [None, None, ("negative", "INVALID_ARG")]
    np.testing.assert_array_equal(answers[1].tensors["twice"], 2 * sent[1])


def test_requests_of_unequal_shape_are_answered_one_by_one(execution: ModuleType) -> None:
    graph, sent = Doubling(), [np.ones((1, 3)), np.ones((1, 5))]
    answers = execution.execute([FakeRequest(r) for r in sent], graph, batched=True)
    assert graph.batches == [1, 1]
    assert [answer.tensors["sum"].tolist() for answer in answers] == [[3.0], [5.0]]


def test_what_was_cancelled_is_not_run_and_the_others_keep_their_places(execution: ModuleType) -> None:
    graph, sent = Doubling(), rows(1, 1, 1)
    requests = [FakeRequest(r, cancelled=i == 1) for i, r in enumerate(sent)]
    answers = execution.execute(requests, graph, batched=True)
    assert graph.batches == [2]
    assert answers[1].error == ("cancelled", "CANCELLED")
    np.testing.assert_array_equal(answers[2].tensors["twice"], 2 * sent[2])


def test_nothing_runs_if_all_were_cancelled(execution: ModuleType) -> None:
    graph = Doubling()
    answers = execution.execute([FakeRequest(r, cancelled=True) for r in rows(1, 1)], graph, batched=True)
    assert graph.batches == []
    assert len(answers) == 2


def test_only_the_outputs_asked_for_are_computed(execution: ModuleType) -> None:
    answers = execution.execute([FakeRequest(rows(1)[0], outputs=["sum"])], Doubling(), batched=True)
    assert list(answers[0].tensors) == ["sum"]
