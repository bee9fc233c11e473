"""Commands that keep a registry in order: graph, backups, unused files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.cli.output import Format, FormatOption, notice, progress_line, show_rows
from registry.cli.session import open_registry
from registry.cli.stores import new_home
from registry.rows import Rows

__all__ = ["commands"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (sync, rebuild, backup, restore, gc):
        app.command()(command)


def sync(context: typer.Context) -> None:
    r"""Project what is recorded and not yet in the graph.

    Needed only after the graph was out of reach or locked while something was recorded.

    \b
    circuits sync
    """
    with open_registry(context) as registry:
        done = registry.sync(progress=progress_line("projecting"))
    notice(f"projected {done} changes" if done else "nothing was pending")


def rebuild(context: typer.Context) -> None:
    r"""Make the graph again from the record.

    The record is not touched, and the new graph gives the same answers. With another --graph, this
    is how to move to another engine.

    \b
    circuits rebuild
    circuits --graph neo4j://localhost:7687 rebuild
    """
    with open_registry(context) as registry:
        done = registry.rebuild(progress=progress_line("projecting"))
    notice(f"projected {done} changes")


def backup(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="File to write; it must not exist yet.", metavar="FILE")
    ],
) -> None:
    r"""Write record and artifacts into one file.

    Safe while others record. The graph is not in it: a restore makes it again.

    \b
    circuits backup circuits-2026-01-31.zip
    """
    with open_registry(context) as registry:
        report = registry.backup(file)
    notice(
        f"wrote {report.path}: {report.n_rows} rows, {report.n_artifacts} artifacts, "
        f"{_size(report.size_bytes)}"
    )


def restore(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="File that 'circuits backup' wrote.", metavar="FILE")
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to make .circuits in; default: the current one.", metavar="FOLDER"
        ),
    ] = None,
) -> None:
    r"""Fill a new registry from a backup.

    The stores may be others than those the backup was made from.

    \b
    circuits restore circuits-2026-01-31.zip
    circuits --ledger postgresql://me@db/circuits restore circuits-2026-01-31.zip
    """
    from registry.registry import Registry

    with (
        new_home(context, folder) as settings,
        Registry.restore(file, settings=settings) as registry,
    ):
        n_circuits = len(registry.circuits())
        notice(f"restored {n_circuits} circuits into {settings.home}")


def gc(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Delete them.")] = False,
    grace_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Leave younger files alone: a running job may need them.", metavar="MINUTES"
        ),
    ] = 60.0,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Delete artifacts that nothing refers to; first only lists them.

    \b
    circuits gc
    circuits gc --apply
    """
    with open_registry(context) as registry:
        garbage = registry.gc(apply=apply, grace_seconds=60 * grace_minutes)
    rows = Rows(("artifact",), tuple((address,) for address in garbage.addresses))
    show_rows(rows, format, empty="every artifact is in use")
    if garbage.addresses:
        what = "deleted" if garbage.deleted else "to delete with --apply"
        notice(f"{len(rows)} artifacts, {_size(garbage.size_bytes)} {what}")


def _size(n_bytes: int) -> str:
    size, unit = float(n_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
