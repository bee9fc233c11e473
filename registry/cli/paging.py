"""Options and notices of commands that list page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from registry.cli.output import notice

if TYPE_CHECKING:
    from registry.ledger.base import Page

__all__ = ["AfterOption", "LimitOption", "PageOption", "say_how_to_go_on", "why_empty"]

_FIRST = {
    "circuits": "'circuits import' and 'circuits discover' record some",
    "edits": "'circuits edits attach' records one",
    "prompt sets": "'circuits discover' keeps those of its runs",
    "runs": "'circuits discover' makes one",
}
"""How to get the first records of each kind."""

AfterOption = Annotated[
    str | None,
    typer.Option(
        help="Start after this position, which the previous page printed.", metavar="CURSOR"
    ),
]
"""``after: AfterOption = None``."""

LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of rows, newest first.", metavar="NUMBER")
]
"""``limit: LimitOption = None``: all rows by default."""

PageOption = Annotated[
    int, typer.Option(min=1, help="Maximum number of rows, newest first.", metavar="NUMBER")
]
"""``limit: PageOption = 50``, for lists that are often long."""


def say_how_to_go_on(after: str | None) -> None:
    """Print the option for the next page, if there is one."""
    if after is not None:
        notice(f"there are more; the same command with --after {after} continues")


class AsksForPages(Protocol):
    """A method of a ledger that returns records page by page."""

    def __call__(self, *, limit: int) -> Page[Any]:
        """The first records of any kind."""


def why_empty(what: str, found: Sequence[Any], pages: AsksForPages, after: str | None) -> str:
    """The notice for an empty list: nothing is recorded yet, or nothing matches the filters.

    Args:
        what: Kind of the list: ``circuits``, ``runs``, ``edits`` or ``prompt sets``.
        found: Its rows; if there are any, nothing is queried, and the notice is empty.
        pages: Returns the first of all records, without the list's filters.
        after: The position after which the list starts.
    """
    if found:
        return ""
    if after is not None:
        return f"no more {what}"
    return f"no such {what}" if pages(limit=1).items else f"no {what} yet; {_FIRST[what]}"
