"""Pooling inside the model: right under padding, in the graph as in torch, written down in the config."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModel, T5Config, T5Model

from services.converter import onnx_export
from services.embedder import Embedder
from services.models import find_remark, model_class
from services.tasks import find_task
from services.tasks.feature_extraction.vectors import VECTOR

TASK = find_task("feature-extraction")


def batch() -> dict[str, torch.Tensor]:
    """Returns three texts of 12, 5 and 1 tokens."""
    torch.manual_seed(5)
    ids = torch.randint(1000, 2000, (3, 12))
    mask = torch.zeros_like(ids)
    for row, length in enumerate((12, 5, 1)):
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def vectors(model: Any) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(**batch())[VECTOR].numpy()


def by_hand(base: Path, pooling: str) -> np.ndarray:
    """Returns vectors of any length, text by text and without padding."""
    model, found = AutoModel.from_pretrained(base).eval(), []
    for row in zip(*batch().values(), strict=True):
        inputs = {name: t[None, : int(row[1].sum())] for name, t in zip(batch(), row, strict=True)}
        with torch.inference_mode():
            [hidden] = model(**inputs).last_hidden_state
        found.append({"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[pooling])
    return torch.stack(found).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_changes_no_vector_in_torch_nor_in_the_graph(
    pooling: str, tiny_bert: Path, tmp_path: Path
) -> None:
    model = Embedder.from_pretrained(tiny_bert, pooling=pooling, normalize=False)
    want = by_hand(tiny_bert, pooling)
    assert vectors(model) == pytest.approx(want, abs=1e-5)
    onnx_export.export(model, TASK, max_length=32, path=tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    [got] = session.run([VECTOR], {name: tensor.numpy() for name, tensor in batch().items()})
    assert got == pytest.approx(want, abs=1e-5)


def test_vectors_have_length_one_unless_told_otherwise(tiny_bert: Path) -> None:
    lengths = np.linalg.norm(vectors(Embedder.from_pretrained(tiny_bert)), axis=1)
    assert lengths == pytest.approx(1, abs=1e-6)


def test_the_config_remembers_what_was_chosen_and_a_choice_replaces_it(
    tiny_bert: Path, tmp_path: Path
) -> None:
    Embedder.from_pretrained(tiny_bert, pooling="cls", normalize=False).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["pooling"], written["normalize"]) == ("cls", False)
    assert Embedder.from_pretrained(tmp_path).config.pooling == "cls"
    assert Embedder.from_pretrained(tmp_path, pooling="max").config.pooling == "max"


def test_weights_keep_the_names_that_transformers_knows(tiny_bert: Path) -> None:
    ours, theirs = Embedder.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_dimensions_must_be_fewer_than_the_vectors_have(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match="32 dimensions"):
        Embedder.from_pretrained(tiny_bert, dimensions=[16, 64])


def test_a_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 is an encoder with a decoder"):
        Embedder.from_pretrained(tmp_path)


def test_classes_are_found_by_name_whoever_they_belong_to() -> None:
    assert model_class("Embedder") is Embedder
    assert model_class("AutoModel") is AutoModel


@pytest.mark.parametrize(
    ("written", "differs"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, True),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, False),
        ({"pooling_mode": "cls"}, True),
        ({"pooling_mode": "mean"}, False),
        ({"word_embedding_dimension": 32}, False),
        (None, False),
    ],
)
def test_a_base_model_that_was_trained_with_another_pooling_is_remarked_upon(
    written: dict[str, Any] | None, differs: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    if written is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(written))
    config = Embedder.from_pretrained(tmp_path).config
    said = find_remark("Embedder", str(tmp_path), config)
    assert ("was trained with cls pooling, mean pooling was asked for" in said) == differs
    assert not find_remark("AutoModel", str(tmp_path), config)


def test_nothing_is_remarked_upon_where_no_hub_is_reachable(tiny_bert: Path) -> None:
    assert not find_remark("Embedder", "nobody/no-such-model", Embedder.from_pretrained(tiny_bert).config)
