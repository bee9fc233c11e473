"""The command that attaches files to circuits, runs, edits and prompt sets, and lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import Format, FormatOption, notice, show_rows
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.files.attachments import StoredAttachment

__all__ = ["attachment_rows", "commands"]

_COLUMNS = ("name", "media_type", "size_bytes", "says", "sha256")


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(attach)


def attach(
    context: typer.Context,
    owner: Annotated[
        str,
        typer.Argument(
            help="Id of a circuit, run, edit or prompt set, or the first digits of it.",
            metavar="OWNER",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(help="File to attach; without one, list attached files.", metavar="FILE"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Its name in the registry; default: its file name.", metavar="NAME"),
    ] = None,
    says: Annotated[str, typer.Option(help="Description in one line.", metavar="TEXT")] = "",
    media_type: Annotated[
        str | None,
        typer.Option(
            "--media-type",
            help="Such as image/png; default: from the ending of the name.",
            metavar="TYPE",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Attach a file to a circuit, run, edit or prompt set, or list attached files.

    The file's content is copied into the registry. Attaching the same file again changes nothing;
    another content needs another name. 'circuits export OWNER --attachments DIR' saves the files.

    \b
    circuits attach 3f9a effects.svg --says "Effects by layer"
    circuits attach 3f9a out/mask.npz --name mask-0.1.npz --says "Mask at density 0.1"
    circuits attach 3f9a
    """
    given = name is not None or says or media_type is not None
    if file is None and given:
        raise BadInput("name the file to attach, after the owner")
    with open_registry(context) as registry:
        if file is not None:
            shown = [registry.attach(owner, file, name=name, media_type=media_type, says=says)]
        else:
            shown = list(registry.attachments(owner))
    show_rows(attachment_rows(shown), format, empty="nothing is attached")
    if shown and file is not None and says and shown[0].says != says:
        notice("it was already attached; its first description stays")


def attachment_rows(attachments: Iterable[StoredAttachment]) -> Rows:
    """Attachments as rows of a table."""
    rows = (tuple(getattr(one, column) for column in _COLUMNS) for one in attachments)
    return Rows(_COLUMNS, tuple(rows))
