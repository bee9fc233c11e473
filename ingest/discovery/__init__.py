"""Discovery algorithms: model, token ids and edge ids in, frozen results out.

The names of this package are imported on first use, because all of them need torch. The packages,
from the lowest: :mod:`ingest.discovery.model`, :mod:`ingest.discovery.ablation`,
:mod:`ingest.discovery.edges` and :mod:`ingest.discovery.activations`,
:mod:`ingest.discovery.evaluation`. Most functions take a setting, from :func:`prepare_setting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.lazy_names import lazy_names

if TYPE_CHECKING:
    from ingest.discovery.ablation.part_changes import Part
    from ingest.discovery.ablation.parts import (
        PartAblation,
        PartEffects,
        ablate_parts,
        prepare_parts,
    )
    from ingest.discovery.ablation.setting import Ends, Setting, prepare_setting
    from ingest.discovery.activations.cache import Activations, open_activations, record_activations
    from ingest.discovery.edges.attribution import attribute_edges
    from ingest.discovery.edges.scores import EdgeScores, PrunedCircuit, ScoredEdge, ScoredNode
    from ingest.discovery.evaluation.controls import (
        RandomComparison,
        compare_with_random,
        random_circuits,
    )
    from ingest.discovery.evaluation.curve import (
        NOMINAL_SIZES,
        CurvePoint,
        FaithfulnessCurve,
        FaithfulnessCurves,
        complement,
        evaluate_complement,
        faithfulness_curve,
        faithfulness_curves,
    )
    from ingest.discovery.evaluation.faithfulness import (
        CircuitEvaluation,
        evaluate_circuit,
        evaluate_circuits,
    )
    from ingest.discovery.evaluation.parts import (
        PartCircuit,
        compare_parts_with_random,
        evaluate_parts,
        part_circuit,
    )
    from ingest.discovery.evaluation.patching import PatchEffects, patch_effects
    from ingest.discovery.evaluation.subspaces import (
        SubspaceCircuit,
        compare_subspaces_with_random,
        subspace_circuit,
    )
    from ingest.discovery.model.metrics import LogitDifference, logit_difference
    from ingest.discovery.model.weights import named_weights, weights_sha256
    from ingest.discovery.model.weights_in_place import ChangedWeights, changed_weights

__all__ = [
    "NOMINAL_SIZES",
    "Activations",
    "ChangedWeights",
    "CircuitEvaluation",
    "CurvePoint",
    "EdgeScores",
    "Ends",
    "FaithfulnessCurve",
    "FaithfulnessCurves",
    "LogitDifference",
    "Part",
    "PartAblation",
    "PartCircuit",
    "PartEffects",
    "PatchEffects",
    "PrunedCircuit",
    "RandomComparison",
    "ScoredEdge",
    "ScoredNode",
    "Setting",
    "SubspaceCircuit",
    "ablate_parts",
    "attribute_edges",
    "changed_weights",
    "compare_parts_with_random",
    "compare_subspaces_with_random",
    "compare_with_random",
    "complement",
    "evaluate_circuit",
    "evaluate_circuits",
    "evaluate_complement",
    "evaluate_parts",
    "faithfulness_curve",
    "faithfulness_curves",
    "logit_difference",
    "named_weights",
    "open_activations",
    "part_circuit",
    "patch_effects",
    "prepare_parts",
    "prepare_setting",
    "random_circuits",
    "record_activations",
    "subspace_circuit",
    "weights_sha256",
]

_MODULES = {
    "Activations": "activations.cache",
    "ChangedWeights": "model.weights_in_place",
    "CircuitEvaluation": "evaluation.faithfulness",
    "CurvePoint": "evaluation.curve",
    "EdgeScores": "edges.scores",
    "Ends": "ablation.setting",
    "FaithfulnessCurve": "evaluation.curve",
    "FaithfulnessCurves": "evaluation.curve",
    "LogitDifference": "model.metrics",
    "NOMINAL_SIZES": "evaluation.curve",
    "Part": "ablation.part_changes",
    "PartAblation": "ablation.parts",
    "PartCircuit": "evaluation.parts",
    "PartEffects": "ablation.parts",
    "PatchEffects": "evaluation.patching",
    "PrunedCircuit": "edges.scores",
    "RandomComparison": "evaluation.controls",
    "ScoredEdge": "edges.scores",
    "ScoredNode": "edges.scores",
    "Setting": "ablation.setting",
    "SubspaceCircuit": "evaluation.subspaces",
    "ablate_parts": "ablation.parts",
    "attribute_edges": "edges.attribution",
    "changed_weights": "model.weights_in_place",
    "compare_parts_with_random": "evaluation.parts",
    "compare_subspaces_with_random": "evaluation.subspaces",
    "compare_with_random": "evaluation.controls",
    "complement": "evaluation.curve",
    "evaluate_circuit": "evaluation.faithfulness",
    "evaluate_circuits": "evaluation.faithfulness",
    "evaluate_complement": "evaluation.curve",
    "evaluate_parts": "evaluation.parts",
    "faithfulness_curve": "evaluation.curve",
    "faithfulness_curves": "evaluation.curve",
    "logit_difference": "model.metrics",
    "named_weights": "model.weights",
    "open_activations": "activations.cache",
    "part_circuit": "evaluation.parts",
    "patch_effects": "evaluation.patching",
    "prepare_parts": "ablation.parts",
    "prepare_setting": "ablation.setting",
    "random_circuits": "evaluation.controls",
    "record_activations": "activations.cache",
    "subspace_circuit": "evaluation.subspaces",
    "weights_sha256": "model.weights",
}
__getattr__ = lazy_names(__name__, _MODULES)
