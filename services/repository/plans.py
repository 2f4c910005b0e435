"""Which TensorRT plan of a version a pod can run. Knows plans and GPUs by their numbers; opens neither."""

from dataclasses import dataclass

from conch.v1 import models_pb2
from services.errors import NotReady


@dataclass(frozen=True)
class Device:
    """The GPU of a pod and the TensorRT of its image; empty = none, or not known."""

    compute_capability: str = ""
    tensorrt_version: str = ""

    def fits(self, plan: models_pb2.Plan) -> bool:
        """Returns whether the plan was built for this kind of GPU and this very TensorRT."""
        return (plan.compute_capability, plan.tensorrt_version) == (
            self.compute_capability,
            self.tensorrt_version,
        )

    def __str__(self) -> str:
        gpu = f"compute capability {self.compute_capability}" if self.compute_capability else "no GPU"
        return f"{gpu} and TensorRT {self.tensorrt_version or 'of unknown version'}"


def find(version: models_pb2.Version, device: Device) -> models_pb2.Plan:
    """Returns the plan of the version for `device`; knows nothing of its certificate.

    Raises NotReady(PLAN_UNFIT) that says what the pod has and which plans there are.
    """
    for plan in version.manifest.plans:
        if device.fits(plan):
            return plan
    message = f"{version.model}@{version.version}: this pod has {device}, {_offered(version)}"
    raise NotReady(message, reason="PLAN_UNFIT")


def describe(plan: models_pb2.Plan) -> str:
    """Returns "9.0 with TensorRT 10.14.1.48"."""
    return f"{plan.compute_capability} with TensorRT {plan.tensorrt_version}"


def _offered(version: models_pb2.Version) -> str:
    plans = [describe(plan) for plan in version.manifest.plans]
    return f"its plans are for {', '.join(plans)}" if plans else "it has no plan"
