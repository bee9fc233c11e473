"""The command ``stability``: how much circuits of one task agree."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from queries.cli.options import MethodOption, ModelOption, Over, limited
from queries.cli.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.answers.stability import Stability

__all__ = ["commands"]

_LIMIT = 25


class By(StrEnum):
    """How circuits are compared."""

    SEEDS = "seeds"
    METHODS = "methods"


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(stability)


def stability(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Task's slug.", metavar="TASK")],
    model: ModelOption = None,
    method: MethodOption = None,
    by: Annotated[
        By,
        typer.Option(
            help="seeds: count connections over circuits found the same way on other prompts; "
            "methods: over circuits of all methods and settings."
        ),
    ] = By.SEEDS,
    share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Smallest share of circuits for a connection of the consensus, above 0, up to 1.",
        ),
    ] = 0.5,
    over: Annotated[
        Over | None,
        typer.Option(help="What is compared; connections, unless no two circuits have edges."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of rows of each table; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Compare the circuits of one task, over prompts or over methods.

    Circuits that differ only in their prompts form a group. The overlap of two circuits is the
    intersection over union of their connections. Within a group it shows how much circuits depend
    on the prompts; circuits of two tasks are not expected to share more. Between groups it shows
    how much circuits depend on the method.

    Connections are listed with the share of circuits that have them; those from --share on are the
    consensus: of two circuits, half is what either has. By seeds each group is counted on its own,
    by methods every group weighs the same. Circuits without edges are compared over components.

    CSV holds connections, or components.

    \b
    circuits stability ioi --model smollm2
    circuits stability ioi --by methods --share 1 --limit 0 --format csv
    circuits stability sequence/months --out months.svg
    circuits stability greater-than --over components --by methods
    """
    from queries.answers.stability import stability as compare_circuits
    from registry.figures import save_figure

    check_drawable(out)
    with open_registry(context) as registry:
        found = compare_circuits(
            registry,
            task,
            model=model,
            method=method,
            by=by.value,
            share=share,
            over=over.value if over else None,
        )
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"note: {note}")
    show_sections(_sections(found, limit), format, csv=found.over)


def _sections(found: Stability, limit: int) -> list[Section]:
    parts = found.parts()
    return [
        limited(title, content, limit)
        if isinstance(content, Rows) and title != "recorded consensus"
        else Section(title, content)
        for title, content in parts.items()
    ]
