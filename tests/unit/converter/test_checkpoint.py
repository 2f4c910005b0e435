"""A checkpoint that cannot be converted is refused before any work, in words that say what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format
from safetensors.torch import load_file, save_file

from conch.v1 import models_pb2
from services import storage
from services.converter import checkpoint
from services.errors import InvalidRequest, NotFound, NotReady, ServiceError
from tests.unit.converter import checkpoints

LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "sound"
    checkpoints.save(folder, checkpoints.bert(LABELS), LABELS)
    return folder


@pytest.fixture
def artifact(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "artifact"))


def test_a_sound_checkpoint_loads_and_samples_by_its_seed(artifact: Path, tmp_path: Path) -> None:
    source = checkpoint.load(str(artifact), tmp_path / "work")
    assert [e.row for e in source.sample(10)] == [e.row for e in source.sample(10)]
    assert len(source.sample(10)) == 10
    assert len(source.sample(10_000)) == 64


def test_lines_end_at_newlines_alone(artifact: Path, tmp_path: Path) -> None:
    """U+2028 may stand in a text, and str.splitlines would break the row there."""
    line = json.dumps({"text": "good\u2028film", "text_pair": "", "target": "positive"}, ensure_ascii=False)
    (artifact / "held_out.jsonl").write_text(line + "\n", encoding="utf-8")
    _complete(artifact)
    assert len(checkpoint.load(str(artifact), tmp_path / "work").held_out) == 1


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        checkpoint.load(str(tmp_path / "nowhere"), tmp_path / "work")


def test_a_damaged_byte_is_named(artifact: Path, tmp_path: Path) -> None:
    weights = artifact / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = _refused(NotReady, artifact, tmp_path)
    assert refused.reason == "ARTIFACT_DAMAGED"
    assert "model.safetensors" in refused.message


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "golden.json", "held_out.jsonl", "model.safetensors"]
)
def test_a_missing_file_is_named(name: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / name).unlink()
    _complete(artifact)
    refused = _refused(NotReady, artifact, tmp_path)
    assert refused.reason == "CHECKPOINT_INCOMPLETE"
    assert name in refused.message


def test_a_version_is_no_checkpoint(artifact: Path, tmp_path: Path) -> None:
    (artifact / "manifest.json").unlink()
    storage.upload(artifact, str(artifact), models_pb2.Manifest(version=models_pb2.VersionManifest()))
    assert _refused(InvalidRequest, artifact, tmp_path).reason == "NOT_A_CHECKPOINT"


def test_an_unknown_task_is_refused_with_the_known_ones(artifact: Path, tmp_path: Path) -> None:
    _complete(artifact, lambda manifest: setattr(manifest.checkpoint, "task", "image-classification"))
    refused = _refused(InvalidRequest, artifact, tmp_path)
    assert refused.reason == "UNKNOWN_TASK"
    assert "text-classification" in refused.message


def test_labels_of_manifest_and_model_must_agree_in_number(artifact: Path, tmp_path: Path) -> None:
    _complete(artifact, lambda manifest: manifest.checkpoint.labels.append("neutral"))
    refused = _refused(NotReady, artifact, tmp_path)
    assert refused.reason == "LABELS_MISMATCH"
    assert "neutral" in refused.message


def test_labels_of_manifest_and_model_must_agree_in_order(artifact: Path, tmp_path: Path) -> None:
    def swap(manifest: models_pb2.Manifest) -> None:
        manifest.checkpoint.labels[:] = LABELS[::-1]

    _complete(artifact, swap)
    assert _refused(NotReady, artifact, tmp_path).reason == "LABELS_MISMATCH"


def test_the_longest_input_must_fit_the_model_s_positions(artifact: Path, tmp_path: Path) -> None:
    _complete(artifact, lambda manifest: setattr(manifest.checkpoint, "max_length", 65))
    assert _refused(NotReady, artifact, tmp_path).reason == "LENGTH_MISMATCH"


def test_a_held_out_label_that_the_model_does_not_know_is_refused(artifact: Path, tmp_path: Path) -> None:
    (artifact / "held_out.jsonl").write_text('{"text": "good", "target": "mixed"}', encoding="utf-8")
    _complete(artifact)
    assert "mixed" in _refused(NotReady, artifact, tmp_path).message


def test_parity_needs_held_out_examples(artifact: Path, tmp_path: Path) -> None:
    (artifact / "held_out.jsonl").write_text("\n", encoding="utf-8")
    _complete(artifact)
    assert _refused(NotReady, artifact, tmp_path).reason == "NO_HELD_OUT_EXAMPLES"


def test_an_unreadable_held_out_row_is_numbered(artifact: Path, tmp_path: Path) -> None:
    (artifact / "held_out.jsonl").write_text('{"text": "good", "target": "positive"}\n{"te', encoding="utf-8")
    _complete(artifact)
    assert "row 2" in _refused(NotReady, artifact, tmp_path).message


def test_weights_without_a_head_are_refused_instead_of_filled_with_noise(
    artifact: Path, tmp_path: Path
) -> None:
    path = artifact / "model.safetensors"
    weights = {name: w for name, w in load_file(path).items() if not name.startswith("classifier")}
    save_file(weights, path, metadata={"format": "pt"})
    _complete(artifact)
    refused = _refused(NotReady, artifact, tmp_path)
    assert refused.reason == "CHECKPOINT_INCOMPLETE"
    assert "classifier.weight" in refused.message


def test_weights_that_transformers_cannot_read_are_refused(artifact: Path, tmp_path: Path) -> None:
    (artifact / "model.safetensors").write_bytes(b"no safetensors")
    _complete(artifact)
    assert _refused(NotReady, artifact, tmp_path).reason == "CHECKPOINT_UNREADABLE"


def _complete(folder: Path, change: Callable[[models_pb2.Manifest], None] = lambda _: None) -> None:
    """Gives the artifact a manifest that fits its files again."""
    path = folder / "manifest.json"
    manifest = json_format.Parse(path.read_text(), models_pb2.Manifest())
    path.unlink()
    change(manifest)
    storage.upload(folder, str(folder), manifest)


def _refused(kind: type[ServiceError], artifact: Path, tmp_path: Path) -> ServiceError:
    with pytest.raises(kind) as refused:
        checkpoint.load(str(artifact), tmp_path / "work")
    return refused.value
