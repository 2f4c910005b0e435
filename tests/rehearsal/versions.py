"""The versions of the rehearsal: good ones, and each kind of bad one.

Knows how small versions are published; knows nothing about who serves them.
"""

from pathlib import Path

from conch.v1 import job_pb2, models_pb2
from services.converter import triton_config
from services.repository import layout
from services.tasks import find_task
from tests.contract.versions import publish
from tests.integration.test_gateway import INPUTS, add, graph, logits

BAD, UNCERTIFIED, PLANNED = 3, 4, 1
"""sentiment@3 answers otherwise than the model that was trained, sentiment@4 has no certificate, and topic@1
has a plan for a GPU that no pod here has."""

_TASK = find_task("text-classification")
_PLAN = models_pb2.Plan(
    path="model.sm90.plan",
    compute_capability="9.0",
    tensorrt_version="10.14.1.48",
    precision=job_pb2.PRECISION_BF16,
)


def publish_all(storage: Path) -> None:
    """Publishes them into the repository below `storage`."""
    for version in (1, 2):
        add(storage, version)
    add(storage, BAD, shift=5.0)
    add(storage, UNCERTIFIED, certified=False)
    _add_planned(storage)


def _add_planned(storage: Path) -> None:
    form = _TASK.form_of(job_pb2.RUNTIME_TENSORRT)
    assert form is not None
    config = triton_config.config_text("topic", _TASK, INPUTS, form)
    publish(
        storage / "repository",
        PLANNED,
        model="topic",
        files={"model.onnx": graph(PLANNED), "openvino.onnx": graph(PLANNED)},
        configs=triton_config.config_texts("topic", _TASK, INPUTS)
        | {layout.config_file(job_pb2.RUNTIME_TENSORRT): config},
        logits=logits(PLANNED),
        plans=[_PLAN],
    )
