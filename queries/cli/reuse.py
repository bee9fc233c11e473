"""The command ``reuse``: which parts many tasks use, and which only one task uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from queries.cli.options import (
    CircuitsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    limited,
    parse_circuits,
    parse_tasks,
)
from queries.cli.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.errors import BadInput

if TYPE_CHECKING:
    pass

__all__ = ["commands"]

_LIMIT = 25
_DRAWS = 200


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(reuse)


def reuse(
    context: typer.Context,
    task: TaskOption = None,
    circuits: CircuitsOption = "best",
    min_tasks: Annotated[
        int, typer.Option(min=1, help="Only parts that at least this many tasks use.", metavar="K")
    ] = 1,
    model: ModelOption = None,
    method: MethodOption = None,
    draws: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            metavar="NUMBER",
            help="Random circuits for each task; 0: no comparison with chance for connections.",
        ),
    ] = _DRAWS,
    seed: SeedOption = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of rows of each table; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Rank components and connections by how many tasks use them.

    Without --task, all tasks with circuits are compared. generality is the share of the tasks
    whose circuits use a part; only_task is the task if only one uses it.

    Hubs are used by many tasks, even unrelated ones. expected is the number of tasks that would use
    a part by chance, p how often at least as many tasks use it by chance, and q corrects p for all
    parts of the model. For heads, chance means: each task uses random heads of a layer, in the same
    number. For connections: each task has a random circuit in which every sender and receiver keeps
    its number of edges. A small p does not mean that a part does the same thing in these tasks, and
    tasks with similar prompts use the same parts even if the tasks are not similar. A layer has
    only one MLP, so p is 1 for it.

    CSV holds components.

    \b
    circuits reuse
    circuits reuse --task ioi,sequence/numerals,sequence/months --min-tasks 2
    circuits reuse --model smollm2 --circuits all --draws 0 --format json
    """
    from queries.answers.reuse import reuse as reuse_parts
    from registry.figures import save_figure

    check_drawable(out)
    tasks = parse_tasks(task, command="reuse") if task else []
    with open_registry(context) as registry:
        found = reuse_parts(
            registry,
            tasks,
            circuits=parse_circuits(circuits),
            model=model,
            method=method,
            draws=draws,
            seed=seed,
        )
    if min_tasks > len(found.tasks):
        raise BadInput(
            f"--min-tasks is {min_tasks}, but only {len(found.tasks)} tasks are compared"
        )
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"note: {note}")
    parts = found.parts(min_tasks)
    sections = [
        Section("circuits", found.chosen.rows()),
        Section("parts by number of tasks", parts.pop("parts by number of tasks")),
        *(limited(title, rows, limit) for title, rows in parts.items()),
    ]
    show_sections(sections, format, csv="components")
