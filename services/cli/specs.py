"""What the specs of all jobs have in common: options without a default, places, ids, precisions.

Relative paths become absolute, since services have other folders. Knows words and paths; sends nothing.
"""

import secrets
from functools import partial
from pathlib import Path

import typer

from conch.v1 import job_pb2
from services.cli.failures import USAGE, CliError

# What stands for "not given" (0, empty) is no default to show: the service has its own, told in the help.
Option = partial(typer.Option, show_default=False)
# Numbers that the contract has as uint32.
Whole = partial(Option, min=0, max=(1 << 32) - 1)
PRECISIONS: dict[str, job_pb2.Precision.ValueType] = {
    "": job_pb2.PRECISION_UNSPECIFIED,
    "fp32": job_pb2.PRECISION_FP32,
    "bf16": job_pb2.PRECISION_BF16,
    "int8": job_pb2.PRECISION_INT8,
}


def absolute(place: str) -> str:
    """Returns a path that exists here as an absolute one; URIs and hub ids stay."""
    path = Path(place).expanduser()
    looks_like_path = place.startswith((".", "~", "/")) or path.exists()
    return str(path.absolute()) if place and "://" not in place and looks_like_path else place


def data_path(place: str) -> str:
    """Returns a data file's place; there are no hub ids here, so whatever is no URI is a path."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def new_id(stem: str) -> str:
    """Returns a fresh job id that starts with `stem`, made here so that a repeated create makes one job."""
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower()).strip("-")[:40]
    return f"{clean or 'job'}-{secrets.token_hex(3)}"


def precision(name: str, option: str) -> job_pb2.Precision.ValueType:
    """Returns the precision called so; empty is the default. Raises CliError for another name."""
    if name not in PRECISIONS:
        known = ", ".join(filter(None, PRECISIONS))
        raise CliError(f"{option} {name!r}: one of {known}", exit_code=USAGE)
    return PRECISIONS[name]
