"""`conch prove`: says whether the Triton of a pod answers right, before any gateway sends it calls."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import pods
from services.cli.failures import CliError


def prove(
    pool: Annotated[str | None, typer.Option(help="The pod's pool. CONCH_POOL.")] = None,
    routes: Annotated[Path | None, typer.Option(help="Routes as JSON. CONCH_ROUTES_FILE.")] = None,
    staged: Annotated[Path | None, typer.Option(help="What Triton reads. CONCH_STAGED.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, tensorrt or vllm. CONCH_RUNTIME.")
    ] = None,
    triton: Annotated[str | None, typer.Option(help="host:port of Triton. CONCH_TRITON_ADDRESS.")] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port where health is asked. CONCH_PROOF_ADDRESS.")
    ] = None,
) -> None:
    """Prove what a pod's Triton holds: the container whose readiness is the pod's.

    Waits for the Triton beside it, sends it the golden examples of every version that the routes of the pool
    name, and says SERVING by grpc.health.v1 once all came back right. Until then, and when Triton loses a
    version, it says NOT_SERVING, so a rollout stops at a pod that answers wrong. Ends with SIGTERM.

    Example: conch prove --pool cpu --routes routes.json --staged /staged --runtime openvino
    """
    import asyncio

    from services import logs
    from services.errors import ServiceError
    from services.gateway.pod_proof import ProofSettings, serve
    from services.repository.settings import RoutedSettings

    given: dict[str, Any] = {
        "pool": pool,
        "routes_file": routes,
        "staged": staged,
        "runtime": runtime,
        "triton_address": triton,
        "proof_address": address,
    }
    settings = ProofSettings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(service="proof", level=settings.log_level)
    with pods.explained(RoutedSettings.model_fields["termination_log"].default):
        try:
            asyncio.run(serve(settings))
        except ServiceError:
            raise
        except OSError as error:
            raise CliError(error.strerror or str(error)) from error
