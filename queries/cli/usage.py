"""The commands ``where`` and ``nearest``: uses of a part, and similar circuits."""

from __future__ import annotations

from typing import Annotated

import typer

from queries.cli.options import MethodOption, Over
from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.session import open_registry

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(nearest)
    app.command()(where)


def nearest(
    context: typer.Context,
    circuit: Annotated[
        str, typer.Argument(help="Id of a circuit, or its first digits.", metavar="CIRCUIT")
    ],
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of circuits.", metavar="NUMBER")
    ] = 10,
    over: Annotated[
        Over | None,
        typer.Option(
            help="What is compared; connections, unless the circuit has none or merges the inputs "
            "of heads."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Only circuits of this task.", metavar="TASK")
    ] = None,
    method: MethodOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List the stored circuits most similar to a given one, from any method.

    similarity is intersection over union, 0 to 1. Circuits of one model share its hubs even if
    their tasks are unrelated: 'circuits compare' gives what is shared beyond chance.

    \b
    circuits nearest 3f9a
    circuits nearest 3f9a --method published --over components
    """
    from queries.answers.usage import nearest_circuits

    with open_registry(context) as registry:
        found = nearest_circuits(
            registry,
            circuit,
            over=over.value if over else None,
            limit=limit,
            task=task,
            method=method,
        )
    for note in found.notes:
        notice(f"note: {note}")
    show_rows(found.rows, format, empty="no stored circuit shares a part with it")


def where(
    context: typer.Context,
    component: Annotated[
        str,
        typer.Argument(
            help="Component such as gpt2/a9.h6 or smollm2/a4.kv2, or connection such as "
            "'gpt2/a9.h6->a10.h7<k>'; without a port, all inputs of the head.",
            metavar="COMPONENT",
        ),
    ],
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show where a component is used: circuits, tasks, effects, roles, and edits that modified it.

    For a connection, the edits are those that modified either end. CSV holds circuits.

    \b
    circuits where gpt2/a9.h6
    circuits where smollm2/a4.kv2 --format json
    circuits where 'gpt2/a9.h6->a10.h7<k>'
    """
    from queries.answers.usage import where_used

    with open_registry(context) as registry:
        found = where_used(registry, component)
    if not found.circuits.values:
        notice(f"no active circuit uses {found.name}")
    sections = [
        Section("part", found.heading),
        Section("circuits", found.circuits),
        Section("edits", found.edits),
    ]
    show_sections(sections, format, csv="circuits")
