"""A causal language model's checkpoint to OpenVINO's IR, which the openvino_generation backend reads.

The export runs in a process of its own, because it wants another transformers than ours; see
ir_environment. Knows optimum-intel's command line; knows nothing about jobs.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from services.converter import ir_environment
from services.errors import NotReady
from services.settings import SharedSettings

# datasets, where it is installed, wants the huggingface_hub of our own transformers; the export wants none.
_PROGRAM = """
import sys
sys.modules["datasets"] = None
from optimum.commands.optimum_cli import main
main()
"""
_WRITTEN = ("openvino_model.xml", "openvino_model.bin")
# As the checkpoint has them: an older transformers would write them otherwise.
_NEEDED = ("config.json", "tokenizer.json")
_COPIED = (*_NEEDED, "generation_config.json", "tokenizer_config.json", "chat_template.jinja")


def export(
    checkpoint: Path,
    target: Path,
    *,
    precision: Literal["fp32", "int8"] = "fp32",
    home: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Fills the new folder `target` with the IR of the Hugging Face checkpoint in a folder, and returns it.

    int8 are weights alone, a scale for each channel. Takes some 15 s and three times the weights' memory.
    `home` holds the packages, by default CONCH_HOME. `check` is called some times a second; what it raises
    stops the export. Raises NotReady: CHECKPOINT_INCOMPLETE, EXPORT_PACKAGES_MISSING or EXPORT_FAILED.
    """
    missing = [name for name in _NEEDED if not (checkpoint / name).is_file()]
    if missing:
        raise NotReady(f"the checkpoint lacks {', '.join(missing)}", reason="CHECKPOINT_INCOMPLETE")
    packages = ir_environment.folder(home or SharedSettings().resolved_home())
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        _run(_command(packages, checkpoint, Path(work), precision), Path(work) / "log", check)
        for name in _WRITTEN:
            (Path(work) / name).rename(target / name)
    for name in _COPIED:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, target / name)
    return target


def _command(packages: Path, checkpoint: Path, target: Path, precision: str) -> list[str]:
    return [
        *("env", f"PYTHONPATH={packages}", "HF_HUB_OFFLINE=1", "PYTHONDONTWRITEBYTECODE=1"),
        *(sys.executable, "-c", _PROGRAM, "export", "openvino"),
        *("--model", str(checkpoint.absolute()), "--task", "text-generation-with-past"),
        *("--weight-format", precision, "--disable-convert-tokenizer", str(target)),
    ]


def _run(command: list[str], log: Path, check: Callable[[], None]) -> None:
    with log.open("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                check()
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            output.seek(0)
            raise NotReady(
                f"cannot export to OpenVINO's IR: {_last_line(output.read())}", reason="EXPORT_FAILED"
            )


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "the export said nothing"
