"""Small published versions of text-generation: a real tokenizer and certificate, any bytes as weights.

Their golden texts are those that `fake_generation` writes by default.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2, tasks_pb2
from examples.assets import minilm
from services import storage
from services.repository import publishing
from services.tasks import find_task
from tests.contract.fake_generation import backwards

MAX_LENGTH = 64
PROMPTS = ("once upon a time", "the quick brown fox", "to be or not to be", "call me")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "{{ message.role }}: {{ message.content }} {% endfor %}assistant:"
)
_FILE = "openvino/openvino_model.xml"


def publish_generator(
    repository: Path,
    version: int = 1,
    *,
    model: str = "stories",
    chat_template: str = TEMPLATE,
    ending: str = "",
    limit: float = 0.0,
    figure: str = "text_mismatch_rate",
    max_length: int = MAX_LENGTH,
    ir: Path | None = None,
    golden: Mapping[str, str] | None = None,
    config: str = "",
) -> Path:
    """Publishes a version and returns its folder.

    `ending` is added to its golden texts (a version that then writes otherwise), `limit` is its certificate's
    on `figure`, by default the share of such texts. A real engine's version brings the folder of its `ir`,
    tokenizer.json among its files, what it writes after which prompts, and its configuration.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if ir:
            shutil.copytree(ir, folder / "openvino")
        else:
            (folder / "openvino").mkdir()
            (folder / _FILE).write_text(f"weights of {model} {version}")
        shutil.copyfile((ir or minilm()) / "tokenizer.json", folder / "tokenizer.json")
        (folder / "golden.json").write_text(json_format.MessageToJson(_golden(golden, ending)))
        certificate = _certificate(folder, model, version, figure, limit)
        (folder / "certificate.json").write_text(json_format.MessageToJson(certificate))
        _publish(folder, repository, model, version, config, _manifest(chat_template, max_length))
    return repository / model / str(version)


def _golden(golden: Mapping[str, str] | None, ending: str) -> models_pb2.GoldenExamples:
    texts = golden or {prompt: "".join(backwards(prompt)) + ending for prompt in PROMPTS}
    return models_pb2.GoldenExamples(
        examples=[models_pb2.GoldenExample(text=prompt, generated=text) for prompt, text in texts.items()]
    )


def _certificate(folder: Path, model: str, version: int, figure: str, limit: float) -> models_pb2.Certificate:
    measured = job_pb2.Figure(name=figure, value=0.0, limit=limit, passed=True)
    verdict = job_pb2.Verdict(
        runtime=job_pb2.RUNTIME_OPENVINO,
        precision=job_pb2.PRECISION_FP32,
        files={_FILE: storage.sha256_of(folder / _FILE)},
        passed=True,
        figures=[measured],
        num_examples=len(PROMPTS),
    )
    return models_pb2.Certificate(
        model=model, version=version, checkpoint_digest=f"digest-{version}", verdicts=[verdict]
    )


def _manifest(chat_template: str, max_length: int) -> models_pb2.CheckpointManifest:
    spec = tasks_pb2.TextGenerationSpec(chat_template=chat_template)
    return models_pb2.CheckpointManifest(
        task="text-generation",
        max_length=max_length,
        task_spec=tasks_pb2.TaskSpec(text_generation=spec),
    )


def _publish(
    folder: Path,
    repository: Path,
    model: str,
    version: int,
    config: str,
    checkpoint: models_pb2.CheckpointManifest,
) -> None:
    form = find_task("text-generation").form_in(job_pb2.RUNTIME_ONNXRUNTIME)
    assert form
    manifest = models_pb2.VersionManifest(
        model=model,
        version=version,
        conversion_job=f"convert-{model}-{version}",
        checkpoint_digest=f"digest-{version}",
        checkpoint=checkpoint,
    )
    engine = config or f'backend: "{form.backend}"'
    publishing.publish(
        folder,
        repository_uri=str(repository),
        model=model,
        version=version,
        configs={"config.pbtxt": f'name: "{model}"  version_policy {{ all {{ }} }}  {engine}'},
        manifest=manifest,
    )
