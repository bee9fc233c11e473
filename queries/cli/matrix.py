"""The command ``matrix``: pairwise comparison of circuits of several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from queries.cli.options import (
    AnywayOption,
    CircuitsOption,
    DrawsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    parse_circuits,
    parse_tasks,
    say_notes,
)
from queries.cli.pictures import OutOption, check_drawable
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
    from queries.answers.matrix import CircuitMatrix
    from queries.circuits.choosing import Which

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
    r"""Compare circuits of several tasks pairwise.

    Each row is a pair. n_shared counts shared connections, or components if a circuit has no edges.
    expected is the number expected by chance, and z the number of standard deviations above it,
    both under the null with the smallest z. p is the largest p of any null, and q corrects it for
    all pairs. transfer_ab is the faithfulness of circuit a on the task of b, if a job measured it
    (circuits discover transfer); published circuits have their own values, F, in percent. The
    ceiling is the overlap of circuits of one task that were found on other prompts: two tasks are
    not expected to share more.

    --out draws overlap, z and transfer side by side, with similar tasks next to each other.

    CSV holds the pairs; JSON and CSV have all columns.

    \b
    circuits matrix --task ioi --task sequence/numerals --task sequence/months
    circuits matrix --task ioi,sequence/numerals,capitals --draws 2000 --out matrix.svg
    circuits matrix --circuits 3f9a,81c2,0b77 --format csv
    """
    from queries.answers.matrix import circuit_matrix

    which = parse_circuits(circuits)
    tasks = tasks_for(task, which, command="matrix")
    check_drawable(out)
    with open_registry(context) as registry:
        found = circuit_matrix(
            registry, tasks, circuits=which, model=model, method=method, draws=draws, seed=seed,
            anyway=anyway, progress=progress_line("comparing pairs"),
        )  # fmt: skip
    say_notes(found.chosen)
    say_differences(found)
    if out is not None:
        from registry.figures import save_figure

        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    parts = found.parts()
    if format is Format.TABLE:
        parts["pairs"] = _narrowed(found)
    sections = [
        Section("circuits", found.chosen.rows()),
        *(Section(*part) for part in parts.items()),
    ]
    show_sections(sections, format, csv="pairs")


def tasks_for(task: Sequence[str] | None, which: Which, *, command: str) -> list[str]:
    """The given tasks; none are needed if circuits are named.

    Raises:
        BadInput: There are fewer than two.
    """
    if not task and not isinstance(which, str):
        return []
    return parse_tasks(task, command=command)


def say_differences(found: CircuitMatrix) -> None:
    """Print what makes comparisons less sound, once if it applies to all pairs."""
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
