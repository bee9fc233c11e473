"""Discovery algorithms: model, token ids and edge ids in, frozen results out."""

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
from ingest.discovery.patching import PatchEffects, patch_effects
from ingest.discovery.scores import EdgeScores, PrunedCircuit, ScoredEdge, ScoredNode

__all__ = [
    "NOMINAL_SIZES",
    "CircuitEvaluation",
    "CurvePoint",
    "EdgeScores",
    "FaithfulnessCurve",
    "FaithfulnessCurves",
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
    "patch_effects",
    "random_circuits",
]
