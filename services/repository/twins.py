"""The ONNX twin on a GPU: what its configuration says there. Knows Triton's onnxruntime backend."""

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from services.errors import NotReady


def on_gpu(text: bytes, *, source: str) -> bytes:
    """Returns onnxruntime's configuration of a model with its instances moved from the CPU to the GPU.

    Their arithmetic stays fp32, as the certificate says: CUDA's own default is TF32. Raises NotReady
    naming `source` if the text is no configuration.
    """
    try:
        config = text_format.Parse(text.decode(), ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise NotReady(f"{source} is no config.pbtxt: {error}", reason="CONFIG_DAMAGED") from error
    for group in config.instance_group:
        group.kind = ModelInstanceGroup.KIND_GPU
    cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    cuda.parameters["use_tf32"] = "0"
    return str(text_format.MessageToString(config, as_utf8=True)).encode()
