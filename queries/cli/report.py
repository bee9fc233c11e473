"""The command ``report``: what circuits of several tasks have in common, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from queries.cli.matrix import tasks_for
from queries.cli.options import (
    AnywayOption,
    CircuitsOption,
    DrawsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    parse_circuits,
)
from registry.cli.output import notice, progress_line
from registry.cli.session import open_registry

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(report)


def report(
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .html, one page with all content, or .md, with its pictures in a "
            "folder next to it (report_files next to report.md). Existing files are replaced.",
        ),
    ],
    task: TaskOption = None,
    circuits: CircuitsOption = "best",
    min_tasks: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Number of tasks that must use a part for it to count as shared; all by default.",
        ),
    ] = None,
    model: ModelOption = None,
    method: MethodOption = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    anyway: AnywayOption = False,
) -> None:
    r"""Write what circuits of several tasks have in common as one page.

    The page has a summary in words; overlap beyond chance and transfer of each pair (circuits
    matrix); the subgraph that the tasks share (circuits shared); heads that are general or specific
    to one task (circuits reuse); how each number is computed and when it misleads; and its sources:
    circuits, prompts, runs, measurements and versions, with the commands that reproduce the
    numbers.

    The page has no external resources. Equal records give equal files, because its date is that
    of the newest record. Needs the extra 'plots'.

    \b
    circuits report --task ioi --task sequence/numerals --task sequence/months --out report.html
    circuits report --task ioi,sequence/numerals,capitals --min-tasks 2 --out report.md
    circuits report --circuits 3f9a,81c2,0b77 --draws 2000 --out report.html
    """
    from queries.report import gather_report, write_report
    from queries.report.writing import check_report_file

    which = parse_circuits(circuits)
    tasks = tasks_for(task, which, command="report")
    check_report_file(out)
    with open_registry(context) as registry:
        found = gather_report(
            registry, tasks, circuits=which, model=model, method=method, min_tasks=min_tasks,
            draws=draws, seed=seed, anyway=anyway, progress=progress_line("comparing pairs"),
        )  # fmt: skip
    for note in found.notes:
        notice(f"note: {note}")
    for path in write_report(found, out):
        notice(f"written to {path}")
