"""Faithfulness over a range of sizes, its two areas, and the behaviour without a circuit.

The curve is that of the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv
2504.13151). It measures the best .1 % to 100 % of all edges, pruned. One call of
:func:`evaluate_circuits` measures all sizes, so the clean and the ablated run are made once.

**CPR** is the area under faithfulness f. It requires edges selected by signed score, because edges
that hinder the metric lower it. **CMD** is the area of ``|1 - f|``, the distance from the model. It
requires selection by absolute score. With the other selection, each would be a different quantity
with the same name; so it is not given.

The details are those of the benchmark's own code (``evaluate_area_under_curve`` of
MIB-circuit-track). The axis is the requested share, linear, not the share after pruning. Shares are
rounded down to whole edges. The areas begin at the smallest size, and no point is added at 0. So
circuits that equal the model have a CPR of .999 on the benchmark's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.discovery.ablation.setting import Setting, in_a_setting
from ingest.discovery.edges.scores import By, EdgeScores, PrunedCircuit
from ingest.discovery.evaluation.faithfulness import (
    CircuitEvaluation,
    as_text,
    evaluate_circuit,
    evaluate_circuits,
)
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from registry.progress import OnProgress

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
    """One size of the curve.

    Attributes:
        share: Requested share of all edges, 0 to 1.
        circuit: The best edges of that number, pruned. May be empty.
        evaluation: With all other edges ablated; an empty circuit equals the ablated run.
    """

    share: float
    circuit: PrunedCircuit
    evaluation: CircuitEvaluation

    @property
    def faithfulness(self) -> float | None:
        """Faithfulness of the pruned circuit; 0 if it is empty. None as in the evaluation."""
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
        shown = "".join(f", {name} {value:.3g}" for name, value in areas if value is not None)
        return f"<FaithfulnessCurve by {self.by} score at {len(self.points)} sizes{shown}>"

    @property
    def cpr(self) -> float | None:
        """Area under faithfulness; higher is better. Not bounded by 1, like faithfulness.

        Equal to the benchmark's value only on :data:`NOMINAL_SIZES`. None if edges were selected by
        absolute score, or if faithfulness is unknown.
        """
        return self._area(lambda f: f) if self.by == "signed" else None

    @property
    def cmd(self) -> float | None:
        """Area of ``|1 - faithfulness|``; lower is better, 0 means the model itself at every size.

        Equal to the benchmark's value only on :data:`NOMINAL_SIZES`. None if edges were selected by
        signed score, or if faithfulness is unknown.
        """
        return self._area(lambda f: abs(1 - f)) if self.by == "absolute" else None

    def _area(self, height: Callable[[float], float]) -> float | None:
        """Return the trapezoidal area under a function of faithfulness over requested shares."""
        known = [(p.share, p.faithfulness) for p in self.points if p.faithfulness is not None]
        if len(known) < len(self.points):
            return None
        corners = [(share, height(faithfulness)) for share, faithfulness in known]
        return sum((x - x0) * (y + y0) / 2 for (x0, y0), (x, y) in pairwise(corners))


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurves:
    """Both selections of edges on the same prompts.

    Attributes:
        signed: Curve of the edges with the most positive scores; it gives CPR.
        absolute: Curve of the edges with the largest absolute scores; it gives CMD.
    """

    signed: FaithfulnessCurve
    absolute: FaithfulnessCurve

    def __repr__(self) -> str:
        return (
            f"<FaithfulnessCurves at {len(self.signed.points)} sizes: "
            f"signed.cpr {as_text(self.signed.cpr)}, absolute.cmd {as_text(self.absolute.cmd)}>"
        )


@in_a_setting
def faithfulness_curve(
    setting: Setting,
    scores: EdgeScores,
    *,
    by: By,
    sizes: Sequence[float] = NOMINAL_SIZES,
    progress: OnProgress | None = None,
) -> FaithfulnessCurve:
    """Measure the best edges at several sizes; clean and ablated runs are shared.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`; its model is the scored model, and
            its ``kv_heads`` are as the scores name them.
        scores: Scores of the model's edges. A size of less than one edge, or whose edges are all
            pruned, counts as the ablated run: faithfulness 0.
        by: ``signed`` for CPR, ``absolute`` for CMD.
        sizes: Shares of all edges, 0 to 1, ascending, at least two.
        progress: Called with the finished number of prompts times circuits, and the total.

    Raises:
        BadInput, UnsupportedModel, NonFiniteScores, SettingNeeded: See :func:`evaluate_circuit`; or
            the sizes are not ascending shares, or the scores belong to other edges than those of
            the setting.
    """
    (curve,) = _measure(setting, scores, (by,), sizes, progress)
    return curve


@in_a_setting
def faithfulness_curves(
    setting: Setting,
    scores: EdgeScores,
    *,
    sizes: Sequence[float] = NOMINAL_SIZES,
    progress: OnProgress | None = None,
) -> FaithfulnessCurves:
    """Measure both selections of edges at several sizes in one call, for CPR and CMD.

    Clean and ablated runs are shared, and a circuit that both selections give is measured once.
    Arguments and errors as for :func:`faithfulness_curve`.
    """
    signed, absolute = _measure(setting, scores, ("signed", "absolute"), sizes, progress)
    return FaithfulnessCurves(signed, absolute)


def complement(edges: Iterable[str], space: EdgeSpace) -> list[str]:
    """Return all edges of a model that are not in a circuit, receiver by receiver.

    Args:
        edges: The circuit, as ids like ``input->a0.h0<q>``.
        space: Edges of the model, with key/value heads as the edges name them.

    Raises:
        BadInput: The model does not have an edge.
    """
    inside = {space.locate(edge) for edge in edges}
    return [space.edge_id(*cell) for cell in space.edges() if cell not in inside]


@in_a_setting
def evaluate_complement(
    setting: Setting, edges: Iterable[str], *, progress: OnProgress | None = None
) -> CircuitEvaluation:
    """Measure how complete a circuit is, by the model's behaviour without it.

    The circuit's edges carry the ablated value, and all other edges carry the present value.
    Faithfulness near 0 means that nothing outside the circuit does the task. Near 1 it means that
    the circuit is not needed (Marks et al. 2024, arXiv 2403.19647; Yu et al. 2024, arXiv
    2407.03779). This is misleading if ablating one edge is enough to break the model, which is
    often true of the input's edge to the first MLP. Therefore compare with random circuits with
    the same degrees, which should break the model less. To measure a circuit and its
    :func:`complement` in one call, give both to :func:`evaluate_circuits`.

    Arguments and errors as for :func:`evaluate_circuit`.
    """
    return evaluate_circuit(setting, complement(edges, setting.space), progress=progress)


def _measure(
    setting: Setting,
    scores: EdgeScores,
    choices: Sequence[By],
    sizes: Sequence[float],
    progress: OnProgress | None,
) -> list[FaithfulnessCurve]:
    """Return one curve per selection; every distinct circuit is measured once."""
    _check_sizes(sizes)
    _check_scores(setting, scores.space)
    chosen = [[(share, _best(scores, share, by)) for share in sizes] for by in choices]
    # A dictionary keeps the order, unlike a set.
    distinct = list({_ids(circuit): None for points in chosen for _, circuit in points})
    measured = evaluate_circuits(setting, distinct, progress=progress)
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


def _check_scores(setting: Setting, space: EdgeSpace) -> None:
    """Refuse scores of other edges than those of the setting."""
    own = setting.space
    if own != space:
        raise BadInput(
            f"the scores are of {space.n_edges} edges, but the model has {own.n_edges} with "
            f"kv_heads={setting.kv_heads!r}; give the model and the kv_heads of the scores"
        )


def _check_sizes(sizes: Sequence[float]) -> None:
    # Written so that NaN fails. One size is refused because its areas are 0, a perfect CMD.
    ascending = all(low < high for low, high in pairwise(sizes))
    if len(sizes) < 2 or not (ascending and sizes[0] > 0 and sizes[-1] <= 1):
        raise BadInput(
            "sizes must be two or more shares of all edges in ascending order, above 0 and up to "
            f"1, such as 0.01, 0.1, 1; got {', '.join(map(str, sizes)) or 'none'}"
        )
