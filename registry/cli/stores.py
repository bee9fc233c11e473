"""Commands about a whole registry: make one, show its state, bring it up to date."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry import __version__
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    show_rows,
    show_sections,
)
from registry.cli.session import Session, session
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.settings.local import Settings

__all__ = ["commands", "init", "keep_or_tell", "migrate", "new_home", "status"]

_ADDRESSES = ("ledger", "graph", "graph_user", "graph_database", "artifacts")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(init)
    app.command()(status)
    app.command()(migrate)


FolderArgument = Annotated[
    Path | None,
    typer.Argument(help="Folder to make .circuits in; default: the current one.", metavar="FOLDER"),
]


def init(context: typer.Context, folder: FolderArgument = None) -> None:
    r"""Make a registry in this folder.

    Options before the command set where its stores are. They are kept in .circuits/circuits.toml,
    except passwords. An existing registry is brought up to date.

    \b
    circuits init
    circuits init ~/experiments
    circuits --graph neo4j://localhost:7687 --ledger postgresql://me@db/circuits init
    """
    from registry.registry import Registry

    with new_home(context, folder) as settings, Registry.init(settings=settings):
        notice(f"registry in {settings.home}")
    keep_or_tell(settings.home, session(context), names=_ADDRESSES, save=False)


def keep_or_tell(home: Path, options: Session, *, names: Sequence[str], save: bool) -> None:
    """Keep addresses given as options in ``circuits.toml``, or report that they were not kept.

    Args:
        home: Home folder of the file.
        options: The root options of the command.
        names: Names of the settings.
        save: Keep them; otherwise those that the file lacks are reported.
    """
    from registry.settings.local import FILE_NAME, keep_settings, not_kept

    given = {name: options.overrides.get(name) for name in names}
    if save:
        said = {
            name: value or os.environ.get(f"CIRCUITS_{name.upper()}")
            for name, value in given.items()
        }
        keep_settings(home, said)
        return
    for name, value in not_kept(home, given).items():
        notice(
            f"{name} = {value!r} is not in {home / FILE_NAME}: commands without that option still"
            " use the address in the file; 'circuits rebuild --save' keeps a graph's address"
        )


@contextmanager
def new_home(context: typer.Context, folder: Path | None) -> Iterator[Settings]:
    """Make a home folder for a command that fills it; it is removed if the command fails."""
    from registry.settings.local import (
        FILE_NAME,
        HOME_NAME,
        create_home,
        discard_home,
        home_path,
        load_settings,
    )

    options = session(context)
    # The shell has already expanded a "~"; here it is part of a name.
    home = home_path(folder.absolute() / HOME_NAME if folder else options.home)
    is_new = not (home / FILE_NAME).exists()
    create_home(home, **options.overrides)
    try:
        yield load_settings(home, **options.overrides)
    except BaseException:
        if is_new:
            discard_home(home)
        raise


def status(context: typer.Context, format: FormatOption = Format.TABLE) -> None:
    r"""Show what the registry holds and the state of its stores.

    \b
    circuits status
    circuits status --format json
    """
    from registry.registry import Registry

    local = session(context).local_settings()
    if local.refused:
        notice(local.refusal())
    if "ledger" in local.refused_stores:
        general = _general({"home": local.settings.home, **local.describe()})
        show_sections([Section("registry", general)], format, csv="registry")
        return
    with Registry.open(settings=local.settings) as registry:
        found = registry.status()
    graph = {
        "graph_state": found.graph,
        "pending_projections": found.pending,
        "put_aside": [str(one) for one in found.put_aside],
    }
    general = _general(
        {
            "home": found.home,
            "registry": found.registry_id,
            **local.describe(),
            **({} if "graph" in local.refused_stores else graph),
        }
    )
    sections = [
        Section("registry", general),
        Section("records", {kind.replace(" ", "_"): n for kind, n in found.counts.items()}),
        Section("runs", found.runs),
    ]
    show_sections(sections, format, csv="registry")


def _general(of_registry: dict[str, Any]) -> dict[str, Any]:
    return {**of_registry, "version": __version__, "python": platform.python_version()}


def migrate(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Only show pending revisions; exit code 1 if any.")
    ] = False,
) -> None:
    r"""Bring the record's schema up to date.

    All data is kept. The graph is made from the record, so it needs no upgrade.

    \b
    circuits migrate --check
    circuits migrate
    """
    from registry.registry import Registry

    pending = Registry.migrate(session(context).settings(), check_only=check)
    if pending:
        rows = Rows(("revision",), tuple((revision,) for revision in pending))
        show_rows(rows, Format.TABLE)
    if not check:
        notice(f"applied {len(pending)} revisions" if pending else "nothing was pending")
    elif pending:
        notice(f"{len(pending)} revisions are pending; 'circuits migrate' applies them")
        raise typer.Exit(1)
    else:
        notice("nothing is pending")
