"""Options of commands that compare tasks: the tasks, their circuits, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import Section, notice
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.circuits.choosing import Chosen, Which

__all__ = [
    "AnywayOption",
    "CircuitsOption",
    "DrawsOption",
    "MethodOption",
    "ModelOption",
    "Over",
    "SeedOption",
    "TaskOption",
    "limited",
    "parse_circuits",
    "parse_tasks",
    "say_notes",
]


class Over(StrEnum):
    """What circuits are compared over."""

    CONNECTIONS = "connections"
    COMPONENTS = "components"


TaskOption = Annotated[
    list[str] | None,
    typer.Option("--task", help="Task to compare; repeat the option, or separate tasks by commas."),
]
CircuitsOption = Annotated[
    str,
    typer.Option(
        "--circuits",
        metavar="best|all|ID,...",
        help="best: each task's most faithful circuit at the smallest size that all tasks have; "
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
        help="Pairs of random circuits with the same degrees for each pair, for the comparison "
        "with chance; 0: no comparison with chance.",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of the draws.", metavar="NUMBER")
]
AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Compare even if the comparison is unsound, and note why.")
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
        raise BadInput("--circuits must be best, all, or ids such as 3f2a,81c0")
    return ids


def parse_tasks(given: Sequence[str] | None, *, at_least: int = 2, command: str) -> list[str]:
    """The given tasks, without repetitions.

    Raises:
        BadInput: There are fewer than ``at_least``.
    """
    tasks = _words(given or ())
    if len(tasks) < at_least:
        raise BadInput(
            f"{command} needs {'two or more tasks' if at_least == 2 else f'{at_least} tasks'}, got "
            f"{len(tasks)}; for example --task ioi --task sequence/numerals"
        )
    return tasks


def say_notes(chosen: Chosen) -> None:
    """Print the notes that the reader of the comparison must know."""
    for note in chosen.notes:
        notice(f"note: {note}")


def limited(title: str, rows: Rows, limit: int) -> Section:
    """Show the first rows of a part, with a notice if there are more.

    Args:
        title: Title of the part.
        rows: All its rows.
        limit: Maximum number of rows to show; 0: all.
    """
    shown = rows.values[: limit or None]
    if len(shown) < len(rows):
        notice(f"{title}: the first {len(shown)} of {len(rows)}; --limit shows more")
    return Section(title, Rows(rows.columns, shown))


def _words(given: Sequence[str]) -> list[str]:
    names = (name.strip() for text in given for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))
