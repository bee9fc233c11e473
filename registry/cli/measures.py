"""The command that lists measures and metrics."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from registry.cli.output import Format, FormatOption, show_rows
from registry.errors import BadInput
from registry.rows import Rows

__all__ = ["commands"]

_COLUMNS = ("measure", "of", "unit", "better", "range", "normalised", "definition", "source")
_TABLE_COLUMNS = ("measure", "of", "unit", "better", "range", "definition")
_OF = ("prompt", "circuit", "part", "model", "edit")


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(measures)


def measures(
    of: Annotated[
        str | None,
        typer.Option(help=f"Only those of a {', '.join(_OF[:-1])} or {_OF[-1]}.", metavar="WHAT"),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List measures and metrics with unit, direction and range.

    A metric is a number for one prompt; the other measures are of a circuit, a part of it, a whole
    model or an edit. A star matches any text. Files of other tools may use names that are not
    listed; these are shown as not registered.

    \b
    circuits measures
    circuits measures --of circuit
    circuits measures --format json
    """
    if of is not None and of not in _OF:
        raise BadInput(f"--of is {of!r}; it must be one of {', '.join(_OF)}")
    rows = tuple(_row(one) for one in _registered() if of in (None, one.of))
    show_rows(Rows(_COLUMNS, rows), format, columns=_TABLE_COLUMNS, empty="no such measures")


def _registered() -> list[Any]:
    from registry.known_measures import all_measures

    return list(all_measures().values())


def _row(one: Any) -> tuple[str | None, ...]:
    better = None if one.higher_is_better is None else str(one.direction)
    about = (one.normalised, one.definition, one.source)
    return (one.name, one.of, one.unit, better, one.range, *about)
