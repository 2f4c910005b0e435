"""Names and places in a model repository, as stock Triton reads it.

    <repository>/<model>/config.pbtxt             onnxruntime: the default
                         configs/openvino.pbtxt   read with --model-config-name=openvino
                         configs/tensorrt.pbtxt   read with --model-config-name=tensorrt
                         configs/vllm.pbtxt       read with --model-config-name=vllm
                         <version>/tokenizer.json, golden.json, certificate.json, manifest.json
                                   (written last), and the files of the task's forms: model.onnx, ...

Knows names; reads and writes nothing.
"""

import re
from typing import Literal

from conch.v1 import job_pb2
from services.errors import InvalidRequest
from services.storage import join
from services.targets import runtime_name

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "vllm"]
"""A runtime as Triton and the settings name it."""

CERTIFICATE = "certificate.json"

DEFAULT_RUNTIME = "onnxruntime"
CONFIGS: dict[str, str] = {
    "onnxruntime": "config.pbtxt",
    "openvino": "configs/openvino.pbtxt",
    "tensorrt": "configs/tensorrt.pbtxt",
    "vllm": "configs/vllm.pbtxt",
}
"""Where the configuration for pools of a runtime lies in the model's folder, the default's first."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_model_name(model: str, *, field: str = "model") -> None:
    """Raises InvalidRequest naming `field` unless `model` can be a model's name and folder."""
    if not _MODEL_NAME.fullmatch(model):
        raise InvalidRequest.field(
            field,
            f"{model!r} is no model name: letters, digits, '.', '_' and '-', at most 128, "
            "beginning with a letter or digit",
            reason="BAD_MODEL_NAME",
        )


def is_model_name(name: str) -> bool:
    """Returns whether a folder of the repository can be a model."""
    return bool(_MODEL_NAME.fullmatch(name))


def model_uri(repository_uri: str, model: str) -> str:
    """Returns the URI of a model's folder."""
    return join(repository_uri, model)


def version_uri(repository_uri: str, model: str, version: int) -> str:
    """Returns the URI of a version's folder."""
    return join(repository_uri, model, str(version))


def parse_version(name: str) -> int | None:
    """Returns the version that a folder's name means, None if Triton would not take it for one."""
    return int(name) if name.isascii() and name.isdigit() and not name.startswith("0") else None


def config_file(runtime: job_pb2.Runtime.ValueType) -> str:
    """Returns where the configuration for pools of `runtime` lies in the model's folder."""
    return CONFIGS[runtime_name(runtime)]
