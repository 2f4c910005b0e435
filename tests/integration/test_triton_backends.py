"""Both backends in the real Triton: every dtype, batching, one bad request among good ones, configuration."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from tests.integration.triton import (
    Arrays,
    RunningTriton,
    echo_graph,
    finished,
    openvino_triton,
    scores_graph,
    tensors,
    triton,
)

__all__ = ["openvino_triton", "triton"]

DTYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
ONNXRUNTIME = 'backend: "onnxruntime" instance_group [{ kind: KIND_CPU count: 1 }] '
OPENVINO = (
    'backend: "openvino" default_model_filename: "model.onnx" instance_group [{ kind: KIND_CPU count: 1 }] '
)
SCORES_IO = (
    'input [{ name: "ids" data_type: TYPE_INT64 dims: [%s -1] }] '
    'output [{ name: "logits" data_type: TYPE_FP32 dims: [%s -1] }] '
)
BATCHED = ONNXRUNTIME + "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 300000 } "


def every_dtype() -> onnx.ModelProto:
    """Returns a graph that gives `y_FP32` for `FP32` and so on."""
    axes = ["batch", "width"]
    infos = [
        (
            helper.make_tensor_value_info(name, elem_type, axes),
            helper.make_tensor_value_info(f"y_{name}", elem_type, axes),
        )
        for name, (elem_type, _) in DTYPES.items()
    ]
    nodes = [helper.make_node("Identity", [x.name], [y.name]) for x, y in infos]
    return finished(helper.make_graph(nodes, "dtypes", [x for x, _ in infos], [y for _, y in infos]))


def assert_echoed(answers: Arrays, sent: Arrays) -> None:
    """Fails, naming the dtype, unless every tensor came back as it was sent."""
    for name, array in sent.items():
        assert answers[f"y_{name}"].dtype == array.dtype
        np.testing.assert_array_equal(answers[f"y_{name}"], array, err_msg=name)


def sample(dtype: Any) -> np.ndarray[Any, Any]:
    """Returns values that show a wrong width, sign or byte order."""
    if dtype == np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    if np.issubdtype(dtype, np.floating):
        return np.array([[0.5, -2.25, np.inf], [1e-3, -0.0, np.nan]], dtype=dtype)
    limits = np.iinfo(dtype)
    return np.array([[limits.min, limits.max, 1], [0, 7, limits.max - 1]], dtype=dtype)


def test_onnxruntime_carries_every_dtype_unchanged(triton: RunningTriton) -> None:
    triton.add("dtypes", every_dtype(), ONNXRUNTIME)
    triton.load("dtypes")
    sent = {name: sample(dtype) for name, (_, dtype) in DTYPES.items()}
    assert_echoed(triton.infer("dtypes", sent), sent)


def test_openvino_carries_every_dtype_unchanged_and_int64_in_32_bits(openvino_triton: RunningTriton) -> None:
    """OpenVINO's CPU plugin computes int64 in 32 bits, which token ids never leave."""
    openvino_triton.add("dtypes", every_dtype(), OPENVINO)
    openvino_triton.load("dtypes")
    sent = {name: sample(dtype) for name, (_, dtype) in DTYPES.items()}
    sent["INT64"] = sample(np.int32).astype(np.int64)
    assert_echoed(openvino_triton.infer("dtypes", sent), sent)


def test_strings_travel_as_utf8(triton: RunningTriton) -> None:
    triton.add("strings", echo_graph(TensorProto.STRING), ONNXRUNTIME)
    triton.load("strings")
    texts = np.array([["Übung", "naïve 貝"], ["", "b'x'"]], dtype=np.object_)
    answer = triton.infer("strings", {"x": texts})["y0"]
    assert [[s.decode() for s in row] for row in answer] == texts.tolist()


def test_a_string_that_is_no_utf8_is_refused(triton: RunningTriton) -> None:
    triton.add("strings", echo_graph(TensorProto.STRING), ONNXRUNTIME)
    triton.load("strings")
    with pytest.raises(InferenceServerException, match="can't decode"):
        triton.infer("strings", {"x": np.array([[b"\xff"]], dtype=np.object_)})


def test_an_empty_batch_gives_an_empty_answer(triton: RunningTriton) -> None:
    triton.add("empty", echo_graph(TensorProto.FLOAT), ONNXRUNTIME)
    triton.load("empty")
    assert triton.infer("empty", {"x": np.zeros((2, 0), np.float32)})["y0"].shape == (2, 0)


@pytest.mark.parametrize(
    ("elem_type", "config", "complaint"),
    [
        (TensorProto.BFLOAT16, ONNXRUNTIME, "cannot carry bfloat16, cast it inside the graph"),
        (TensorProto.STRING, OPENVINO, "the openvino backend has no strings"),
    ],
)
def test_a_dtype_that_cannot_be_carried_is_refused_at_load(
    triton: RunningTriton, elem_type: int, config: str, complaint: str
) -> None:
    triton.add("uncarried", echo_graph(elem_type), config)
    with pytest.raises(InferenceServerException, match=complaint):
        triton.load("uncarried")


def test_requests_that_wait_together_run_as_one_batch(triton: RunningTriton) -> None:
    triton.add("together", scores_graph(), BATCHED + SCORES_IO % ("", ""))
    triton.load("together")
    rows = [np.random.default_rng(i).integers(0, 100, (1 + i % 2, 6)) for i in range(4)]
    alone = [triton.infer("together", {"ids": row})["logits"] for row in rows]
    before = executions(triton, "together")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: triton.infer("together", {"ids": row})["logits"], rows))
    for answer, expected in zip(answers, alone, strict=True):
        np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert executions(triton, "together") - before < len(rows)


def test_one_bad_request_among_good_ones_fails_alone(triton: RunningTriton) -> None:
    triton.add("bystanders", scores_graph(), BATCHED + SCORES_IO % ("", ""))
    triton.load("bystanders")
    rows = [np.full((1, 4), i) for i in (1, 2, 100, 3)]
    alone = {i: triton.infer("bystanders", {"ids": rows[i]})["logits"] for i in (0, 1, 3)}

    def run(row: np.ndarray[Any, Any]) -> Any:
        try:
            return triton.infer("bystanders", {"ids": row})["logits"]
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, rows))
    assert isinstance(answers[2], InferenceServerException)
    assert answers[2].status() == "StatusCode.INVALID_ARGUMENT"
    for i in (0, 1, 3):
        np.testing.assert_allclose(answers[i], alone[i], atol=1e-6)
    assert "each runs alone" in triton.log.read_text()


def test_only_the_outputs_asked_for_are_answered(triton: RunningTriton) -> None:
    from tritonclient.grpc import InferRequestedOutput

    triton.add("two", echo_graph(TensorProto.FLOAT, inputs=("a", "b")), ONNXRUNTIME)
    triton.load("two")
    inputs = tensors({name: np.ones((1, 2), np.float32) for name in ("a", "b")})
    answer = triton.client.infer("two", inputs, outputs=[InferRequestedOutput("y1")])
    assert [output.name for output in answer.get_response().outputs] == ["y1"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_config_is_completed_from_the_graph(triton: RunningTriton, runtime: str) -> None:
    name = f"completed-{runtime}"
    triton.add(name, scores_graph(), ONNXRUNTIME if runtime == "onnxruntime" else OPENVINO)
    triton.load(name)
    config = triton.client.get_model_config(name, as_json=True)["config"]
    assert config["max_batch_size"] == 4
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [
        ("ids", "TYPE_INT64", ["-1"])
    ]
    assert [(t["name"], t["data_type"]) for t in config["output"]] == [("logits", "TYPE_FP32")]
    assert "dynamic_batching" in config


@pytest.mark.parametrize("backend", [ONNXRUNTIME, OPENVINO], ids=["onnxruntime", "openvino"])
def test_a_config_that_does_not_fit_the_graph_is_refused_with_what_differs(
    triton: RunningTriton, backend: str
) -> None:
    io = SCORES_IO.replace("TYPE_INT64", "TYPE_INT32") % ("-1,", "-1,")
    triton.add("misfit", scores_graph(), backend + io)
    with pytest.raises(InferenceServerException, match="'ids' is TYPE_INT64, not TYPE_INT32"):
        triton.load("misfit")


def test_both_runtimes_give_equal_answers(triton: RunningTriton, openvino_triton: RunningTriton) -> None:
    triton.add("scores", scores_graph(), BATCHED + SCORES_IO % ("", ""))
    openvino_triton.add("scores", scores_graph(), OPENVINO + SCORES_IO % ("-1,", "-1,"))
    ids = np.random.default_rng(3).integers(0, 100, (5, 9))
    answers = []
    for server in (triton, openvino_triton):
        server.load("scores")
        answers.append(server.infer("scores", {"ids": ids})["logits"])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_a_runtime_reads_its_own_configuration_of_the_same_repository(openvino_triton: RunningTriton) -> None:
    openvino_triton.add("both", scores_graph(), BATCHED + SCORES_IO % ("", ""))
    configs = openvino_triton.repository / "both" / "configs"
    configs.mkdir()
    (configs / "openvino.pbtxt").write_text(OPENVINO + SCORES_IO % ("-1,", "-1,"))
    openvino_triton.load("both")
    assert openvino_triton.client.get_model_config("both").config.backend == "openvino"


@pytest.mark.parametrize(
    ("backend", "parameter"),
    [(ONNXRUNTIME, "intra_op_thread_count"), (OPENVINO, "INFERENCE_NUM_THREADS")],
    ids=["onnxruntime", "openvino"],
)
def test_the_thread_count_is_the_one_in_the_config(
    triton: RunningTriton, backend: str, parameter: str
) -> None:
    counts = {}
    for wanted in ("1", "2"):
        name, others = f"{parameter.lower()}-{wanted}", set(triton.stubs())
        text = f'parameters {{ key: "{parameter}" value {{ string_value: "{wanted}" }} }}'
        triton.add(name, scores_graph(), backend + SCORES_IO % ("-1,", "-1,") + text)
        triton.load(name)
        triton.infer(name, {"ids": np.zeros((4, 8), np.int64)})
        counts[wanted] = sum(stub.num_threads() for stub in set(triton.stubs()) - others)
    assert counts["2"] - counts["1"] == 1


def executions(server: RunningTriton, model: str) -> int:
    """Returns how often Triton ran a model's instance."""
    statistics = server.client.get_inference_statistics(model, as_json=True)
    return sum(
        int(entry.get("execution_count", 0)) for entry in json.loads(json.dumps(statistics))["model_stats"]
    )
