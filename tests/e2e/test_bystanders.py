"""Stock tools that know nothing of Conch talk to what runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from examples.stack import Conch
from services.tasks.encoding import Encoder, pad
from tests.e2e.shipped import Shipped


def test_a_stock_tritonclient_gets_the_same_logits_from_the_staged_model(
    conch: Conch, sentiment: Shipped
) -> None:
    golden = json.loads((sentiment.versions / "1" / "golden.json").read_text(encoding="utf-8"))["examples"][0]
    encoder = Encoder.from_file(sentiment.versions / "1" / "tokenizer.json", 64)
    rows = encoder.encode([golden["text"]])
    inputs = []
    for name, value in pad(rows, len(rows[0]), encoder.pad_id).items():
        inputs.append(InferInput(name, value.shape, "INT64"))
        inputs[-1].set_data_from_numpy(value)
    with InferenceServerClient(conch.environment["CONCH_TRITON_ADDRESS"]) as triton:
        answer = triton.infer("sentiment", inputs, "1", outputs=[InferRequestedOutput("logits")])
    (window,) = golden["windows"]
    np.testing.assert_allclose(answer.as_numpy("logits")[0], window["outputs"]["logits"]["values"], atol=1e-3)


def test_buf_curl_calls_the_gateway_by_reflection_alone(conch: Conch, sentiment: Shipped) -> None:
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run(
        [
            buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect",
            "--data", json.dumps({"model": "sentiment", "texts": ["A dull, lifeless mess."], "topK": 1}),
            f"http://{conch.gateway}/conch.v1.InferenceService/Classify",
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["classifications"][0]["labels"][0]["label"] in {"0", "1"}
    assert answer["servedBy"]["runtime"] == "RUNTIME_ONNXRUNTIME"
