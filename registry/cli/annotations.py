"""The command that states what parts of a circuit do, as later studies found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import typer

from registry.cli.circuits import CircuitArgument
from registry.cli.output import notice
from registry.cli.session import open_registry
from registry.errors import BadInput

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(annotate)


def annotate(
    context: typer.Context,
    circuit: CircuitArgument,
    component: Annotated[
        str,
        typer.Argument(
            help="Component of the circuit, such as a9.h6, or one of its nodes: a9.h6@END.",
            metavar="COMPONENT",
        ),
    ],
    role: Annotated[
        str | None,
        typer.Argument(
            help="What it does, such as 'name mover'. [required, unless --remove]",
            metavar="ROLE",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="Source: a person, a tool, a paper. [required]", metavar="NAME")
    ] = "",
    run: Annotated[
        str | None,
        typer.Option(help="Run that found it: its id, or the first digits of it.", metavar="RUN"),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="Number that supports it; may be repeated.", metavar="NAME=NUMBER"),
    ] = None,
    also: Annotated[
        bool, typer.Option("--also", help="Keep earlier roles from the same source.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove roles from this source instead.")
    ] = False,
) -> None:
    r"""State what a component of a circuit does.

    A new role replaces earlier roles from the same source, unless --also is given; roles from other
    sources stay. The circuit keeps its id. --remove removes one role, or, without ROLE, all roles
    from the source.

    \b
    circuits annotate 3f9a a9.h6 "name mover" --by "Wang et al. 2022"
    circuits annotate 3f9a a9.h6 "copying head" --by head-functions --score copying=0.93
    circuits annotate 3f9a a9.h6@END "previous token" --by Ada --also
    circuits annotate 3f9a a9.h6 --by Ada --remove
    """
    if not by.strip():
        raise BadInput("--by is missing: give the source, such as a person, a tool or a paper")
    if remove:
        if run or score or also:
            raise BadInput("--remove takes no --run, --score or --also")
        with open_registry(context) as registry:
            n_removed = registry.take_back(circuit, component, by=by, role=role)
        notice(f"removed: {n_removed}" if n_removed else f"{by} gave no such role to {component}")
        return
    if role is None or not role.strip():
        raise BadInput("the role is missing; give it after the component, such as 'name mover'")
    scores = _scores(score or ())
    with open_registry(context) as registry:
        said = registry.annotate(circuit, component, role, by=by, run=run, scores=scores, also=also)
    notice(f"{said.said_by} says: {said.node} is {said.role}")


def _scores(given: Sequence[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (equals and name.strip()) or not math.isfinite(number):
            raise BadInput(f"--score is {text!r}; it must be NAME=NUMBER, such as copying=0.93")
        if name in scores:
            raise BadInput(f"--score {name} is given twice")
        scores[name] = number
    return scores
