"""Commands over many circuits at once: matrix, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queries import matrix_cli

if TYPE_CHECKING:
    import typer

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module and of that of the matrix."""
    matrix_cli.commands(app)
