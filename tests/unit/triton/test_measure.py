"""The graph that is measured where no version is published yet."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from services.triton import synthetic_encoder


def test_the_synthetic_encoder_takes_what_a_classifier_takes(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    synthetic_encoder.write(path)
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path)
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    (logits,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    assert logits.shape == (2, 2)
    assert np.isfinite(logits).all()
