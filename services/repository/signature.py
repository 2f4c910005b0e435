"""What callers of a model rely on: names, dtypes and extents of its inputs and outputs.

Read from config.pbtxt; the same for every runtime and every version of a model. Knows Triton's
ModelConfig; knows nothing about where it is stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.errors import NotReady

Tensors = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Signature:
    """dtype and extents by name; extents include the batch axis, -1 = dynamic."""

    inputs: Tensors
    outputs: Tensors


def read(text: str, *, source: str) -> Signature:
    """Returns the signature of a config.pbtxt. Raises NotReady naming `source` if it is not one."""
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise NotReady(f"{source} is no config.pbtxt: {error}", reason="CONFIG_DAMAGED") from error
    batch = (-1,) if config.max_batch_size > 0 else ()
    return Signature(_tensors(config.input, batch), _tensors(config.output, batch))


def differences(published: Signature, new: Signature) -> list[str]:
    """Returns one sentence for everything that differs; empty if callers see no difference."""
    return [
        *_differences("input", published.inputs, new.inputs),
        *_differences("output", published.outputs, new.outputs),
    ]


def _tensors(
    tensors: Iterable[model_config_pb2.ModelInput | model_config_pb2.ModelOutput], batch: tuple[int, ...]
) -> Tensors:
    return {
        tensor.name: (model_config_pb2.DataType.Name(tensor.data_type), (*batch, *tensor.dims))
        for tensor in tensors
    }


def _differences(kind: str, published: Tensors, new: Tensors) -> list[str]:
    found = [f"{kind} {name!r} is missing" for name in published if name not in new]
    found += [f"{kind} {name!r} is new" for name in new if name not in published]
    for name in published.keys() & new.keys():
        (dtype, dims), (new_dtype, new_dims) = published[name], new[name]
        if dtype != new_dtype:
            found.append(f"{kind} {name!r} is {new_dtype}, was {dtype}")
        if dims != new_dims:
            found.append(f"{kind} {name!r} has dims {list(new_dims)}, had {list(dims)}")
    return found
