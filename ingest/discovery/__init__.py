"""Discovery algorithms: model, token ids and edge ids in, frozen results out."""

from ingest.discovery.edge_attribution import attribute_edges
from ingest.discovery.evaluation import CircuitEvaluation, evaluate_circuit, evaluate_circuits
from ingest.discovery.scores import EdgeScores, PrunedCircuit, ScoredEdge, ScoredNode

__all__ = [
    "CircuitEvaluation",
    "EdgeScores",
    "PrunedCircuit",
    "ScoredEdge",
    "ScoredNode",
    "attribute_edges",
    "evaluate_circuit",
    "evaluate_circuits",
]
