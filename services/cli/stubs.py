"""The services' generated stubs, connected. Every call has a deadline, set by service config in one place."""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import grpc

from conch.v1 import conversion_pb2_grpc, inference_pb2_grpc, models_pb2_grpc, training_pb2_grpc

if TYPE_CHECKING:  # pydantic costs a quarter of the time of `conch --help`
    from services.cli.settings import CliSettings

_MAX_MESSAGE_BYTES = 64 << 20


def _method(service: str, method: str) -> dict[str, str]:
    return {"service": f"conch.v1.{service}", "method": method}


_SERVICE_CONFIG = {
    "methodConfig": [
        {"name": [{}], "timeout": "30s"},
        # Loads, warms and proves every version of the route before it returns.
        {"name": [_method("ModelService", "SetRoute")], "timeout": "600s"},
        # Written token by token, on a CPU by few each second.
        {
            "name": [
                _method("InferenceService", rpc) for rpc in ("Translate", "Summarize", "Generate", "Chat")
            ],
            "timeout": "600s",
        },
        # A stream lives as long as its job.
        {
            "name": [
                _method("TrainingService", "WatchTrainingJob"),
                _method("ConversionService", "WatchConversionJob"),
            ]
        },
    ]
}
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A watched service that restarts is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Stubs:
    """One stub a service, connected when first used."""

    def __init__(self, settings: "CliSettings") -> None:
        self.settings = settings

    @cached_property
    def training(self) -> "training_pb2_grpc.TrainingServiceStub":
        """The trainer."""
        return training_pb2_grpc.TrainingServiceStub(_channel(self.settings.trainer_address))

    @cached_property
    def conversion(self) -> "conversion_pb2_grpc.ConversionServiceStub":
        """The converter."""
        return conversion_pb2_grpc.ConversionServiceStub(_channel(self.settings.converter_address))

    @cached_property
    def models(self) -> "models_pb2_grpc.ModelServiceStub":
        """The gateway's view of the model repository and its routes."""
        return models_pb2_grpc.ModelServiceStub(self._gateway)

    @cached_property
    def inference(self) -> "inference_pb2_grpc.InferenceServiceStub":
        """The gateway's answers."""
        return inference_pb2_grpc.InferenceServiceStub(self._gateway)

    @cached_property
    def _gateway(self) -> grpc.Channel:
        return _channel(self.settings.gateway_address)


def connect() -> Stubs:
    """Returns the stubs of the services that the settings name."""
    from services.cli.settings import read

    return Stubs(read())


def _channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=_OPTIONS)
