"""The command ``reuse``: which parts many tasks use, and which belong to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queries.choosing_cli import (
    CircuitsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    chosen_rows,
    parse_circuits,
    parse_tasks,
)
from queries.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.reuse import ReusedPart

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
        int, typer.Option(min=1, help="Only parts that so many tasks use.", metavar="K")
    ] = 1,
    model: ModelOption = None,
    method: MethodOption = None,
    draws: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            metavar="NUMBER",
            help="Random circuits for each task, to tell chance; 0 tells none for connections.",
        ),
    ] = _DRAWS,
    seed: SeedOption = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="So many components and connections; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Rank components and connections by how many tasks use them.

    Without --task, all tasks that have circuits are compared. generality is the share of the tasks
    whose circuits use a part; only_task names the task where a single one does.

    Busy parts are used by many tasks whatever these are about. expected says how many tasks would
    use a part by chance, p how often chance alone has as many use it, and q corrects p for all
    parts there are. By chance means: of the heads of a layer, any others could have been as many
    as a task uses; of connections, each task has some circuit in which every sender and receiver
    has as many edges as it does. It does not mean that a part does the same thing in these tasks,
    and tasks whose prompts look alike use the same parts without being alike. A layer has one MLP,
    of which chance therefore says nothing: p is 1.

    CSV holds components.

    \b
    circuits reuse
    circuits reuse --task ioi,sequence/numerals,sequence/months --min-tasks 2
    circuits reuse --model smollm2 --circuits all --draws 0 --format json
    """
    from queries.figures import save_figure
    from queries.reuse import reuse as reuse_parts

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
        chosen = chosen_rows(registry, found.chosen)
    if min_tasks > len(found.tasks):
        raise BadInput(
            f"--min-tasks is {min_tasks}, but only {len(found.tasks)} tasks are compared"
        )
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"note: {note}")
    sections = [
        Section("circuits", chosen),
        Section("parts by number of tasks", _as_rows(found.spread())),
        _ranked("components", found.components, min_tasks, limit),
        _ranked("connections", found.connections, min_tasks, limit),
    ]
    show_sections(sections, format, csv="components")


def _ranked(title: str, parts: Sequence[ReusedPart], min_tasks: int, limit: int) -> Section:
    kept = [part for part in parts if part.n_tasks >= min_tasks]
    shown = kept[: limit or None]
    if len(shown) < len(kept):
        notice(f"{title}: the first {len(shown)} of {len(kept)}; --limit shows more")
    columns = ("n_tasks", "generality", "expected", "p", "q", "only_task")
    about = ("kind", "layer", "roles") if title == "components" else ()
    return Section(
        title,
        Rows(
            (title.removesuffix("s"), *about, *columns, "tasks"),
            tuple(
                (part.name, *(getattr(part, column) for column in (*about, *columns)), part.tasks)
                for part in shown
            ),
        ),
    )


def _as_rows(records: Sequence[Mapping[str, Any]]) -> Rows:
    columns = tuple(records[0])
    return Rows(columns, tuple(tuple(record[column] for column in columns) for record in records))
