"""Commands about what circuits use: reuse, where, nearest, stability, diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
