"""Which versions this machine's routes name, and whether the gateway is done with loading them.

Reads the routes file that the gateway owns, since `conch up` must know it before there is a gateway.
"""

from typing import TYPE_CHECKING

import grpc

from conch.v1 import models_pb2, models_pb2_grpc
from services import routes as values
from services.cli.stubs import Stubs
from services.errors import InvalidRequest
from services.repository.routed import versions_of

if TYPE_CHECKING:
    from services.cli.settings import CliSettings

_SETTLED = (models_pb2.Version.STATE_SERVING, models_pb2.Version.STATE_FAILED)


def routed_versions(settings: "CliSettings") -> list[tuple[str, int]]:
    """Returns model and version of whatever the routes file names; none if it is absent or damaged."""
    try:
        return versions_of(values.parse(settings.resolved_routes().read_text(encoding="utf-8")))
    except (OSError, ValueError, InvalidRequest):
        # The gateway says what is wrong with its file.
        return []


def is_settled(settings: "CliSettings", versions: list[tuple[str, int]]) -> bool:
    """Returns True once the gateway serves each of the versions or has given it up."""
    models = Stubs(settings).models
    try:
        return all(_state(models, model, version) in _SETTLED for model, version in versions)
    except grpc.RpcError:
        return False


def _state(models: "models_pb2_grpc.ModelServiceStub", model: str, version: int) -> int:
    return models.GetVersion(models_pb2.GetVersionRequest(model=model, version=version)).version.state
