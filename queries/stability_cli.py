"""The command ``stability``: how much circuits of one task agree."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queries.choosing_cli import MethodOption, ModelOption
from queries.pictures import OutOption, check_drawable
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.stability import Overlaps, Stability

__all__ = ["commands"]

_LIMIT = 25


class By(StrEnum):
    """What circuits are compared by."""

    SEEDS = "seeds"
    METHODS = "methods"


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(stability)


def stability(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Task's slug.", metavar="TASK")],
    model: ModelOption = None,
    method: MethodOption = None,
    by: Annotated[
        By,
        typer.Option(
            help="seeds: count connections within circuits found the same way on other prompts; "
            "methods: over all ways of finding them."
        ),
    ] = By.SEEDS,
    share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of circuits that a connection of the consensus is in."
        ),
    ] = 0.5,
    limit: Annotated[
        int, typer.Option(min=0, help="So many rows of each table; 0: all.", metavar="N")
    ] = _LIMIT,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Compare the circuits of one task: those of other prompts, and those of other methods.

    Circuits that differ in their prompts alone form a group. The overlap of two circuits is shared
    connections over all connections of the two. Within a group it says how far circuits depend on
    the prompts, and is the most that circuits of two tasks can be expected to share; between groups
    it says how far they depend on the method.

    Connections are listed with the share of circuits that have them; those from --share on are the
    consensus: of two circuits, half is what either has. By seeds each group is counted on its own,
    by methods every group weighs the same.

    CSV holds connections.

    \b
    circuits stability ioi --model smollm2
    circuits stability ioi --by methods --share 1 --limit 0 --format csv
    circuits stability sequence/months --out months.svg
    """
    from queries.figures import save_figure
    from queries.stability import stability as compare_circuits

    check_drawable(out)
    with open_registry(context) as registry:
        found = compare_circuits(
            registry, task, model=model, method=method, by=by.value, share=share
        )
    if out is not None:
        save_figure(found.plot(), out)
        notice(f"drawn to {out}")
    for note in found.notes:
        notice(f"note: {note}")
    show_sections(_sections(found, limit), format, csv="connections")


def _sections(found: Stability, limit: int) -> list[Section]:
    return [
        Section("agreement", _agreement(found)),
        _limited("groups", _groups(found), limit),
        _limited("between groups", _between(found), limit),
        _limited("circuits", _records(found.circuits, _OF_CIRCUITS), limit),
        Section("recorded consensus", _records(found.recorded, _OF_RECORDED)),
        _limited("connections", _records(found.connections, _OF_CONNECTIONS), limit),
    ]


def _limited(title: str, rows: Rows, limit: int) -> Section:
    shown = rows.values[: limit or None]
    if len(shown) < len(rows):
        notice(f"{title}: the first {len(shown)} of {len(rows)}; --limit shows more")
    return Section(title, Rows(rows.columns, shown))


_OF_CIRCUITS = (
    "group", "circuit", "prompt_seed", "prompt_set", "n_connections", "faithfulness",
)  # fmt: skip
_OF_RECORDED = ("circuit", "n_connections", "n_circuits", "share", "mean_overlap")
_OF_CONNECTIONS = (
    "connection", "group", "n_circuits", "share", "effect", "smallest", "largest", "n_signed",
    "n_positive",
)  # fmt: skip
_OVERLAPS = ("mean_overlap", "smallest_overlap", "largest_overlap")


def _agreement(found: Stability) -> dict[str, Any]:
    overlaps = found.overlaps
    n_counted = len({one.group for one in found.connections})  # else each group has its own
    return {
        "task": found.task,
        "model": found.model,
        "by": found.by,
        "circuits": len(found.circuits),
        "groups": len(found.groups),
        "pairs": overlaps.n_pairs if overlaps else 0,
        **dict(zip(_OVERLAPS, _values(overlaps), strict=True)),
        "consensus from share": found.share,
        "connections of the consensus": len(found.consensus) if n_counted == 1 else None,
    }


def _groups(found: Stability) -> Rows:
    counts = ("n_circuits", "n_connections", "n_in_all", "n_consensus")
    ways = ("method", "variant", "ablation", "kv_heads", "rule")
    return Rows(
        ("group", *ways, *counts, *_OVERLAPS),
        tuple(
            (
                group.number,
                *(getattr(group.way, name) for name in ways),
                *(getattr(group, name) for name in counts),
                *_values(group.overlaps),
            )
            for group in found.groups
        ),
    )


def _between(found: Stability) -> Rows:
    return Rows(
        ("group", "other", "n_pairs", *_OVERLAPS),
        tuple(
            (one, other, overlaps.n_pairs, *_values(overlaps))
            for (one, other), overlaps in found.between.items()
        ),
    )


def _values(overlaps: Overlaps | None) -> tuple[float | None, ...]:
    if overlaps is None:
        return (None, None, None)
    return (overlaps.mean, overlaps.smallest, overlaps.largest)


def _records(records: tuple[Any, ...], columns: tuple[str, ...]) -> Rows:
    return Rows(columns, tuple(tuple(getattr(one, name) for name in columns) for one in records))
