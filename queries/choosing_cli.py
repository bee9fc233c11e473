"""Options of commands that compare tasks: which tasks, which circuits stand for them, chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import notice
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.choosing import Chosen, Which
    from registry.registry import Registry

__all__ = [
    "AnywayOption",
    "CircuitsOption",
    "DrawsOption",
    "MethodOption",
    "ModelOption",
    "SeedOption",
    "TaskOption",
    "chosen_rows",
    "parse_circuits",
    "parse_tasks",
    "say_notes",
]

TaskOption = Annotated[
    list[str] | None,
    typer.Option("--task", help="Task to compare; repeat it, or give several with commas."),
]
CircuitsOption = Annotated[
    str,
    typer.Option(
        "--circuits",
        metavar="best|all|ID,...",
        help="best: each task's most faithful circuit at the smallest size that all of them have; "
        "all; or ids.",
    ),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only circuits of this model.")]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="Only circuits found by this method.")
]

DrawsOption = Annotated[
    int,
    typer.Option(
        "--draws",
        min=0,
        max=100_000,
        metavar="NUMBER",
        help="Pairs of random circuits with the same degrees for each pair, to see what is shared "
        "by chance; 0 leaves chance out.",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Decides which are drawn.", metavar="NUMBER")
]
AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Compare in spite of what makes it unsound, and name it.")
]


def parse_circuits(text: str) -> Which:
    """``best``, ``all``, or ids separated by commas.

    Raises:
        BadInput: It is empty.
    """
    if text in ("best", "all"):
        return text
    ids = _words([text])
    if not ids:
        raise BadInput("--circuits takes best, all, or ids such as 3f2a,81c0")
    return ids


def parse_tasks(given: Sequence[str] | None, *, at_least: int = 2, command: str) -> list[str]:
    """Tasks as they were given, each once.

    Raises:
        BadInput: There are less than ``at_least``.
    """
    tasks = _words(given or ())
    if len(tasks) < at_least:
        raise BadInput(
            f"{command} needs {'two or more tasks' if at_least == 2 else f'{at_least} tasks'}, got "
            f"{len(tasks)}; for example --task ioi --task sequence/numerals"
        )
    return tasks


def say_notes(chosen: Chosen) -> None:
    """Tell what a reader of the comparison has to know."""
    for note in chosen.notes:
        notice(f"note: {note}")


def chosen_rows(registry: Registry, chosen: Chosen) -> Rows:
    """The chosen circuits as rows: task, circuit, edges, nodes, faithfulness."""
    entries = {entry.id: entry for entry in registry.circuits(model=chosen.model)}
    return Rows(
        ("task", "circuit", "edges", "nodes", "faithfulness"),
        tuple(
            (task, id, entries[id].n_edges, entries[id].n_nodes, entries[id].faithfulness)
            for task, ids in chosen.by_task.items()
            for id in ids
        ),
    )


def _words(given: Sequence[str]) -> list[str]:
    names = (name.strip() for text in given for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))
