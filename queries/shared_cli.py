"""The command ``shared``: what circuits of several tasks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from queries.choosing_cli import (
    CircuitsOption,
    MethodOption,
    ModelOption,
    TaskOption,
    parse_circuits,
    parse_tasks,
)
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry

if TYPE_CHECKING:
    from queries.shared import SharedSubgraph

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(shared)


def shared(
    context: typer.Context,
    task: TaskOption = None,
    min_tasks: Annotated[
        int | None,
        typer.Option(min=1, help="Smallest number of these tasks; all by default.", metavar="K"),
    ] = None,
    circuits: CircuitsOption = "best",
    unique: Annotated[
        bool, typer.Option("--unique", help="Also show what one task alone uses, for each of them.")
    ] = False,
    top: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="At most so many rows of each part in a table, the strongest; JSON and CSV hold "
            "all.",
        ),
    ] = 50,
    model: ModelOption = None,
    method: MethodOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write it to a file: .svg, .png or .pdf (a drawing; needs the extra "
            "'plots'), .graphml, .dot, .gv or .json."
        ),
    ] = None,
    edges: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Draw at most so many connections, the strongest; fewer make a smaller picture.",
        ),
    ] = 60,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show the subgraph that two or more tasks share.

    Of the chosen circuits: the components and connections that enough of the tasks use, whether
    their effects have the same sign in all tasks that tell, what hangs together, and the strongest
    paths from input to logits, each with the tasks that use all of it. A path is as strong as its
    weakest connection; => leads from a key/value head to a query head that reads it.

    Columns named after tasks hold the mean effect there; positive helps. The strength of a part is
    the mean size of its effects, as shares of the largest in each task; signs such as 2+ 1- say in
    how many tasks it helps and hurts. CSV holds connections.

    \b
    circuits shared --task ioi --task sequence/numerals --out shared.svg --edges 20
    circuits shared --task ioi,sequence/numerals,sequence/months --min-tasks 2 --format json
    circuits shared --task ioi,sequence/numerals --unique --circuits all
    circuits shared --circuits 3f2a,81c0 --out shared.graphml
    """
    from queries.shared import shared_subgraph
    from queries.shared_files import check_suffix, write_shared

    which = parse_circuits(circuits)
    tasks = parse_tasks(task, at_least=2 if isinstance(which, str) else 0, command="shared")
    if out is not None:
        check_suffix(out)
    with open_registry(context) as registry:
        found = shared_subgraph(
            registry,
            tasks,
            min_tasks=min_tasks,
            circuits=which,
            model=model,
            method=method,
            # Of all circuits, most is specific to some task: it is asked for where it is needed.
            unique=unique or out is not None or which != "all",
        )
    if out is not None:
        write_shared(found, out, max_edges=edges)
        notice(f"written to {out}")
    _say_notes(found)
    _show(found, format, unique=unique, top=top)


def _say_notes(found: SharedSubgraph) -> None:
    for note in found.notes:
        notice(f"note: {note}")
    if not found.components and not found.connections:
        notice("these tasks share nothing that the graph knows of")
    elif found.connections and not found.paths:
        notice("no path of shared connections leads from input to logits")


def _show(found: SharedSubgraph, format: Format, *, unique: bool, top: int) -> None:
    from queries.shared_rows import CONTENTS, SPECIFIC
    from queries.shared_tables import tables_of

    if format is Format.TABLE:
        parts = tables_of(found, top, unique=unique)
    elif format is Format.CSV:
        parts = {"connections": found.to_rows("connections")}
    else:
        parts = {of: found.to_rows(of) for of in (*CONTENTS, *(SPECIFIC if unique else ()))}
    if any(rows.truncated for rows in parts.values()):
        notice(f"only the strongest {top} rows of each part; --top sets the limit")
    sections = [Section(title, rows) for title, rows in parts.items()]
    show_sections(sections, format, csv="connections")
