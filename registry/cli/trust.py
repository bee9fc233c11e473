"""``circuits trust``: accept where a registry that somebody else made leads."""

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
    from registry.settings import Outside

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
        bool, typer.Option("--list", help="Only list what is accepted, of all registries.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Accept it no longer; the folder may be gone.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Accept where a registry's stores are.

    A registry that came with a repository, or lies where others write, may name any server, bucket
    or file. Unless you made it yourself, it is used with the stores in its own folder alone, until
    you accept the others here. What is accepted is shown; another address needs your consent anew.

    \b
    circuits trust
    circuits trust ~/shared-circuits
    circuits trust --list
    circuits trust --remove ~/shared-circuits
    """
    if list_them and remove:
        raise BadInput("--list and --remove are two things; give one of them")
    if list_them:
        _list(format)
    elif remove:
        _remove(context, folder)
    else:
        _accept(context, folder, format)


def _accept(context: typer.Context, folder: Path | None, format: Format) -> None:
    from registry.homes import existing_home
    from registry.settings import trust

    home = existing_home(_named(context, folder))
    places = trust(home)
    rows = Rows(("setting", "place"), tuple((one.setting, one.place) for one in places))
    show_rows(rows, format, empty="it keeps to its own folder, which needs no acceptance")
    if places:
        notice(f"accepted for {home}")


def _list(format: Format) -> None:
    from registry.trusted_homes import trusted_homes

    found = trusted_homes()
    values = tuple((str(home), *one) for home, places in found.items() for one in _sorted(places))
    show_rows(Rows(("home", "setting", "place"), values), format, empty="nothing is accepted")


def _remove(context: typer.Context, folder: Path | None) -> None:
    from registry.homes import find_home
    from registry.settings import untrust

    home = _named(context, folder) or os.environ.get("CIRCUITS_HOME") or find_home()
    if not untrust(home):
        raise NotFound("accepted registry", str(home), "'circuits trust --list' shows them")
    notice(f"{home} is accepted no longer")


def _named(context: typer.Context, folder: Path | None) -> Path | str | None:
    return folder.absolute() if folder else session(context).home


def _sorted(places: tuple[Outside, ...]) -> list[Outside]:
    return sorted(places)
