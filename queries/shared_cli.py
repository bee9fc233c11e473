"""The command ``shared``: what circuits of several tasks have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queries.pictures import OutOption, check_drawable, draw_to, heads_per_group
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.drawing import DrawnEdge, Picture
    from registry.registry import Registry

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(shared)


def shared(
    context: typer.Context,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task to compare; repeat it, or give several with commas."),
    ] = None,
    min_tasks: Annotated[
        int | None,
        typer.Option(min=1, help="Smallest number of these tasks; all by default.", metavar="K"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only circuits of this model.")] = None,
    method: Annotated[str | None, typer.Option(help="Only circuits of this method.")] = None,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show the components and connections that two or more tasks share.

    Columns named after tasks hold the mean effect there; positive helps. CSV holds connections.

    \b
    circuits shared --task ioi --task sequence/numerals --out shared.svg
    circuits shared --task ioi,sequence/numerals,sequence/months --min-tasks 2 --format json
    """
    tasks = _tasks(task or (), min_tasks)
    check_drawable(out)
    choice = {"tasks": tasks, "model": model, "method": method}
    with open_registry(context) as registry:
        components = registry.query("shared-components", min_tasks=min_tasks, **choice)
        connections = registry.query("shared-connections", min_tasks=min_tasks, **choice)
        if out is not None:
            rows = registry.query("shared-connections", min_tasks=1, **choice)
            draw_to(_picture_of_tasks(registry, rows, tasks, min_tasks), out)
    if not components.values and not connections.values:
        notice("these tasks share nothing that the graph knows of")
    show_sections(
        [
            Section("components", by_task(components, tasks)),
            Section("connections", by_task(connections, tasks)),
        ],
        format,
        csv="connections",
    )


def by_task(rows: Rows, tasks: Sequence[str]) -> Rows:
    """Replace the column ``tasks`` by one for each task, which holds the mean effect there.

    What most tasks use comes first, and of that what does most in them, whatever its sign.
    """
    kept = [column for column in rows.columns if column != "tasks"]
    values = []
    for row in sorted(rows, key=lambda row: (-row["n_tasks"], -_strength(row))):
        effects = {use["task"]: use["effect"] for use in row["tasks"]}
        values.append((*(row[column] for column in kept), *(effects.get(task) for task in tasks)))
    return Rows((*kept, *tasks), tuple(values), rows.truncated)


def _strength(row: Mapping[str, Any]) -> float:
    return sum(use["magnitude"] or 0.0 for use in row["tasks"])


def _tasks(given: Sequence[str], min_tasks: int | None) -> list[str]:
    names = (name.strip() for text in given for name in text.split(","))
    tasks = list(dict.fromkeys(name for name in names if name))
    if len(tasks) < 2:
        raise BadInput(
            f"shared needs two or more tasks, got {len(tasks)}; for example "
            "--task ioi --task sequence/numerals"
        )
    if min_tasks is not None and min_tasks > len(tasks):
        raise BadInput(f"--min-tasks is {min_tasks}, but only {len(tasks)} tasks are given")
    return tasks


def _picture_of_tasks(
    registry: Registry, rows: Rows, tasks: Sequence[str], min_tasks: int | None
) -> Picture:
    from queries.drawing import Picture

    models = sorted({row["connection"].partition("/")[0] for row in rows})
    if len(models) > 1:
        raise BadInput(
            f"the tasks have circuits in {len(models)} models ({', '.join(models)}), which do not "
            "fit one drawing; choose one with --model"
        )
    least = min_tasks or len(tasks)
    among = f"all {least}" if least == len(tasks) else f"{least} or more of {len(tasks)}"
    return Picture(
        title=f"What {among} tasks share" + (f" in {models[0]}" if models else ""),
        tasks=tuple(tasks),
        edges=tuple(_drawn_edge(row) for row in rows),
        min_tasks=least,
        heads_per_group=heads_per_group(registry, models),
    )


def _drawn_edge(row: Mapping[str, Any]) -> DrawnEdge:
    from queries.drawing import DrawnEdge

    return DrawnEdge(
        source=row["source"].partition("/")[2],
        target=row["target"].partition("/")[2],
        port=row["port"],
        effects={
            use["task"]: use["magnitude"] if use["effect"] is None else use["effect"]
            for use in row["tasks"]
        },
    )
