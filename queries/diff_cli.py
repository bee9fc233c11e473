"""The command ``diff``: two circuits edge by edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from queries.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.differences import PartDifference

__all__ = ["commands"]

_LIMIT = 25


class Only(StrEnum):
    """Which parts are shown."""

    A = "a"
    B = "b"
    BOTH = "both"


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(diff)


def diff(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="Id of a circuit, or its first digits.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Id of another.", metavar="B")],
    only: Annotated[
        Only | None,
        typer.Option(help="Only parts that a alone has, b alone, or both."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="So many connections and components; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show two circuits edge by edge: what either has, and what it does in each.

    change is the effect in b less that in a. sign_turned says whether a part helps in one and hurts
    in the other. What makes the circuits differ besides their parts (another metric or ablation,
    merged inputs of heads) is named. 'circuits compare' says how much is shared, and by chance.

    What both have comes first, the strongest before others. CSV holds connections.

    \b
    circuits diff 3f9a 81c2
    circuits diff 3f9a 81c2 --only a --limit 0
    circuits diff 3f9a 81c2 --limit 0 --format csv > differences.csv
    """
    from queries.differences import count, differences
    from queries.figures import save_figure

    check_drawable(out)
    with open_registry(context) as registry:
        found = differences(registry, a, b)
        entries = [registry.ledger.circuit(id) for id in (found.a, found.b)]
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"warning: the circuits differ in {note}")
    about = ("id", "task", "model", "method", "metric", "n_edges", "n_nodes")
    summary = [("connections", found.connections), ("components", found.components)]
    counts = [{"of": of, **asdict(count(parts))} for of, parts in summary]
    sections = [
        Section(
            "circuits",
            Rows(
                ("circuit", *about),
                tuple(
                    (label, *(getattr(entry, name) for name in about))
                    for label, entry in zip("ab", entries, strict=True)
                ),
            ),
        ),
        Section("summary", Rows(tuple(counts[0]), tuple(tuple(one.values()) for one in counts))),
        *(_section(of, parts, only, limit) for of, parts in summary),
    ]
    show_sections(sections, format, csv="connections")


def _section(title: str, parts: Sequence[PartDifference], only: Only | None, limit: int) -> Section:
    kept = [one for one in parts if only is None or one.where == only]
    shown = kept[: limit or None]
    if len(shown) < len(kept):
        notice(f"{title}: the first {len(shown)} of {len(kept)}; --limit shows more")
    columns = ("where", "effect_a", "effect_b", "change", "sign_turned", "rank_a", "rank_b")
    return Section(
        title,
        Rows(
            (title.removesuffix("s"), *columns),
            tuple((one.name, *(getattr(one, name) for name in columns)) for one in shown),
        ),
    )
