"""`conch`: runs one verb and turns whatever goes wrong into one line and an exit code."""

import os
import sys
from collections.abc import Sequence

import grpc
import typer

from conch.errors import ConchError
from services.cli import failures
from services.cli.app import app
from services.cli.failures import BUG, FAILED, INTERRUPTED, USAGE, CliError
from services.errors import ServiceError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `conch ARGV` and returns its exit code; see services.cli.failures."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout has seen enough; what is still buffered must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        failure = _failure(error)
        print(f"conch: {failure.message}", file=sys.stderr)
        return failure.exit_code


def _run(argv: list[str]) -> int:
    code = typer.main.get_command(app).main(args=argv, prog_name="conch", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _failure(error: Exception) -> CliError:
    # Not worth their time unless something failed.
    from pydantic import ValidationError

    from services.settings import describe

    if isinstance(error, CliError):
        return error
    if isinstance(error, grpc.RpcError):
        return failures.of_rpc(error)
    if isinstance(error, ConchError):
        return failures.of_error(error)
    if isinstance(error, typer.exceptions.TyperException):
        return CliError(f"{error.format_message()} (see: conch --help)", exit_code=USAGE)
    if isinstance(error, ValidationError):
        return CliError(describe(error), exit_code=USAGE)
    if isinstance(error, ServiceError | OSError):
        return CliError(str(error))
    return CliError(f"this is a bug of conch: {type(error).__name__}: {error}", exit_code=BUG)


if __name__ == "__main__":
    sys.exit(main())
