"""What commands that draw have in common: the option, its check, and the model's grouping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import notice

if TYPE_CHECKING:
    from queries.drawing import Picture
    from registry.registry import Registry

__all__ = ["OutOption", "check_drawable", "draw_to", "heads_per_group"]

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


def heads_per_group(registry: Registry, models: Sequence[str]) -> int | None:
    """How many query heads read one key/value head; None where each has its own, or unknown."""
    for model in registry.ledger.models():
        if model.slug in models and model.n_heads and model.n_kv_heads:
            return model.n_heads // model.n_kv_heads if model.n_kv_heads < model.n_heads else None
    return None
