"""What the sources of real EAP-IG graphs state of them, and the same of what was imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from ingest.formats.base import Imported
from registry.files.score_files import read_score_file
from registry.models.edge_space import EdgeSpace

__all__ = ["Facts", "by_receiver", "facts_of", "real_scores", "strongest"]


@dataclass(frozen=True)
class Facts:
    """Figures of a file; ``edges``, ``zero`` and so on count every edge that can exist."""

    shape: tuple[int, int, bool, int]
    edges: int
    missing: int
    least: float
    most: float
    negative: int
    zero: int
    distinct: int


def facts_of(found: Imported) -> Facts:
    (model,) = found.models
    (circuit,) = found.circuits
    scores = real_scores(found)
    known = scores[numpy.isfinite(scores)]
    return Facts(
        (model.n_layers or 0, model.n_heads or 0, model.parallel_attn_mlp, model.d_model or 0),
        circuit.universe_size or 0,
        int(numpy.isnan(scores).sum()),
        float(known.min()),
        float(known.max()),
        int((known < 0).sum()),
        int((known == 0).sum()),
        len(numpy.unique(known)),
    )


def real_scores(found: Imported) -> Any:
    """Scores of the edges that can exist; no other cell may hold one."""
    (artifact,) = found.artifacts
    kept = read_score_file(artifact)
    possible = numpy.zeros(kept.matrix.shape, dtype=bool)
    for place in _space(found).edges():
        possible[place] = True
    assert numpy.isnan(kept.matrix[~possible]).all()
    return kept.matrix[possible].astype(float)


def strongest(found: Imported, n: int = 5) -> list[tuple[str, float, str]]:
    """The edges of largest size: name, score, and whether they are in the circuit."""
    (artifact,) = found.artifacts
    (circuit,) = found.circuits
    kept = read_score_file(artifact)
    inside = {edge.connection for edge in circuit.edges}
    space = _space(found)
    scores = [(space.edge_id(*place), float(kept.matrix[place])) for place in space.edges()]
    best = sorted(scores, key=lambda one: -abs(one[1]))[:n]
    return [(name, score, "in" if name in inside else "out") for name, score in best]


def by_receiver(found: Imported) -> dict[str, int]:
    """How many edges of the circuit go into queries, keys, values, MLPs and the logits."""
    (circuit,) = found.circuits
    counts: dict[str, int] = {}
    for edge in circuit.edges:
        kind = edge.port or ("logits" if edge.target == "logits" else "mlp")
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _space(found: Imported) -> EdgeSpace:
    (model,) = found.models
    heads = model.n_heads or 0
    return EdgeSpace(model.n_layers or 0, heads, heads, model.parallel_attn_mlp)
