"""What chosen edges and nodes really do: each one patched in turn, everything else as it is.

Attribution estimates the effect of an edge from a gradient; here it is measured, so that estimates
can be held against the truth where they matter. As ``attribute_edges`` with ``method="exact"``, for
some edges instead of all, and for nodes too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation import Ablation
from ingest.discovery.anatomy import frozen
from ingest.discovery.edge_space import EdgeSpace
from ingest.discovery.exact import patch_edges, patch_nodes, prepare_patches
from ingest.discovery.guard import require_known_arithmetic
from ingest.discovery.inputs import read_inputs
from ingest.discovery.metrics import Metric, Progress
from ingest.discovery.prompts import PromptBatch
from ingest.discovery.texts import Prompts
from registry.errors import BadInput, NonFiniteScores

__all__ = ["PatchEffects", "patch_effects"]


@dataclass(frozen=True, eq=False, repr=False)
class PatchEffects:
    """What patching each edge or node takes from the metric, mean over prompts.

    Attributes:
        edges: By id, in the order asked for. Positive: the edge helps the metric.
        nodes: By name, in the order asked for.
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


def patch_effects(
    model: Any,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    edges: Iterable[str] = (),
    nodes: Iterable[str] = (),
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
    progress: Progress | None = None,
) -> PatchEffects:
    """Measure what ablating each of some edges and nodes alone takes from the metric.

    ``m(clean run) - m(clean run with this edge ablated)``. A node is patched for all that read it;
    a key/value head, which writes nowhere itself, in all that it reads.

    Args:
        model: A TransformerLens ``TransformerBridge``. Its weights are frozen meanwhile.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each pair's counterpart, of as many tokens. None where the ablation is not
            ``resample``.
        metric: One number per prompt from the logits at its last real position.
        edges: Ids like ``input->a0.h0<q>``.
        nodes: Names like ``a0.h0``, ``m1``, ``input``, in a grouped-query model also ``a0.kv1``.
        ablation: ``resample``, ``mean`` or ``zero``, as in ``attribute_edges``.
        reference: Prompts whose mean is taken for ``mean``.
        kv_heads: ``grouped`` or ``per-query-head``, as edges and nodes are named.
        batch_size: Prompts run at once; None: as memory allows.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        reference_mask: The same of ``reference``.
        progress: Called after each batch with prompts done and in all.

    Raises:
        UnsupportedModel: As for ``attribute_edges``.
        BadInput: An edge or node is none of this model's, ``logits`` is asked for, which writes
            nothing; or prompts, ablation or batch size are malformed.
        NonFiniteScores: The metric of a prompt is not finite.
    """
    inputs = read_inputs(
        model, clean, corrupt, ablation=ablation, reference=reference, kv_heads=kv_heads,
        batch_size=batch_size, attention_mask=attention_mask, reference_mask=reference_mask,
    )  # fmt: skip
    anatomy, n_prompts = inputs.anatomy, len(inputs.prompts)
    cells = {edge: anatomy.space.locate(edge) for edge in edges}
    names = list(dict.fromkeys(nodes))
    _check_nodes(anatomy.space, names)
    total = torch.zeros(len(cells) + len(names), dtype=torch.float64)
    metrics = torch.zeros(2, n_prompts, dtype=torch.float64)
    with frozen(model):
        replacement = inputs.replacement(model)
        require_known_arithmetic(
            model, anatomy, inputs.first(), metric, replacement, gradients=False
        )

        def work(batch: PromptBatch) -> None:
            prepared = prepare_patches(model, anatomy, batch, metric, replacement)
            both = torch.stack([prepared.full, prepared.empty]).double().cpu()
            _require_finite(both, batch)
            of_edges = patch_edges(model, anatomy, prepared, metric, list(cells.values()))
            found = torch.cat([of_edges, patch_nodes(model, anatomy, prepared, metric, names)])
            if not bool(torch.isfinite(found).all()):
                raise NonFiniteScores(int(batch.index[0]))
            total.add_(found)
            metrics[:, batch.index] = both

        # Many patches of one prompt fill a batch, and one by one their progress is told sooner.
        inputs.each_batch(work, progress, start=1)
    effects = (total / n_prompts).tolist()
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
            raise BadInput("'logits' writes nothing, so that it cannot be patched; leave it out")
        if name not in known:
            raise BadInput(
                f"{name!r} is no node of a model with {space.n_layers} layers, {space.n_heads} "
                f"heads and {space.n_kv_heads} key/value heads; nodes look like input, a0.h0, m0"
            )


def _require_finite(metrics: Tensor, batch: PromptBatch) -> None:
    bad = ~torch.isfinite(metrics).all(0)
    if bool(bad.any()):
        raise NonFiniteScores(int(batch.index[bad][0]))
