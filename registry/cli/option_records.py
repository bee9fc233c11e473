"""Options of a command as one frozen record, for commands with many parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

import typer

__all__ = ["takes"]

R = TypeVar("R")
_EMPTY = inspect.Parameter.empty


def takes(record: type[R]) -> Callable[[Callable[[typer.Context, R], None]], Callable[..., None]]:
    """Let a command take a record whose fields are its arguments and options.

    Args:
        record: A dataclass; its fields are annotated like parameters of a typer command.

    Returns:
        A decorator for a function of typer's context and such a record.
    """
    kinds = get_type_hints(record, include_extras=True)
    parameters = [
        _parameter(one.name, kinds[one.name], _EMPTY if one.default is MISSING else one.default)
        for one in fields(record)  # type: ignore[arg-type]
    ]
    parameters.insert(0, _parameter("context", typer.Context))

    def decorate(command: Callable[[typer.Context, R], None]) -> Callable[..., None]:
        def run(context: typer.Context, **given: Any) -> None:
            command(context, record(**given))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameter(name: str, kind: Any, default: Any = _EMPTY) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
