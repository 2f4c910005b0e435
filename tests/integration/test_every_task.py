"""What holds for every task, held against each: from a data file to a typed answer through a real Triton."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import inference_pb2, job_pb2, models_pb2, tasks_pb2
from services.repository import certificates, layout
from services.targets import runtime_of
from services.tasks import TASKS, Architecture, Facts, find_task
from services.tasks.encoding import Encoder
from services.tasks.golden import golden_answers
from services.tasks.reading import TRAIN
from services.trainer.data import read_split
from services.trainer.features import Features
from tests.contract.gateway.stack import Stack, gateway
from tests.integration.samples import SAMPLES, Bad
from tests.integration.shipped_tasks import Shipped, ship
from tests.integration.triton import RunningTriton, started

GOLDEN = Path(__file__).parents[1] / "golden"
POOLS = ("onnxruntime", "openvino")
RPCS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name

every_task = pytest.mark.parametrize("task", list(TASKS))


@pytest.fixture(scope="module")
def shipped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Shipped]:
    """Ships a task's sample the first time it is asked for."""
    repository, made = tmp_path_factory.mktemp("home") / "repository", dict[str, Shipped]()

    def find(task: str) -> Shipped:
        if task not in made:
            sample = SAMPLES[task]
            base = request.getfixturevalue(sample.base)
            made[task] = ship(task, sample, base, tmp_path_factory.mktemp(task), repository)
        return made[task]

    return find


@pytest.fixture(scope="module")
def triton(
    tmp_path_factory: pytest.TempPathFactory, shipped: Callable[[str], Shipped]
) -> Iterator[RunningTriton]:
    """One Triton for all tasks; its staged folder belongs to the gateway."""
    home = shipped(next(iter(TASKS))).repository.parent
    with started(home) as running:
        yield running


@every_task
def test_a_task_has_a_sample_and_a_kind_of_its_own(task: str) -> None:
    assert task in SAMPLES, "tests/integration/samples.py knows no sample of it"
    kinds = [field.name for field in tasks_pb2.TaskSpec.DESCRIPTOR.oneofs_by_name["kind"].fields]
    assert task.replace("-", "_") in kinds


@every_task
def test_the_task_s_rpcs_exist_in_the_contract(task: str) -> None:
    ours = find_task(task)
    assert ours.rpcs
    for name in ours.rpcs:
        assert RPCS[name].server_streaming == (ours.architecture is Architecture.DECODER)
    assert set(SAMPLES[task].requests) == set(ours.rpcs)


def test_every_rpc_of_the_contract_is_answered_by_a_task() -> None:
    assert {name for task in TASKS.values() for name in task.rpcs} == set(RPCS)


@every_task
def test_the_gateway_reads_the_tokens_that_the_trainer_trained_on(
    task: str, shipped: Callable[[str], Shipped], tmp_path: Path
) -> None:
    made, ours = shipped(task), find_task(task)
    examples = read_split(
        made.spec.dataset, ours, made.spec.task_spec, name=TRAIN, scratch=tmp_path
    ).examples[:40]
    facts, length = Facts.of(made.manifest), made.manifest.max_length
    trained = Features(examples, ours, Encoder.from_file(made.checkpoint / "tokenizer.json", length), facts)
    served = ours.encode(Encoder.from_file(made.folder / "tokenizer.json", length), examples, facts)
    for i, encoded in enumerate(served):
        want = trained.encoded(i).windows
        assert [w.input_ids for w in encoded.windows] == [w.input_ids for w in want]
        assert [w.token_type_ids for w in encoded.windows] == [w.token_type_ids for w in want]


@every_task
def test_golden_examples_are_held_out_texts_with_answers_of_the_trained_model(
    task: str, shipped: Callable[[str], Shipped]
) -> None:
    made = shipped(task)
    text = (made.folder / "golden.json").read_text(encoding="utf-8")
    golden = json_format.Parse(text, models_pb2.GoldenExamples())
    assert 8 <= len(golden.examples) <= 32
    _, answers = golden_answers(golden.examples)
    for example, answer in zip(golden.examples, answers, strict=True):
        assert example.text
        assert example.generated or answer[0], "an answer of neither tensors nor text"


@every_task
def test_a_version_is_certified_for_each_pool_that_can_serve_it(
    task: str, shipped: Callable[[str], Shipped]
) -> None:
    version, ours = shipped(task).version, find_task(task)
    for pool in POOLS:
        form = ours.form_in(runtime_of(pool))
        assert form is not None
        verdict = certificates.check(version, pool)
        assert (verdict.passed, verdict.runtime) == (True, form.runtime)
        assert verdict.num_examples >= 8
        assert {figure.name for figure in verdict.figures} <= set(ours.limits(verdict.precision))


@every_task
@pytest.mark.parametrize("pool", POOLS)
def test_the_config_is_the_golden_one(task: str, pool: str, shipped: Callable[[str], Shipped]) -> None:
    """`make golden` writes what this compares with."""
    text = (shipped(task).repository / task / layout.CONFIGS[pool]).read_text(encoding="utf-8")
    path = GOLDEN / f"{task}.{pool}.pbtxt"
    if os.environ.get("CONCH_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@every_task
async def test_the_task_answers_its_rpcs_and_refuses_what_can_never_succeed(
    task: str, shipped: Callable[[str], Shipped], triton: RunningTriton
) -> None:
    made = shipped(task)
    async with gateway(made.repository.parent, triton.address) as stack:
        chosen = models_pb2.Route(model=task, versions=[models_pb2.WeightedVersion(version=1, weight=1)])
        await stack.set_route(chosen)
        for name, request in SAMPLES[task].requests.items():
            answer = await _ask(stack, name, request, task)
            assert answer.served_by.model == task
            assert answer.served_by.precision != job_pb2.PRECISION_UNSPECIFIED
        await _refused(stack, SAMPLES[task].bad, task)
        await _wrong_rpc(stack, task)


async def _ask(stack: Stack, name: str, request: Any, model: str) -> Any:
    """Returns the answer, or the last piece of one."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.model = model
    call = getattr(stack.inference, name)(asked, timeout=60)
    if not RPCS[name].server_streaming:
        return await call
    pieces = [piece async for piece in call]
    assert pieces, "a stream without a piece"
    return pieces[-1]


async def _refused(stack: Stack, bad: Bad, model: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _ask(stack, bad.rpc, bad.request, model)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details)
    assert [violation.field for violation in request.field_violations] == [bad.field]


async def _wrong_rpc(stack: Stack, model: str) -> None:
    name, sample = next(
        (name, request)
        for other in SAMPLES.values()
        for name, request in other.requests.items()
        if name not in find_task(model).rpcs
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _ask(stack, name, sample, model)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
