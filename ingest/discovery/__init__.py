"""Discovery algorithms: model, token ids and edge ids in, frozen results out.

What stands here is imported when it is asked for: all of it is torch but
:mod:`ingest.discovery.edge_space`, which importers need without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.discovery.controls import RandomComparison, compare_with_random, random_circuits
    from ingest.discovery.curve import (
        NOMINAL_SIZES,
        CurvePoint,
        FaithfulnessCurve,
        FaithfulnessCurves,
        complement,
        evaluate_complement,
        faithfulness_curve,
        faithfulness_curves,
    )
    from ingest.discovery.edge_attribution import attribute_edges
    from ingest.discovery.evaluation import CircuitEvaluation, evaluate_circuit, evaluate_circuits
    from ingest.discovery.metrics import LogitDifference, logit_difference
    from ingest.discovery.patching import PatchEffects, patch_effects
    from ingest.discovery.scores import EdgeScores, PrunedCircuit, ScoredEdge, ScoredNode

__all__ = [
    "NOMINAL_SIZES",
    "CircuitEvaluation",
    "CurvePoint",
    "EdgeScores",
    "FaithfulnessCurve",
    "FaithfulnessCurves",
    "LogitDifference",
    "PatchEffects",
    "PrunedCircuit",
    "RandomComparison",
    "ScoredEdge",
    "ScoredNode",
    "attribute_edges",
    "compare_with_random",
    "complement",
    "evaluate_circuit",
    "evaluate_circuits",
    "evaluate_complement",
    "faithfulness_curve",
    "faithfulness_curves",
    "logit_difference",
    "patch_effects",
    "random_circuits",
]

_MODULES = (
    "controls", "curve", "edge_attribution", "evaluation", "metrics", "patching", "scores",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = import_module(f"{__name__}.{module}")
            if name in getattr(found, "__all__", ()):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
