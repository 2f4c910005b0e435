"""`conch models`: what the repository holds, with proof and provenance."""

from collections.abc import Iterator
from typing import Annotated

import typer

from conch.v1 import models_pb2
from services.cli import output, views
from services.cli.failures import NOT_FOUND, CliError
from services.cli.output import AsJson
from services.cli.stubs import Stubs, connect


def models(context: typer.Context, as_json: AsJson = False) -> None:
    """Show models, versions and their certificates; alone it lists the models.

    Examples:

      conch models

      conch models show sentiment

      conch models show sentiment --version 3 --json
    """
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)


def list_models(as_json: AsJson = False) -> None:
    """List the models with their versions and routes; with --json one model a line.

    Example: conch models list --json
    """
    found = list(all_models(connect()))
    if not as_json:
        return output.print_result({}, as_json=False, view=views.models(found))
    for model in found:
        output.print_json(model)
    return None


def show(
    name: Annotated[str, typer.Argument(help="The model.", show_default=False)],
    version: Annotated[int, typer.Option(min=0, help="Default: the newest.", show_default=False)] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one version: state, where it came from, and its certificate's figures.

    Example: conch models show sentiment --version 3
    """
    stubs = connect()
    request = models_pb2.GetVersionRequest(model=name, version=version or newest_version(stubs, name))
    found = stubs.models.GetVersion(request).version
    output.print_result(found, as_json=as_json, view=views.version(found))


def all_models(stubs: Stubs) -> Iterator[models_pb2.Model]:
    """Yields every model of the repository, by name."""
    token = ""
    while True:
        page = stubs.models.ListModels(models_pb2.ListModelsRequest(page_size=1000, page_token=token))
        yield from page.models
        token = page.next_page_token
        if not token:
            return


def newest_version(stubs: Stubs, name: str) -> int:
    """Returns a model's newest published version. Raises CliError if it has none."""
    model = stubs.models.GetModel(models_pb2.GetModelRequest(name=name)).model
    if not model.versions:
        raise CliError(f"model {name} has no published version", exit_code=NOT_FOUND)
    return int(model.versions[0])
