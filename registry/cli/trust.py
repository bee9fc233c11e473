"""``circuits trust``: accept the places of the stores of a registry that somebody else made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import Format, FormatOption, notice, show_rows
from registry.cli.session import session
from registry.errors import BadInput, NotFound
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.settings.local import Outside

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(trust)


def trust(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="The registry, or the folder that holds .circuits; default: the nearest.",
            metavar="FOLDER",
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="Only list the accepted places of all registries.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Withdraw the acceptance; the folder need not exist.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Accept the places of a registry's stores.

    A registry that came with a repository, or is in a folder where others write, may name any
    server, bucket or file. Unless you made it yourself, only the stores in its own folder are used,
    until you accept the others with this command. It shows what it accepts. If an address changes,
    you are asked again.

    \b
    circuits trust
    circuits trust ~/shared-circuits
    circuits trust --list
    circuits trust --remove ~/shared-circuits
    """
    if list_them and remove:
        raise BadInput("--list and --remove exclude each other; give only one of them")
    if list_them:
        _list(format)
    elif remove:
        _remove(context, folder)
    else:
        _accept(context, folder, format)


def _accept(context: typer.Context, folder: Path | None, format: Format) -> None:
    from registry.settings.homes import existing_home
    from registry.settings.local import trust

    home = existing_home(_named(context, folder))
    places = trust(home)
    rows = Rows(("setting", "place"), tuple((one.setting, one.place) for one in places))
    show_rows(rows, format, empty="all its stores are in its own folder; nothing to accept")
    if places:
        notice(f"accepted for {home}")


def _list(format: Format) -> None:
    from registry.settings.trusted_homes import trusted_homes

    found = trusted_homes()
    values = tuple((str(home), *one) for home, places in found.items() for one in _sorted(places))
    show_rows(Rows(("home", "setting", "place"), values), format, empty="nothing is accepted")


def _remove(context: typer.Context, folder: Path | None) -> None:
    from registry.settings.homes import find_home
    from registry.settings.local import untrust

    home = _named(context, folder) or os.environ.get("CIRCUITS_HOME") or find_home()
    if not untrust(home):
        raise NotFound("accepted registry", str(home), "'circuits trust --list' shows them")
    notice(f"{home} is no longer accepted")


def _named(context: typer.Context, folder: Path | None) -> Path | str | None:
    return folder.absolute() if folder else session(context).home


def _sorted(places: tuple[Outside, ...]) -> list[Outside]:
    return sorted(places)
