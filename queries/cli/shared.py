"""The command ``shared``: what circuits of several tasks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from queries.cli.options import (
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
    from queries.answers.shared.subgraph import SharedSubgraph

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
        bool, typer.Option("--unique", help="Also show the parts that only one task uses.")
    ] = False,
    top: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Maximum number of rows of each table, the strongest first; JSON and CSV hold "
            "all.",
        ),
    ] = 50,
    model: ModelOption = None,
    method: MethodOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the answer to a file: .svg, .png or .pdf (a drawing; needs the extra "
            "'plots'), .graphml, .dot, .gv or .json."
        ),
    ] = None,
    edges: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Maximum number of drawn connections, the strongest first.",
        ),
    ] = 60,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show the subgraph that two or more tasks share.

    The answer has the components and connections that enough of the tasks use, whether their
    effects have the same sign in all tasks with signed effects, the connected parts, and the
    strongest paths from input to logits, each with the tasks that use the whole path. A path is as
    strong as its weakest connection; => leads from a key/value head to a query head that reads it.

    Columns named after tasks hold the mean effect in the task; positive helps. The strength of a
    part is its absolute effect relative to the largest of the task in the table, mean over tasks.
    Signs such as 2+ 1- mean that it helps in two tasks and hurts in one. CSV holds connections.

    \b
    circuits shared --task ioi --task sequence/numerals --out shared.svg --edges 20
    circuits shared --task ioi,sequence/numerals,sequence/months --min-tasks 2 --format json
    circuits shared --task ioi,sequence/numerals --unique --circuits all
    circuits shared --circuits 3f2a,81c0 --out shared.graphml
    """
    from queries.answers.shared.subgraph import shared_subgraph
    from queries.plots.shared_files import check_suffix, write_shared

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
            # Specific parts are most of the work over all circuits, so they are requested only if
            # needed.
            unique=unique or out is not None or which != "all",
        )
    _say_notes(found)
    _show(found, format, unique=unique, top=top)
    if out is not None:  # last: where there is nothing to draw, the tables say why
        write_shared(found, out, max_edges=edges)
        notice(f"written to {out}")


def _say_notes(found: SharedSubgraph) -> None:
    for note in found.notes:
        notice(f"note: {note}")
    if not found.components and not found.connections:
        notice("these tasks share no parts in the graph")
    elif found.connections and not found.paths:
        notice("no path of shared connections leads from input to logits")


def _show(found: SharedSubgraph, format: Format, *, unique: bool, top: int) -> None:
    from queries.answers.shared.rows import CONTENTS, SPECIFIC
    from queries.cli.shared_tables import tables_of

    if format is Format.TABLE:
        parts = tables_of(found, top, unique=unique)
    elif format is Format.CSV:
        parts = {"connections": found.to_rows("connections")}
    else:
        parts = {of: found.to_rows(of) for of in (*CONTENTS, *(SPECIFIC if unique else ()))}
    if any(rows.truncated for rows in parts.values()):
        notice(f"only the strongest {top} rows of each table; --top sets the limit")
    sections = [Section(title, rows) for title, rows in parts.items()]
    show_sections(sections, format, csv="connections")
