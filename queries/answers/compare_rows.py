"""The comparison of two circuits, as rows for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.identifiers import Kind
from registry.rows import Parts, Rows

if TYPE_CHECKING:
    from queries.answers.compare import PairComparison
    from queries.answers.overlap import Agreement, Comparison, Overlap
    from queries.chance.chance import Chance
    from registry.records import Circuit

__all__ = ["parts_of"]

_OVERLAP = ("n_a", "n_b", "n_shared", "iou", "iom", "share_of_a", "share_of_b")
_CHANCE = ("n_shared", "expected", "low", "high", "z", "p")


def parts_of(found: PairComparison) -> Parts:
    """The whole answer, by the titles of ``circuits compare``."""
    return {
        "circuits": _circuits((found.circuit_a, found.circuit_b)),
        "overlap": _overlaps(found.comparison),
        "by chance": _nulls(found),
        "conclusion": _conclusion(found),
        "effects": _effects(found.comparison, "connections"),
        "effects of components": _effects(found.comparison.component_effects, "components"),
        "ceiling": Rows.of_records(found.ceilings, _CEILING),
        "transfer": Rows.of_records(found.transfers, _TRANSFER),
        "differences": _differences(found.comparison),
    }


def _circuits(circuits: Sequence[Circuit]) -> Rows:
    names = (
        "task", "model", "method", "level", "metric", "ablation", "sign", "kv_heads",
        "universe_size",
    )  # fmt: skip
    return Rows(
        ("circuit", "id", *names),
        tuple(
            (label, circuit.id, *(getattr(circuit, name) for name in names))
            for label, circuit in zip("ab", circuits, strict=True)
        ),
    )


def _overlaps(comparison: Comparison) -> Rows:
    levels: Mapping[str, Overlap] = {
        "components": comparison.components,
        "heads": comparison.of_kind(Kind.HEAD),
        "mlps": comparison.of_kind(Kind.MLP),
        "edges": comparison.edges,
        "connections": comparison.connections,
    }
    return Rows(
        ("of", *_OVERLAP),
        tuple(
            (name, *(getattr(overlap, column) for column in _OVERLAP))
            for name, overlap in levels.items()
        ),
    )


def _nulls(found: PairComparison) -> Rows:
    nulls: Mapping[tuple[str, str], Chance | None] = {
        ("connections", "degrees"): found.by_degrees,
        ("connections", "hubs"): found.by_hubs,
        ("connections", "layers"): found.by_layers,
        ("components", "layers"): found.components_by_layers,
    }
    return Rows(
        ("of", "null", *_CHANCE),
        tuple(
            (*names, *(getattr(null, column) for column in _CHANCE))
            for names, null in nulls.items()
            if null is not None
        ),
    )


def _conclusion(found: PairComparison) -> Mapping[str, Any]:
    return {
        "in words": found.conclusion,
        "p": found.p,
        "saturation of a": found.saturation_a,
        "saturation of b": found.saturation_b,
    }


def _effects(found: Agreement | Comparison, parts: str) -> Mapping[str, Any]:
    return {
        "rank correlation": found.rank_correlation,
        f"signed shared {parts}": found.n_signed,
        "with the same sign": found.n_same_sign,
        "sign agreement": found.sign_agreement,
    }


_CEILING = ("task", "n_circuits", "mean_iou", "lowest_iou", "highest_iou")
_TRANSFER = ("circuit", "found_on", "task", "measure", "value", "random", "n_measured")


def _differences(comparison: Comparison) -> Rows:
    return Rows(("difference",), tuple((one,) for one in comparison.differences))
