"""Faithfulness over a range of sizes, its two areas, and what is left without a circuit.

The curve is that of the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv
2504.13151): the best .1 % to 100 % of all edges, pruned, each measured by :func:`evaluate_circuits`
in one go, so that the clean and the ablated run are made once. **CPR** is the area under
faithfulness f and wants edges by signed score, since what hinders lowers it; **CMD** is the area of
``|1 - f|``, the distance from the model, and wants them by absolute score. Of the wrong choice
either is another quantity under the same name, so it is not given.

As in the benchmark's own code (``evaluate_area_under_curve`` of MIB-circuit-track) the axis is the
share asked for, linear, not what pruning left; shares are rounded down to edges; and the areas
begin at the smallest size: no point is added at 0, so circuits that do what the model does have a
CPR of .999 on the benchmark's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Unpack

from ingest.discovery.anatomy import read_anatomy
from ingest.discovery.edge_space import EdgeSpace
from ingest.discovery.evaluation import (
    CircuitEvaluation,
    as_text,
    evaluate_circuit,
    evaluate_circuits,
)
from ingest.discovery.metrics import Metric
from ingest.discovery.options import EvaluationOptions
from ingest.discovery.scores import By, EdgeScores, PrunedCircuit
from ingest.discovery.texts import Prompts
from registry.errors import BadInput

__all__ = [
    "NOMINAL_SIZES",
    "CurvePoint",
    "FaithfulnessCurve",
    "FaithfulnessCurves",
    "complement",
    "evaluate_complement",
    "faithfulness_curve",
    "faithfulness_curves",
]

NOMINAL_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges at which the benchmark measures."""


@dataclass(frozen=True, eq=False, repr=False)
class CurvePoint:
    """One size.

    Attributes:
        share: Of all edges, 0 to 1, as asked for.
        circuit: The best edges of that number, pruned. May be empty.
        evaluation: With all other edges ablated; an empty circuit does what the ablated run does.
    """

    share: float
    circuit: PrunedCircuit
    evaluation: CircuitEvaluation

    @property
    def faithfulness(self) -> float | None:
        """Of the pruned circuit; 0 where pruning left nothing. None as in the evaluation."""
        return self.evaluation.faithfulness

    def __repr__(self) -> str:
        return (
            f"<CurvePoint at {100 * self.share:g} %: {len(self.circuit.edges)} edges, "
            f"faithfulness {as_text(self.faithfulness)}>"
        )


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve:
    """Faithfulness of the best edges, smallest number first.

    Attributes:
        by: Whether absolute or signed scores decided.
        points: One per size, in ascending order.
    """

    by: By
    points: tuple[CurvePoint, ...]

    def __repr__(self) -> str:
        areas = [("cpr", self.cpr), ("cmd", self.cmd)]
        told = "".join(f", {name} {value:.3g}" for name, value in areas if value is not None)
        return f"<FaithfulnessCurve by {self.by} score at {len(self.points)} sizes{told}>"

    @property
    def cpr(self) -> float | None:
        """Area under faithfulness; higher is better. Not bounded by 1, as faithfulness is not.

        The benchmark's figure only on :data:`NOMINAL_SIZES`. None where edges were chosen by
        absolute score, or where faithfulness is unknown.
        """
        return self._area(lambda f: f) if self.by == "signed" else None

    @property
    def cmd(self) -> float | None:
        """Area of ``|1 - faithfulness|``; lower is better, 0 the model itself at every size.

        The benchmark's figure only on :data:`NOMINAL_SIZES`. None where edges were chosen by signed
        score, or where faithfulness is unknown.
        """
        return self._area(lambda f: abs(1 - f)) if self.by == "absolute" else None

    def _area(self, height: Callable[[float], float]) -> float | None:
        """Area under a function of faithfulness by trapezoids, over the shares asked for."""
        known = [(p.share, p.faithfulness) for p in self.points if p.faithfulness is not None]
        if len(known) < len(self.points):
            return None
        corners = [(share, height(faithfulness)) for share, faithfulness in known]
        return sum((x - x0) * (y + y0) / 2 for (x0, y0), (x, y) in pairwise(corners))


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurves:
    """Both choices of edges on the same prompts.

    Attributes:
        signed: Of the edges with the most positive scores; it gives CPR.
        absolute: Of those with the largest scores; it gives CMD.
    """

    signed: FaithfulnessCurve
    absolute: FaithfulnessCurve

    def __repr__(self) -> str:
        return (
            f"<FaithfulnessCurves at {len(self.signed.points)} sizes: "
            f"signed.cpr {as_text(self.signed.cpr)}, absolute.cmd {as_text(self.absolute.cmd)}>"
        )


def faithfulness_curve(
    model: Any,
    scores: EdgeScores,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    by: By,
    sizes: Sequence[float] = NOMINAL_SIZES,
    **options: Unpack[EvaluationOptions],
) -> FaithfulnessCurve:
    """Measure the best edges at several sizes; clean and ablated runs are shared.

    Args:
        model: The TransformerLens ``TransformerBridge`` that was scored.
        scores: Of its edges. A size that is less than one edge, or whose edges pruning takes all,
            counts as the ablated run: faithfulness 0.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each pair's counterpart; None where the ablation is not ``resample``.
        metric: One number per prompt from the logits at its last real position.
        by: ``signed`` for CPR, ``absolute`` for CMD.
        sizes: Shares of all edges, 0 to 1, ascending, at least two.
        options: As for :func:`evaluate_circuit`; ``kv_heads`` is as the scores name them.

    Raises:
        BadInput, UnsupportedModel, NonFiniteScores: As from :func:`evaluate_circuit`; and the sizes
            are not ascending shares, or the scores are of a model of another shape.
    """
    (curve,) = _measure(model, scores, clean, corrupt, metric, (by,), sizes, options)
    return curve


def faithfulness_curves(
    model: Any,
    scores: EdgeScores,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    sizes: Sequence[float] = NOMINAL_SIZES,
    **options: Unpack[EvaluationOptions],
) -> FaithfulnessCurves:
    """Measure both choices of edges at several sizes in one go, for CPR and CMD.

    Clean and ablated runs are shared, and a circuit that both choices give is measured once.
    Arguments and errors as for :func:`faithfulness_curve`.
    """
    choices: tuple[By, By] = ("signed", "absolute")
    signed, absolute = _measure(model, scores, clean, corrupt, metric, choices, sizes, options)
    return FaithfulnessCurves(signed, absolute)


def complement(edges: Iterable[str], space: EdgeSpace) -> list[str]:
    """All edges of a model that are not in a circuit, receiver by receiver.

    Args:
        edges: The circuit, as ids like ``input->a0.h0<q>``.
        space: Of the model, with key/value heads as the edges name them.

    Raises:
        BadInput: An edge is none of this model's.
    """
    inside = {space.locate(edge) for edge in edges}
    return [space.edge_id(*cell) for cell in space.edges() if cell not in inside]


def evaluate_complement(
    model: Any,
    edges: Iterable[str],
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    **options: Unpack[EvaluationOptions],
) -> CircuitEvaluation:
    """Measure how complete a circuit is: what the model still does without it.

    The circuit's edges carry the ablated value and all others the present one. Faithfulness near 0
    means that nothing outside does the task; near 1, that the circuit is not needed (Marks et al.
    2024, arXiv 2403.19647; Yu et al. 2024, arXiv 2407.03779). Misleads where one edge is enough to
    break the model, as the input's to the first MLP often is: that random circuits with the same
    degrees break it less is what counts. To measure a circuit and its :func:`complement` in one go,
    give both to :func:`evaluate_circuits`.

    Arguments and errors as for :func:`evaluate_circuit`.
    """
    space = read_anatomy(model, options.get("kv_heads", "grouped")).space
    return evaluate_circuit(model, complement(edges, space), clean, corrupt, metric, **options)


def _measure(
    model: Any,
    scores: EdgeScores,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    choices: Sequence[By],
    sizes: Sequence[float],
    options: EvaluationOptions,
) -> list[FaithfulnessCurve]:
    """One curve per choice, every distinct circuit measured once."""
    _check_sizes(sizes)
    told = _as_scored(model, scores.space, options)
    chosen = [[(share, _best(scores, share, by)) for share in sizes] for by in choices]
    # In a dictionary for its order, which sets of strings have not.
    distinct = list({_ids(circuit): None for points in chosen for _, circuit in points})
    measured = evaluate_circuits(model, distinct, clean, corrupt, metric, **told)
    found = dict(zip(distinct, measured, strict=True))
    return [
        FaithfulnessCurve(by, tuple(CurvePoint(x, c, found[_ids(c)]) for x, c in points))
        for by, points in zip(choices, chosen, strict=True)
    ]


def _best(scores: EdgeScores, share: float, by: By) -> PrunedCircuit:
    n = int(share * scores.space.n_edges)
    return scores.top(n, by=by) if n else PrunedCircuit((), (), by, n_selected=0, n_pruned=0)


def _ids(circuit: PrunedCircuit) -> frozenset[str]:
    return frozenset(edge.id for edge in circuit.edges)


def _as_scored(model: Any, space: EdgeSpace, options: EvaluationOptions) -> EvaluationOptions:
    """Options that name key/value heads as the scores do.

    Raises:
        BadInput: They say otherwise, or the model has other edges.
    """
    kv_heads = options.get("kv_heads", "grouped" if space.grouped else "per-query-head")
    own = read_anatomy(model, kv_heads).space
    if own != space:
        raise BadInput(
            f"the scores are of {space.n_edges} edges and the model has {own.n_edges} with "
            f"kv_heads={kv_heads!r}; give the model and the kv_heads that were scored"
        )
    return {**options, "kv_heads": kv_heads}


def _check_sizes(sizes: Sequence[float]) -> None:
    # Written so that NaN fails: with one size the areas are 0, which would look perfect.
    ascending = all(low < high for low, high in pairwise(sizes))
    if len(sizes) < 2 or not (ascending and sizes[0] > 0 and sizes[-1] <= 1):
        raise BadInput(
            "sizes must be two or more shares of all edges in ascending order, above 0 and up to "
            f"1, such as 0.01, 0.1, 1; got {', '.join(map(str, sizes)) or 'none'}"
        )
