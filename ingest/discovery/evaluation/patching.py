"""The exact effects of chosen edges and nodes: each is patched separately.

Attribution estimates the effect of an edge from a gradient. Here the effect is measured, to check
important estimates. This is the same as ``attribute_edges`` with ``method="exact"``, but for some
edges instead of all, and also for nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ingest.discovery.ablation.patches import patch_edges, patch_nodes, prepare_patches
from ingest.discovery.ablation.setting import Setting, in_a_setting
from ingest.discovery.model.batches import PromptBatch
from registry.errors import BadInput, NonFiniteScores
from registry.models.edge_space import EdgeSpace
from registry.progress import OnProgress

__all__ = ["PatchEffects", "patch_effects"]


@dataclass(frozen=True, eq=False, repr=False)
class PatchEffects:
    """How much patching each edge or node reduces the metric, mean over prompts.

    Attributes:
        edges: Effects by id, in the given order. Positive: the edge helps the metric.
        nodes: Effects by name, in the given order.
        full: The metric of each prompt with nothing patched, ``[prompt]``, float64.
        empty: The metric of each prompt with every edge ablated, ``[prompt]``, float64.
    """

    edges: dict[str, float]
    nodes: dict[str, float]
    full: Tensor
    empty: Tensor

    def __repr__(self) -> str:
        return (
            f"<PatchEffects of {len(self.edges)} edges and {len(self.nodes)} nodes on "
            f"{len(self.full)} prompts>"
        )


@in_a_setting
def patch_effects(
    setting: Setting,
    *,
    edges: Iterable[str] = (),
    nodes: Iterable[str] = (),
    progress: OnProgress | None = None,
) -> PatchEffects:
    """Measure how much ablating single edges and nodes reduces the metric.

    The effect is ``m(clean run) - m(clean run with this edge ablated)``. A node is patched for all
    its readers. A key/value head has no output of its own, so all its inputs are patched.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`; names parts by its ``kv_heads``.
        edges: Ids like ``input->a0.h0<q>``.
        nodes: Names like ``a0.h0``, ``m1``, ``input``, in a grouped-query model also ``a0.kv1``.
        progress: Called after each batch with the number of finished prompts and the total.

    Raises:
        UnsupportedModel: See ``attribute_edges``.
        BadInput: The model does not have an edge or node, ``logits`` is given, which writes
            nothing, or memory is too small for one prompt.
        NonFiniteScores: The metric of a prompt is not finite.
        SettingNeeded: The first argument is not a setting.
    """
    with setting.at_work() as ready:
        model, anatomy, metric = ready.model, ready.anatomy, ready.metric
        cells = {edge: anatomy.space.locate(edge) for edge in edges}
        names = list(dict.fromkeys(nodes))
        _check_nodes(anatomy.space, names)
        total = torch.zeros(len(cells) + len(names), dtype=torch.float64)
        metrics = torch.zeros(2, ready.n_prompts, dtype=torch.float64)
        ready.prove_structure()

        def work(batch: PromptBatch) -> None:
            prepared = prepare_patches(model, anatomy, batch, metric, ready.replacement)
            both = torch.stack([prepared.full, prepared.empty]).double().cpu()
            _require_finite(both, batch)
            of_edges = patch_edges(model, anatomy, prepared, metric, list(cells.values()))
            found = torch.cat([of_edges, patch_nodes(model, anatomy, prepared, metric, names)])
            if not bool(torch.isfinite(found).all()):
                raise NonFiniteScores(int(batch.index[0]))
            total.add_(found)
            metrics[:, batch.index] = both

        # The many patches of one prompt fill a batch; single prompts report progress earlier.
        ready.inputs.each_batch(work, progress, start=1)
    effects = (total / len(metrics[0])).tolist()
    return PatchEffects(
        edges=dict(zip(cells, effects[: len(cells)], strict=True)),
        nodes=dict(zip(names, effects[len(cells) :], strict=True)),
        full=metrics[0],
        empty=metrics[1],
    )


def _check_nodes(space: EdgeSpace, names: Iterable[str]) -> None:
    known = {*space.senders, *(receiver.node for receiver in space.receivers)} - {"logits"}
    for name in names:
        if name == "logits":
            raise BadInput("'logits' writes nothing, so it cannot be patched; omit it")
        if name not in known:
            raise BadInput(
                f"{name!r} is no node of a model with {space.n_layers} layers, {space.n_heads} "
                f"heads and {space.n_kv_heads} key/value heads; nodes look like input, a0.h0, m0"
            )


def _require_finite(metrics: Tensor, batch: PromptBatch) -> None:
    bad = ~torch.isfinite(metrics).all(0)
    if bool(bad.any()):
        raise NonFiniteScores(int(batch.index[bad][0]))
