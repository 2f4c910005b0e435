"""Groups of options that several verbs take: declared once as a dataclass, spread over a verb's signature.

Knows typer's way of reading signatures; the specs are built where the messages are known.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import wraps
from typing import Any, get_type_hints

from services.cli.failures import USAGE, CliError


def takes(**groups: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that spreads dataclasses of options over a verb's signature.

    `takes(options=TrainingOptions)` replaces the verb's parameter `options` by the dataclass's fields, each
    an option (`Annotated[..., typer.Option()]`) with a default, and calls the verb with
    `options=TrainingOptions(...)`.
    """

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(verb)
        def spread(**given: Any) -> Any:
            built = {
                name: group(**{field.name: given.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            return verb(**given, **built)

        signature = _merged(verb, groups)
        spread.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it by inspect.signature
        spread.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return spread

    return decorate


def pairs(values: list[str], option: str) -> dict[str, str]:
    """Returns the `name=value` arguments of an option as a dict. Raises CliError for anything else."""
    found = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not name or not equals or not content:
            raise CliError(f"{option} {value!r}: write name=value", exit_code=USAGE)
        found[name] = content
    return found


def number(text: str, option: str) -> float:
    """Returns the number. Raises CliError that names the option."""
    try:
        return float(text)
    except ValueError:
        raise CliError(f"{option}: {text!r} is no number", exit_code=USAGE) from None


def _merged(verb: Callable[..., Any], groups: dict[str, type]) -> inspect.Signature:
    options = [parameter for group in groups.values() for parameter in _parameters(group)]
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(verb).parameters.values()
        if parameter.name not in groups
    ]
    return inspect.Signature([*own, *options])


def _parameters(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, hint = inspect.Parameter.KEYWORD_ONLY, hints[field.name]
        yield inspect.Parameter(field.name, kind, default=field.default, annotation=hint)
