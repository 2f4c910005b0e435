"""`conch doctor`: what this machine lacks, each with the line to type."""

import ctypes.util
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType
from rich.text import Text

from services.cli import output, ports, programs, state
from services.cli.output import AsJson
from services.cli.stubs import connect

if TYPE_CHECKING:  # pydantic costs a quarter of the time of `conch --help`
    from services.cli.settings import CliSettings

_LIBRARIES = {
    "trainer": ("torch", "transformers", "accelerate", "datasets"),
    "converter": ("torch", "onnx", "onnxruntime", "onnxscript", "openvino"),
    "gateway": ("tokenizers", "tritonclient", "prometheus_client", "watchfiles"),
    "jobs": ("sqlalchemy", "alembic", "psycopg"),
}
_WANTED_BYTES = 5 << 30
_UP = "conch up --detach"


@dataclass(frozen=True)
class Check:
    """One thing looked at; `fix` is a line to type, empty if `passed`."""

    name: str
    passed: bool
    found: str
    fix: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Look for what this machine lacks and say what to type; exit code 1 if anything is missing.

    Example: conch doctor --json
    """
    settings = connect().settings
    checks = [_safely(look, settings) for look in _LOOKS]
    record = {"passed": all(c.passed for c in checks), "checks": [asdict(c) for c in checks]}
    output.print_result(record, as_json=as_json, view=_view(checks))
    if not record["passed"]:
        raise typer.Exit(1)


def _python(settings: "CliSettings") -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11")


def _libraries(settings: "CliSettings") -> Check:
    missing = sorted(
        {name for names in _LIBRARIES.values() for name in names if not importlib.util.find_spec(name)}
    )
    found = f"missing: {', '.join(missing)}" if missing else f"{sys.prefix}"
    return Check("services' libraries", not missing, found, f"{sys.executable} -m pip install 'conch[local]'")


def _libpython(settings: "CliSettings") -> Check:
    found = ctypes.util.find_library("python3.11")
    return Check("libpython3.11", found is not None, found or "missing", "apt-get install -y libpython3.11")


def _triton(settings: "CliSettings") -> Check:
    root = settings.resolved_triton_env()
    servers = list(root.glob("lib/python3*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    found = str(root) if servers else f"no tritonserver in {root}"
    return Check("Triton's environment", bool(servers), found, f"{sys.executable} -m services.triton.install")


def _disk(settings: "CliSettings") -> Check:
    home = settings.resolved_home()
    free = shutil.disk_usage(home).free
    fix = f"free some space at {home}, or set CONCH_HOME to a larger disk"
    return Check("disk", free >= _WANTED_BYTES, f"{free / 1e9:.1f} GB free at {home}", fix)


def _database(settings: "CliSettings") -> Check:
    import sqlalchemy  # half a second that only this verb should pay

    engine = sqlalchemy.create_engine(settings.resolved_database_url())
    url = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
    except sqlalchemy.exc.SQLAlchemyError as error:
        problem = str(getattr(error, "orig", None) or error).splitlines()[0]
        return Check("database", False, f"{url}: {problem}", "set CONCH_DATABASE_URL to one that answers")
    finally:
        engine.dispose()
    return Check("database", True, url)


def _ports(settings: "CliSettings") -> Check:
    up = state.read(settings.resolved_home())
    if up and up.alive():
        return Check("ports", True, "held by the services")
    taken = [f"{a}{ports.holder(a)}" for a in settings.listeners().values() if not ports.is_free(a)]
    return Check(
        "ports", not taken, f"taken: {', '.join(taken)}" if taken else "free", f"{_UP} --port-offset 100"
    )


def _services(settings: "CliSettings") -> Check:
    silent = [name for name in programs.NAMES if not programs.is_healthy(name, settings)]
    up = state.read(settings.resolved_home())
    logs = settings.resolved_home() / "logs"
    fix = f"tail {logs / silent[0]}.log" if silent and up and up.alive() else _UP
    found = f"not answering: {', '.join(silent)}" if silent else "all healthy"
    return Check("services", not silent, found, fix)


_LOOKS: tuple[Callable[["CliSettings"], Check], ...] = (
    _python,
    _libraries,
    _libpython,
    _triton,
    _disk,
    _database,
    _ports,
    _services,
)


def _safely(look: Callable[["CliSettings"], Check], settings: "CliSettings") -> Check:
    """Returns the check; one that cannot even be made has not passed."""
    try:
        check = look(settings)
    except Exception as error:
        return Check(look.__name__.strip("_"), False, f"{type(error).__name__}: {error}")
    return Check(check.name, True, check.found) if check.passed else check


def _view(checks: list[Check]) -> RenderableType:
    """Returns a line a check, and under what failed the line to type, never wrapped."""
    lines = Text()
    for check in checks:
        lines.append("ok  " if check.passed else "no  ", "green" if check.passed else "red")
        lines.append(f"{check.name:<21} {check.found}\n")
        lines.append(f"    type: {check.fix}\n" if check.fix else "", "bold")
    lines.rstrip()
    return lines
