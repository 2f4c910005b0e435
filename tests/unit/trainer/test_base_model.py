"""A base model that cannot be loaded is refused by the field that names it, whatever transformers raises."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig

from conch.v1 import models_pb2
from services import storage
from services.errors import InvalidRequest
from services.tasks import TASKS, Facts
from services.trainer import base_model

TASK = TASKS["text-classification"]
FACTS = Facts(("a", "b", "c"))


def load(source: Path | str, scratch: Path) -> Any:
    located = base_model.locate(str(source), scratch / "base")
    config = base_model.load_config(located)
    base_model.save_tokenizer(located, scratch / "tokenizer", max_length=64)
    base_model.check_vocabulary(scratch / "tokenizer", config)
    return base_model.load_model(located, TASK, FACTS)[0]


def refusal(source: Path | str, scratch: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        load(source, scratch)
    assert [v.field for v in caught.value.violations] == ["spec.base_model"]
    assert "\n" not in caught.value.message
    return caught.value.message


def damaged(base: Path, folder: Path, name: str, content: bytes | None) -> Path:
    shutil.copytree(base, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return folder


def test_a_head_with_the_labels_is_put_on_the_base_model(tiny_bert: Path, tmp_path: Path) -> None:
    model = load(tiny_bert, tmp_path)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.classifier.out_features == 3


def test_a_head_of_another_size_is_replaced(tiny_bert: Path, tmp_path: Path) -> None:
    load(tiny_bert, tmp_path).save_pretrained(tmp_path / "tuned")
    model, fresh = base_model.load_model(str(tmp_path / "tuned"), TASK, Facts(("x", "y")))
    assert (model.classifier.out_features, fresh) == (2, [])


def test_an_artifact_and_a_file_uri_are_base_models_too(tiny_bert: Path, tmp_path: Path) -> None:
    storage.upload(tiny_bert, str(tmp_path / "artifact"), models_pb2.Manifest())
    load(f"file://{tmp_path}/artifact", tmp_path)


@pytest.mark.parametrize("source", ["/no/such/folder", "./no-such-folder", "file:///no/such/folder"])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, source: str) -> None:
    assert f"there is no folder {source}" in refusal(source, tmp_path)


@pytest.mark.parametrize("source", ["nobody/no-such-model", "a//b", "white space"])
def test_a_hub_id_that_cannot_be_read_is_refused(tmp_path: Path, source: str) -> None:
    assert source in refusal(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "no-such-type"}'),
        ("model.safetensors", None),
        ("model.safetensors", b"not safetensors"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", None),
    ],
)
def test_a_damaged_folder_is_refused(
    tiny_bert: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    refusal(damaged(tiny_bert, tmp_path / "base", name, content), tmp_path)


def test_a_model_without_the_tasks_head_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    config = json.dumps({"model_type": "vit"}).encode()
    refusal(damaged(tiny_bert, tmp_path / "base", "config.json", config), tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_found(tiny_bert: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_bert, vocab_size=100)
    with pytest.raises(InvalidRequest, match="has 30522 tokens, its model 100"):
        base_model.check_vocabulary(tiny_bert, config)


def test_the_saved_tokenizer_pads_and_cuts_as_the_model_wants_it(tiny_bert: Path, tmp_path: Path) -> None:
    base_model.save_tokenizer(str(tiny_bert), tmp_path, max_length=64)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (tokenizer.padding["pad_id"], tokenizer.truncation["max_length"]) == (0, 64)


@pytest.mark.parametrize(
    ("kind", "limit"), [("bert", 512), ("roberta", 510), ("distilbert", 512), ("modernbert", 8192)]
)
def test_the_longest_input_follows_from_the_config(kind: str, limit: int) -> None:
    assert base_model.position_limit(AutoConfig.for_model(kind)) == limit
