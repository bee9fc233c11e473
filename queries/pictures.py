"""What commands that draw have in common: the option, its check, and the drawing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import notice

if TYPE_CHECKING:
    from queries.drawing import Picture

__all__ = ["OutOption", "check_drawable", "draw_to"]

OutOption = Annotated[
    Path | None,
    typer.Option(help="Also draw it, as .svg, .png or .pdf; needs the extra 'plots'."),
]


def check_drawable(out: Path | None) -> None:
    """Refuse a file that could not be drawn to, before anything is asked.

    Raises:
        BadInput: Its suffix is none that can be drawn.
        MissingExtra: matplotlib is not installed.
    """
    if out is not None:
        from queries.drawing import check_suffix

        check_suffix(out)


def draw_to(picture: Picture, out: Path) -> None:
    """Draw, and say where."""
    from queries.drawing import draw

    draw(picture, out)
    notice(f"drawn to {out}")
