"""The ONNX twin on a GPU: what its configuration says there. Knows Triton's onnxruntime backend."""

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup


def on_gpu(text: bytes) -> bytes:
    """Returns onnxruntime's configuration of a model with its instances moved from the CPU to the GPU.

    Their arithmetic stays fp32, as the certificate says: CUDA's own default is TF32.
    """
    config = text_format.Parse(text.decode(), ModelConfig(), allow_unknown_field=True)
    for group in config.instance_group:
        group.kind = ModelInstanceGroup.KIND_GPU
    cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    cuda.parameters["use_tf32"] = "0"
    return str(text_format.MessageToString(config, as_utf8=True)).encode()
