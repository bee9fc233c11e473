"""The job ``verification``: measure by patching what a recorded circuit's attributions estimate.

The circuit's own model runs on the circuit's own prompts, and each of its strongest edges and nodes
is ablated alone, the way the circuit says (:func:`ingest.discovery.patching.patch_effects`). Stored
beside each attributed effect is the exact one, and how well their ranks agree: Spearman's rank
correlation, 1 where attribution orders them as patching does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ingest.jobs.base import Configuration, Finding
from ingest.jobs.edge_records import evaluation
from ingest.jobs.progress import Progress
from ingest.jobs.stored_circuits import (
    StoredPrompts,
    load_model,
    repeatable_ablation,
    stored_prompts,
)
from registry.errors import BadInput
from registry.ledger.base import Batch
from registry.ranking import rank_correlation
from registry.records import Circuit

if TYPE_CHECKING:
    from ingest.discovery.patching import PatchEffects
    from registry.registry import Registry

__all__ = ["JOB", "MEASURE", "Verification", "VerificationConfiguration"]

MEASURE = "exact_effect_rank_correlation"


class VerificationConfiguration(Configuration):
    """What the job is told."""

    circuit: str = Field(description="Id of a circuit, or the first digits of it.")
    top: int = Field(20, ge=1, description="How many edges and how many nodes, strongest first.")
    model: str | None = Field(
        None, description="Where the circuit's model is, if not where it was when it was found."
    )
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1 or mps; default: cuda if there is."
    )
    dtype: str = Field("float32", description="Type of the weights: float32, bfloat16, float64.")
    batch_size: int | None = Field(
        None, ge=1, description="Prompts run at once; default: as many as memory holds."
    )


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Input that was read and found right.

    Attributes:
        edges: Attributed effects of the strongest edges by id, strongest first.
        nodes: The same of nodes.
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
            NotFound: There is no such circuit or model.
            BadInput: The circuit cannot be patched: its prompts or effects are unknown, its nodes
                bound to positions, its metric another; or the model is not the circuit's.
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
        """The device the model lies on."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: _Prepared, progress: Progress) -> Finding:
        """Patch each edge and node alone.

        Raises:
            BadInput: An edge or node is none of the model's.
            UnsupportedModel, NonFiniteScores: From the algorithm.
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
    """The first ``top`` that have an effect, by size."""
    known = [part for part in parts if part.effect is not None]
    return sorted(known, key=lambda part: -abs(part.effect))[:top]


def _patch(prepared: _Prepared, progress: Progress) -> PatchEffects:
    from ingest.discovery.patching import patch_effects
    from ingest.jobs.answering import as_tensors

    circuit = prepared.circuit
    prompts = as_tensors(prepared.prompts.pairs)
    others = prepared.prompts.reference
    reference = None if others is None else as_tensors(others)
    n_parts = len(prepared.edges) + len(prepared.nodes)
    return patch_effects(
        prepared.bridge,
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        edges=prepared.edges,
        nodes=prepared.nodes,
        ablation=prepared.ablation,
        reference=None if reference is None else reference.clean,
        reference_mask=None if reference is None else reference.attention_mask,
        kv_heads=circuit.kv_heads or "grouped",
        batch_size=prepared.configuration.batch_size,
        attention_mask=prompts.attention_mask,
        progress=progress.stage(f"patching {n_parts} edges and nodes of {circuit.task}"),
    )


def _beside(attributed: Mapping[str, float], exact: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"part": part, "attributed": effect, "exact": exact[part]}
        for part, effect in attributed.items()
    ]
