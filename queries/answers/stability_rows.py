"""How circuits of one task agree, as rows for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.rows import Parts, Rows

if TYPE_CHECKING:
    from queries.answers.stability import Overlaps, Stability

__all__ = ["parts_of"]

_OF_CIRCUITS = ("group", "circuit", "prompt_seed", "prompt_set", "n_parts", "faithfulness")
_OF_RECORDED = ("circuit", "n_parts", "n_circuits", "share", "mean_overlap")
_OF_PARTS = (
    "name", "group", "n_circuits", "share", "effect", "smallest", "largest", "n_signed",
    "n_positive",
)  # fmt: skip
_OVERLAPS = ("mean_overlap", "smallest_overlap", "largest_overlap")


def parts_of(found: Stability) -> Parts:
    """The whole answer, by the titles of ``circuits stability``."""
    return {
        "agreement": _agreement(found),
        "groups": _groups(found),
        "between groups": _between(found),
        "circuits": _named(found, Rows.of_records(found.circuits, _OF_CIRCUITS)),
        "recorded consensus": _named(found, Rows.of_records(found.recorded, _OF_RECORDED)),
        found.over: _named(found, Rows.of_records(found.frequent, _OF_PARTS)),
    }


def _named(found: Stability, rows: Rows) -> Rows:
    """Rows whose columns say what the parts are: ``n_connections``, ``component``."""
    names = {"n_parts": f"n_{found.over}", "name": found.over.removesuffix("s")}
    return Rows(tuple(names.get(column, column) for column in rows.columns), rows.values)


def _agreement(found: Stability) -> dict[str, Any]:
    overlaps = found.overlaps
    n_counted = len({one.group for one in found.frequent})  # otherwise each group has its own
    return {
        "task": found.task,
        "model": found.model,
        "by": found.by,
        "circuits": len(found.circuits),
        "groups": len(found.groups),
        "pairs": overlaps.n_pairs if overlaps else 0,
        **dict(zip(_OVERLAPS, _values(overlaps), strict=True)),
        "consensus from share": found.share,
        f"{found.over} of the consensus": len(found.consensus) if n_counted == 1 else None,
    }


def _groups(found: Stability) -> Rows:
    counts = ("n_circuits", "n_parts", "n_in_all", "n_consensus")
    ways = ("method", "level", "variant", "ablation", "kv_heads", "rule")
    rows = tuple(
        (
            group.number,
            *(getattr(group.way, name) for name in ways),
            *(getattr(group, name) for name in counts),
            *_values(group.overlaps),
        )
        for group in found.groups
    )
    return _named(found, Rows(("group", *ways, *counts, *_OVERLAPS), rows))


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
