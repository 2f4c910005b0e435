"""The GPUs that this process sees. Knows nvidia-smi, which NVIDIA's container runtime brings into a pod."""

import subprocess

_COMMAND = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_SECONDS = 30.0


def compute_capability() -> str:
    """Returns the compute capability of the GPUs here, such as "9.0"; empty if there is none.

    GPUs that differ are said with "and" between them: no plan is for both.
    """
    try:
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " and ".join(sorted({line.strip() for line in done.stdout.splitlines() if line.strip()}))
