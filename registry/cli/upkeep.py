"""Commands that keep a registry in order: graph, backups, unused files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.cli.output import Format, FormatOption, notice, progress_line, show_rows
from registry.cli.session import open_registry, session
from registry.cli.stores import keep_or_tell, new_home
from registry.rows import Rows
from registry.texts.nouns import counted

__all__ = ["commands"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (sync, rebuild, backup, mend, restore, gc):
        app.command()(command)


def sync(context: typer.Context) -> None:
    r"""Bring the graph up to date with the record.

    Needed only if the graph was unavailable or locked while something was recorded, or if a
    registry has several graphs; each of these is synced separately. A graph that is ahead of the
    record, because the record was restored to an older state, is rebuilt.

    \b
    circuits sync
    circuits --graph bolt://localhost:7687 sync
    """
    with open_registry(context) as registry:
        done = registry.sync(progress=progress_line("projecting"))
        aside = registry.put_aside()
    notice(f"projected {counted(done, 'change')}" if done else "nothing was pending")
    for one in aside:
        notice(f"not in the graph: {one}")


def rebuild(
    context: typer.Context,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the address of --graph in circuits.toml.")
    ] = False,
    overwrite_graph: Annotated[
        bool,
        typer.Option(
            "--overwrite-graph",
            help="Also rebuild a graph that was made from another copy of this registry.",
        ),
    ] = False,
) -> None:
    r"""Rebuild the graph from the record.

    The record is not changed, and the new graph gives the same answers. With another --graph, this
    moves the graph to another engine; with --save, commands without --graph use it from then on.

    \b
    circuits rebuild
    circuits --graph neo4j://localhost:7687 rebuild --save
    """
    with open_registry(context) as registry:
        done = registry.rebuild(progress=progress_line("projecting"), overwrite=overwrite_graph)
        home = registry.settings.home
    notice(f"projected {counted(done, 'change')}")
    keep_or_tell(home, session(context), names=("graph", "graph_user", "graph_database"), save=save)


def backup(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="File to write; it must not exist yet.", metavar="FILE")
    ],
    skip_damaged: Annotated[
        bool,
        typer.Option(
            "--skip-damaged", help="Skip artifacts that are missing or damaged, and list them."
        ),
    ] = False,
) -> None:
    r"""Write record and artifacts into one file.

    It is safe while others record. The graph is not included: a restore rebuilds it.

    \b
    circuits backup circuits-2026-01-31.zip
    circuits backup --skip-damaged what-is-left.zip
    """
    with open_registry(context) as registry:
        report = registry.backup(file, skip_damaged=skip_damaged)
    for damage in report.left_out:
        notice(f"skipped: {damage}")
    notice(
        f"wrote {report.path}: {counted(report.n_rows, 'row')}, "
        f"{counted(report.n_artifacts, 'artifact')}, {_size(report.size_bytes)}"
    )


def mend(
    context: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(help="Backups, bundles, original files, or folders.", metavar="FILE..."),
    ],
) -> None:
    r"""Replace damaged or missing artifacts from files that contain them.

    An artifact is named by the hash of its content. Therefore a backup, a bundle, an original that
    was imported, or a copy of the artifacts' folder can be used. 'circuits doctor --thorough' finds
    damage.

    \b
    circuits mend circuits-2026-01-31.zip
    circuits mend everything.zip results/ioi.json
    """
    with open_registry(context) as registry:
        mended, left = registry.mend(*sources)
    for damage in left:
        notice(f"still {damage}")
    still_damaged = any(damage.is_certain for damage in left)
    n_mended = counted(len(mended), "artifact")
    notice(f"mended {n_mended}" if mended or still_damaged else "no artifact is damaged")
    if still_damaged:
        raise typer.Exit(1)


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
    overwrite_graph: Annotated[
        bool,
        typer.Option(
            "--overwrite-graph", help="Empty the graph first, if it is one of this registry."
        ),
    ] = False,
) -> None:
    r"""Fill a new registry from a backup.

    The stores may differ from those that the backup was made from. A graph that is not empty is
    kept unless --overwrite-graph is given. An interrupted restore continues where it stopped.

    \b
    circuits restore circuits-2026-01-31.zip
    circuits --ledger postgresql://me@db/circuits restore circuits-2026-01-31.zip
    """
    from registry.registry import Registry

    with (
        new_home(context, folder) as settings,
        Registry.restore(file, settings=settings, overwrite_graph=overwrite_graph) as registry,
    ):
        n_circuits = len(registry.circuits())
        notice(f"restored {counted(n_circuits, 'circuit')} into {settings.home}")
        if damage := registry.damage(sample=0, not_stored=True):
            are = "is" if len(damage) == 1 else "are"
            lacking = f"{counted(len(damage), 'artifact')} {are} not in the backup"
            notice(f"{lacking}; 'circuits doctor' shows more")


def gc(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Delete them.")] = False,
    grace_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Keep younger files: a running job may need them.", metavar="MINUTES"
        ),
    ] = 60.0,
    sole_copy: Annotated[
        bool,
        typer.Option(
            "--sole-copy",
            help="No other copy of this registry, restored from a backup, uses these artifacts.",
        ),
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Delete artifacts that nothing refers to; lists them by default.

    This includes incomplete files that killed commands left in the folder '.unfinished'.

    \b
    circuits gc
    circuits gc --apply
    """
    with open_registry(context) as registry:
        garbage = registry.gc(apply=apply, grace_seconds=60 * grace_minutes, sole_copy=sole_copy)
    rows = Rows(("artifact",), tuple((one,) for one in garbage.addresses + garbage.leftovers))
    show_rows(rows, format, empty="every artifact is in use")
    if rows.values:
        n_files = [
            (len(garbage.addresses), "artifact"),
            (len(garbage.leftovers), "unfinished file"),
        ]
        found = ", ".join(counted(n, noun) for n, noun in n_files if n)
        what = "deleted" if garbage.deleted else "to delete with --apply"
        notice(f"{found}, {_size(garbage.size_bytes)} {what}")


def _size(n_bytes: int) -> str:
    size, unit = float(n_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
