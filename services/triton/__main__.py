"""`python -m services.triton`: becomes tritonserver, so that its pid and its signals are Triton's own."""

import os
import sys

from services.errors import ServiceError
from services.settings import read
from services.triton import launcher
from services.triton.environment import Environment
from services.triton.settings import TritonSettings


def main() -> None:
    """Replaces this process by tritonserver; exits 2 with one line if there is none or a setting is wrong."""
    settings = read(TritonSettings, program="triton")
    try:
        environment = Environment(settings.resolved_env())
        backends = launcher.prepare_backends(settings.resolved_home() / "triton-backends", environment)
    except (ServiceError, OSError) as error:
        print(f"triton: {error}", file=sys.stderr)
        sys.exit(2)
    arguments = launcher.command(settings, backends=backends)
    variables = launcher.process_environment(environment, os.environ)
    os.chdir(launcher.run_folder(settings))
    os.execve(arguments[0], arguments, variables)


if __name__ == "__main__":
    main()
