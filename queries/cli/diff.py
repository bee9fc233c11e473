"""The command ``diff``: two circuits edge by edge."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from queries.cli.options import limited
from queries.cli.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    pass

__all__ = ["commands"]

_LIMIT = 25


class Only(StrEnum):
    """The parts that are shown."""

    A = "a"
    B = "b"
    BOTH = "both"


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(diff)


def diff(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="Id of a circuit, or its first digits.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Id of another.", metavar="B")],
    only: Annotated[
        Only | None,
        typer.Option(help="Only parts that only a has, only b, or both."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of rows of each table; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show two circuits edge by edge: which parts each has, and their effects.

    change is the effect in b minus the effect in a. sign_turned is true if a part helps in one
    circuit and hurts in the other. Other differences of the circuits (metric, ablation, merged
    inputs of heads) are noted. 'circuits compare' gives how much is shared, and how much by chance.

    Shared parts come first, then the strongest. CSV holds connections.

    \b
    circuits diff 3f9a 81c2
    circuits diff 3f9a 81c2 --only a --limit 0
    circuits diff 3f9a 81c2 --limit 0 --format csv > differences.csv
    """
    from queries.answers.diff import differences
    from registry.figures import save_figure

    check_drawable(out)
    with open_registry(context) as registry:
        found = differences(registry, a, b)
        entries = [registry.ledger.circuit(id) for id in (found.a, found.b)]
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"warning: the circuits differ in {note}")
    about = ("id", "task", "model", "method", "metric", "n_edges", "n_nodes")
    parts = found.parts(only)
    sections = [
        Section(
            "circuits",
            Rows(
                ("circuit", *about),
                tuple(
                    (label, *(getattr(entry, name) for name in about))
                    for label, entry in zip("ab", entries, strict=True)
                ),
            ),
        ),
        Section("summary", parts.pop("summary")),
        *(limited(title, rows, limit) for title, rows in parts.items()),
    ]
    show_sections(sections, format, csv="connections")
