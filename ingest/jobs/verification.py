"""The job ``verification``: measure the exact effects that a circuit's attributions estimate.

The circuit's model runs on the circuit's prompts. Each of its strongest edges and nodes is ablated
separately, with the circuit's ablation
(:func:`ingest.discovery.evaluation.patching.patch_effects`). The exact effect is stored with each
attributed effect, and so is the agreement of their ranks: Spearman's rank correlation, 1 if
attribution and patching give the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ingest.jobs.base import Finding
from ingest.jobs.edge_attribution.records import evaluation
from ingest.jobs.options import LoadedModel
from ingest.jobs.progress import Progress
from ingest.jobs.recorded import (
    StoredPrompts,
    load_model,
    repeatable_ablation,
    stored_prompts,
)
from ingest.jobs.setting import setting_of
from registry.circuits.ranking import rank_correlation
from registry.errors import BadInput
from registry.ledger.base import Batch
from registry.measures import EXACT_EFFECT_RANK_CORRELATION
from registry.records import Circuit

if TYPE_CHECKING:
    from ingest.discovery.evaluation.patching import PatchEffects
    from registry.registry import Registry

__all__ = ["JOB", "MEASURE", "Verification", "VerificationConfiguration"]

MEASURE = EXACT_EFFECT_RANK_CORRELATION.name


class VerificationConfiguration(LoadedModel):
    """The configuration of the job."""

    circuit: str = Field(description="Id of a circuit, or the first digits of it.")
    top: int = Field(20, ge=1, description="Number of edges and number of nodes, strongest first.")
    model: str | None = Field(None, description="Location of the circuit's model, if it has moved.")


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Input that was read and checked.

    Attributes:
        edges: Attributed effects of the strongest edges by id, strongest first.
        nodes: The same for nodes.
    """

    configuration: VerificationConfiguration
    circuit: Circuit
    ablation: Literal["resample", "mean", "zero"]
    edges: Mapping[str, float]
    nodes: Mapping[str, float]
    prompts: StoredPrompts
    bridge: Any


class Verification:
    """Measure the exact effects of a circuit's strongest edges and nodes."""

    name = "verification"
    version = "1"
    Configuration = VerificationConfiguration

    def prepare(
        self,
        configuration: VerificationConfiguration,
        registry: Registry,
        progress: Progress,
    ) -> _Prepared:
        """Read the circuit, its prompts and its model.

        Raises:
            NotFound: The circuit or the model does not exist.
            BadInput: The circuit cannot be patched: its prompts or effects are unknown, its nodes
                are bound to positions, or its metric, ablation or signs cannot be repeated.
            IncompatibleModel: The model is not the model of the circuit.
        """
        circuit = registry.circuit(configuration.circuit).circuit
        ablation = repeatable_ablation(circuit)
        edges = _strongest(circuit.edges, configuration.top)
        nodes = _strongest(circuit.nodes, configuration.top)
        if not (edges or nodes):
            raise BadInput(f"circuit {circuit.id[:12]} has no effects that could be verified")
        prompts = stored_prompts(registry, circuit)
        return _Prepared(
            configuration=configuration,
            circuit=circuit,
            ablation=ablation,
            edges={edge.connection: edge.effect or 0.0 for edge in edges},
            nodes={node.component: node.effect or 0.0 for node in nodes},
            prompts=prompts,
            bridge=load_model(
                registry,
                circuit,
                configuration.model,
                progress,
                device=configuration.device,
                dtype=configuration.dtype,
            ),
        )

    def device(self, prepared: _Prepared) -> str:
        """Return the device of the model."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: _Prepared, progress: Progress) -> Finding:
        """Patch each edge and node separately.

        Raises:
            BadInput: The model does not have an edge or node.
            UnsupportedModel, NonFiniteScores: Raised by the algorithm.
        """
        effects = _patch(prepared, progress)
        tables = {
            "edges": _beside(prepared.edges, effects.edges),
            "nodes": _beside(prepared.nodes, effects.nodes),
        }
        correlations = {
            of: rank_correlation([(row["attributed"], row["exact"]) for row in table])
            for of, table in tables.items()
        }
        evaluations = tuple(
            evaluation(
                prepared.circuit,
                effects,
                MEASURE,
                value,
                {"of": of, "n": len(table), "effects": table},
            )
            for of, table in tables.items()
            if (value := correlations[of]) is not None
        )
        summary = {"circuit": prepared.circuit.id, "rank_correlation": correlations, **tables}
        return Finding(Batch(evaluations=evaluations), summary=summary)


JOB = Verification()


def _strongest(parts: Sequence[Any], top: int) -> Sequence[Any]:
    """Return the first ``top`` parts that have an effect, by absolute value."""
    known = [part for part in parts if part.effect is not None]
    return sorted(known, key=lambda part: -abs(part.effect))[:top]


def _patch(prepared: _Prepared, progress: Progress) -> PatchEffects:
    from ingest.discovery import patch_effects

    circuit = prepared.circuit
    n_parts = len(prepared.edges) + len(prepared.nodes)
    report = progress.stage(f"patching {n_parts} edges and nodes of {circuit.task}")
    setting = setting_of(
        prepared.bridge,
        prepared.prompts.pairs,
        ablation=prepared.ablation,
        reference=prepared.prompts.reference,
        kv_heads=circuit.kv_heads or "grouped",
        batch_size=prepared.configuration.batch_size,
    )
    return patch_effects(setting, edges=prepared.edges, nodes=prepared.nodes, progress=report)


def _beside(attributed: Mapping[str, float], exact: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"part": part, "attributed": effect, "exact": exact[part]}
        for part, effect in attributed.items()
    ]
