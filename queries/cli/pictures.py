"""Common code of commands that draw: the option, its check, and the drawing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import notice

if TYPE_CHECKING:
    from queries.plots.circuit import Picture

__all__ = ["OutOption", "check_drawable", "draw_to"]

OutOption = Annotated[
    Path | None,
    typer.Option(help="Also draw the answer, as .svg, .png or .pdf; needs the extra 'plots'."),
]


def check_drawable(out: Path | None) -> None:
    """Refuse a file that cannot be drawn to, before any query runs.

    Raises:
        BadInput: Its suffix is not a supported one.
        MissingExtra: matplotlib is not installed.
    """
    if out is not None:
        from registry.figures import check_suffix

        check_suffix(out)


def draw_to(picture: Picture, out: Path) -> None:
    """Draw to the file, and print its name."""
    from queries.plots.circuit import draw

    draw(picture, out)
    notice(f"drawn to {out}")
