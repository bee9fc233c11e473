"""The command ``matrix``: circuits of several tasks, each beside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from queries.choosing_cli import (
    AnywayOption,
    CircuitsOption,
    DrawsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    chosen_rows,
    parse_circuits,
    parse_tasks,
    say_notes,
)
from queries.pictures import OutOption, check_drawable
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    progress_line,
    show_sections,
)
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.choosing import Which
    from queries.matrix import CircuitMatrix

__all__ = ["commands", "say_differences", "tasks_for"]

_IN_TABLES = (
    "task_a", "task_b", "of", "n_shared", "iou", "n_shared_heads", "iou_heads", "expected", "z",
    "q", "transfer_ab", "transfer_ba",
)  # fmt: skip


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(matrix)


def matrix(
    context: typer.Context,
    task: TaskOption = None,
    circuits: CircuitsOption = "best",
    model: ModelOption = None,
    method: MethodOption = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    anyway: AnywayOption = False,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Compare circuits of several tasks, each with each.

    For each pair: what they share (connections, or components where a circuit has no edges), how
    many that would be by chance and by how many standard deviations they share more (z), both under
    the null that leaves the fewest, and how often chance shares as much, by the largest p of any
    null, corrected for all pairs (q). transfer_ab is how faithful circuit a is on the task of b, as
    far as a job measured it (circuits discover transfer); published circuits have figures of their
    own, F, in percent. The ceiling is what a task's circuits share that were found on other
    prompts: two tasks cannot be expected to share more.

    --out draws it: overlap, z and transfer side by side, similar tasks next to each other.

    CSV holds the pairs; JSON and CSV have all columns.

    \b
    circuits matrix --task ioi --task sequence/numerals --task sequence/months
    circuits matrix --task ioi,sequence/numerals,capitals --draws 2000 --out matrix.svg
    circuits matrix --circuits 3f9a,81c2,0b77 --format csv
    """
    from queries.matrix import circuit_matrix

    which = parse_circuits(circuits)
    tasks = tasks_for(task, which, command="matrix")
    check_drawable(out)
    with open_registry(context) as registry:
        found = circuit_matrix(
            registry, tasks, circuits=which, model=model, method=method, draws=draws, seed=seed,
            anyway=anyway, progress=progress_line("comparing pairs"),
        )  # fmt: skip
        chosen = chosen_rows(registry, found.chosen)
    say_notes(found.chosen)
    say_differences(found)
    if out is not None:
        from queries.figures import save_figure

        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    sections = [
        Section("circuits", chosen),
        Section("pairs", _narrowed(found) if format is Format.TABLE else found.rows()),
        Section("transfer", _transfers(found)),
        Section("ceiling", _ceilings(found)),
    ]
    show_sections(sections, format, csv="pairs")


def tasks_for(task: Sequence[str] | None, which: Which, *, command: str) -> list[str]:
    """Tasks as they were given; none are needed where circuits are named.

    Raises:
        BadInput: There are fewer than two.
    """
    if not task and not isinstance(which, str):
        return []
    return parse_tasks(task, command=command)


def say_differences(found: CircuitMatrix) -> None:
    """Tell what makes comparisons less than sound: once where that holds for all pairs."""
    by_text: dict[str, list[str]] = {}
    for pair in found.pairs:
        names = (found.labels[pair.circuit_a.id], found.labels[pair.circuit_b.id])
        for difference in pair.comparison.differences:
            by_text.setdefault(difference, []).append(" and ".join(names))
    for text, pairs in by_text.items():
        of = "all pairs" if len(pairs) == len(found.pairs) else "; ".join(pairs)
        notice(f"warning: {text} ({of})")


def _narrowed(found: CircuitMatrix) -> Rows:
    several = any(len(ids) > 1 for ids in found.chosen.by_task.values())
    columns = (*_IN_TABLES[:2], *(("circuit_a", "circuit_b") if several else ()), *_IN_TABLES[2:])
    rows = found.rows()
    return Rows(columns, tuple(tuple(row[column] for column in columns) for row in rows))


def _transfers(found: CircuitMatrix) -> Rows:
    columns = ("circuit", "found_on", "task", "measure", "value", "random", "n_measured")
    return Rows(
        columns,
        tuple(tuple(getattr(one, column) for column in columns) for one in found.transfers),
    )


def _ceilings(found: CircuitMatrix) -> Rows:
    columns = ("n_circuits", "mean_iou", "lowest_iou", "highest_iou")
    return Rows(
        ("task", "circuit", *columns),
        tuple(
            (one.task, id, *(getattr(one, column) for column in columns))
            for id, one in found.ceilings.items()
        ),
    )
