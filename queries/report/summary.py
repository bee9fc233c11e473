"""The main results of a report, in sentences made only from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from statistics import fmean, median
from typing import TYPE_CHECKING

from queries.answers.compare import SIGNIFICANT, PairComparison
from queries.circuits.transfers import MEASURED, Transfer
from queries.report.families import Likeness, Resemblance
from queries.report.page import as_text
from registry.identifiers import Kind
from registry.texts.nouns import counted

if TYPE_CHECKING:
    from queries.answers.matrix import CircuitMatrix
    from queries.report.gathering import Report

__all__ = ["controls", "listed", "rounded", "saturations", "summary"]

_SHOWN = 8
_PERCENTS = 10.0
_LIKE_EDGES = "with the same nodes and degrees"
_LIKE_NODES = "with as many parts of each kind"
_UNRELIABLE = 0.4
"""Saturation above which the null of degrees rejects too often; see docs/statistics.md."""


def summary(report: Report) -> tuple[str, ...]:
    """Sentences on sharing beyond chance, ceilings, transfer, shared and reused parts."""
    return tuple(
        chain(
            _circuits(report),
            _beyond_chance(report.matrix),
            _extremes(report.matrix),
            _ceilings(report.matrix),
            _transfers(report),
            *(_family(one) for one in report.families),
            _shared(report),
            _reused(report),
            _saturation(report.matrix),
        )
    )


def listed(words: Iterable[str], most: int | None = None) -> str:
    """``a, b and c``, or the first ``most`` words and the number of the others."""
    all_ = list(words)
    shown = all_ if most is None or len(all_) <= most else all_[:most]
    if len(shown) < len(all_):
        return f"{', '.join(shown)} and {len(all_) - len(shown)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _circuits(report: Report) -> Iterator[str]:
    matrix = report.matrix
    n, tasks = len(matrix.circuits), len(matrix.tasks)
    sizes = sorted({len(one.edges) or len(one.nodes) for one in report.circuits.values()})
    kinds = sorted({"edges" if one.edges else "nodes" for one in report.circuits.values()})
    parts = " or ".join(kinds)
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    model = matrix.chosen.model
    yield f"{n} circuits represent {tasks} tasks in {model}. They have {size} {parts}."
    if matrix.chosen.size and sizes != [matrix.chosen.size]:
        yield (
            f"{matrix.chosen.size:,} {parts} were selected for each; dangling ones were removed."
        )


def _beyond_chance(matrix: CircuitMatrix) -> Iterator[str]:
    tested = [pair for pair in matrix.pairs if pair.q is not None]
    if not tested:
        yield "There is no comparison with chance: it was not requested, or is not possible."
        return
    beyond = [pair for pair in tested if pair.q is not None and pair.q < SIGNIFICANT]
    others = [pair for pair in tested if pair not in beyond]
    every = all(None not in (pair.by_degrees, pair.by_hubs, pair.by_layers) for pair in tested)
    yield (
        f"Of {len(tested)} pairs, {len(beyond) or 'none'} share more {_counted(matrix)} than "
        f"chance {'under all three nulls ' if every else ''}(q below {SIGNIFICANT}, corrected for "
        "all pairs)."
    )
    few, start = (beyond, "They are") if len(beyond) <= len(others) else (others, "The others are")
    if few:
        yield f"{start}: {listed((_pair(matrix, pair) for pair in few), _SHOWN)}."


def _counted(matrix: CircuitMatrix) -> str:
    """The kind of part that the nulls of all pairs count."""
    alone = (pair.counts_components for pair in matrix.pairs)
    return "components" if matrix.of == "components" or any(alone) else "connections"


def _extremes(matrix: CircuitMatrix) -> Iterator[str]:
    known = [(iou, pair) for pair in matrix.pairs if (iou := _iou(matrix, pair)) is not None]
    if len(known) < 2:
        yield from (_extreme(matrix, pair, "They share") for _, pair in known)
        return
    ordered = sorted(known, key=lambda one: -one[0])
    most, least = ordered[0][1], ordered[-1][1]
    yield _extreme(matrix, most, f"The pair that shares most is {_pair(matrix, most)}:")
    yield _extreme(matrix, least, f"The pair that shares least is {_pair(matrix, least)}:")


def _extreme(matrix: CircuitMatrix, pair: PairComparison, start: str) -> str:
    found, null = pair.comparison, pair.null
    overlap = found.connections if matrix.of == "connections" else found.components
    text = f"{start} {counted(overlap.n_shared, matrix.of[:-1])}, IoU {rounded(overlap.iou, 2)}"
    if matrix.of == "components":
        heads = found.of_kind(Kind.HEAD)
        text += f" ({counted(heads.n_shared, 'head')}, IoU {rounded(heads.iou, 2)})"
    if null is None:
        return f"{text}."
    about = (
        f"chance expects {rounded(null.expected, 1)} of {null.n_shared:,}"
        if null.n_shared != overlap.n_shared
        else f"chance expects {rounded(null.expected, 1)}"
    )
    z = "" if null.z is None else f", z {rounded(null.z, 1)}"
    return f"{text}; {about}{z}, q {as_text(pair.q)}."


def _ceilings(matrix: CircuitMatrix) -> Iterator[str]:
    if not matrix.ceilings:
        yield (
            "No task has several circuits that were found the same way on other prompts, so how "
            "much a task shares with itself is not known."
        )
        return
    means = [one.mean_iou for one in matrix.ceilings.values()]
    yield (
        "Circuits of one task found the same way on other prompts share an IoU of "
        f"{_range(means)} (means by task). Two tasks are not expected to share more."
    )
    shares = [
        (iou / ceiling, pair)
        for pair in matrix.pairs
        if (iou := _iou(matrix, pair)) is not None and (ceiling := _ceiling(matrix, pair))
    ]
    if shares:
        share, pair = max(shares, key=lambda one: one[0])
        yield (
            f"The pair nearest to this is {_pair(matrix, pair)}, with {share:.0%} of the mean of "
            "their two ceilings."
        )


def controls(report: Report) -> str:
    """The random circuits that were measured for comparison, in words."""
    has_edges = {bool(one.edges) for one in report.circuits.values()}
    if has_edges == {True}:
        return f"random circuits {_LIKE_EDGES}"
    if has_edges == {False}:
        return f"random circuits {_LIKE_NODES}"
    return f"random circuits {_LIKE_EDGES}, or without edges {_LIKE_NODES}"


def _transfers(report: Report) -> Iterator[str]:
    matrix = report.matrix
    shown = [one for one in matrix.transfers if one.measure == matrix.measure]
    own = [one for one in shown if one.task == one.found_on]
    others = [one for one in shown if one.task != one.found_on]
    if not others:
        yield "The faithfulness of the circuits on each other's tasks was not measured."
        return
    measure = MEASURED[matrix.measure]
    what = measure.name if measure.unit is None else f"{measure.name} ({measure.unit})"
    on_own = f" on their own tasks circuits reach {_range(_values(own))}," if own else ""
    best = max(others, key=lambda one: one.value)
    yield (
        f"Measured by {what},{on_own} on other tasks {_range(_values(others))} (median "
        f"{_plain(median(_values(others)))}, {len(others)} values). Transfer is best from "
        f"{best.found_on} to {best.task}: {_plain(best.value)}."
    )
    yield from _compared_with_random(own, others, controls(report))


def _compared_with_random(
    own: Sequence[Transfer], others: Sequence[Transfer], controls: str
) -> Iterator[str]:
    beside = [(one.value, one.random) for one in others if one.random is not None]
    if not beside:
        yield "No random circuits were measured on other tasks."
        return
    at_home = [one.random for one in own if one.random is not None]
    if at_home:
        yield (
            f"On the circuits' own tasks {controls} reach {_range(at_home)}: this much follows "
            "from the choice of parts alone."
        )
    above = sum(value > random for value, random in beside)
    yield (
        f"On other tasks random circuits reach {_range(random for _, random in beside)}; the "
        f"circuits do better in {above} of {len(beside)} cases."
    )


def _family(one: Resemblance) -> Iterator[str]:
    within = _likeness(one.within)
    yield (
        f"The {len(one.tasks)} tasks of the family {one.family} ({listed(one.tasks)}), pairs of "
        f"different tasks, means: {within}."
    )
    for other, beside in one.beside.items():
        known = [*_known_of_both(one.within, beside)]
        more = [name for name, mine, its in known if mine > its]
        less = [name for name, mine, its in known if mine <= its]
        verdict = (
            f"they are more similar to each other than to {other} by {listed(more)}"
            if more
            else f"they are not more similar to each other than to {other}"
        )
        but = f", but not by {listed(less)}" if more and less else ""
        if known:
            yield f"With {other}: {_likeness(beside)}; {verdict}{but}."


def _known_of_both(within: Likeness, beside: Likeness) -> Iterator[tuple[str, float, float]]:
    """Values known for both: the name, and the value of each."""
    for name, mine, its in (
        ("IoU", within.iou, beside.iou),
        ("z", within.z, beside.z),
        ("transfer", within.transfer, beside.transfer),
        ("transfer beyond random circuits", within.gain, beside.gain),
    ):
        if mine is not None and its is not None:
            yield name, mine, its


def _likeness(one: Likeness) -> str:
    named = (
        ("IoU", one.iou, 2), ("z", one.z, 1), ("transfer", one.transfer, 2),
        ("beyond random circuits", one.gain, 2),
    )  # fmt: skip
    return ", ".join(
        f"{name} {rounded(value, digits)}" for name, value, digits in named if value is not None
    )


def _shared(report: Report) -> Iterator[str]:
    shared = report.shared
    least, n = shared.min_tasks, len(shared.tasks)
    who = f"All {n} tasks use" if least == n else f"{least} or more of {n} tasks use"
    if not shared.components and not shared.connections:
        yield f"There is no component and no connection that {who[0].lower()}{who[1:]}."
        return
    if not any(one.edges for one in report.circuits.values()):
        yield f"{who} {counted(len(shared.components), 'component')}; the circuits have no edges."
        return
    same = [one.signs_agree for one in shared.connections if one.signs_agree is not None]
    signs = (
        f"; {sum(same):,} of {counted(len(same), 'connection')} with signs in several tasks have "
        "the same sign in all of them"
        if same
        else ""
    )
    yield (
        f"{who} {counted(len(shared.components), 'component')} and "
        f"{counted(len(shared.connections), 'connection')}{signs}. {_paths(shared.n_paths)}"
    )


def _paths(n: int) -> str:
    if not n:
        return "No path of shared connections leads from input to logits."
    if n == 1:
        return "One path of shared connections leads from input to logits."
    return f"{n:,} paths of shared connections lead from input to logits."


def _reused(report: Report) -> Iterator[str]:
    heads = [one for one in report.reuse.components if one.kind in ("head", "kv_head")]
    n = len(report.reuse.tasks)
    general = [one for one in heads if one.n_tasks == n]
    single = [one for one in heads if one.n_tasks == 1]
    if not heads:
        return
    names = f" ({listed((_local(one.name) for one in general), _SHOWN)})" if general else ""
    expected = [one.expected for one in heads if one.expected is not None]
    yield (
        f"Of {len(heads):,} heads and key/value heads that any task uses, {len(general):,} are "
        f"used by all {n}{names}, and {len(single):,} by only one."
    )
    sure = [one for one in heads if one.q is not None and one.q < SIGNIFICANT]
    if expected:
        names = f": {listed((_local(one.name) for one in sure), _SHOWN)}" if sure else ""
        yield (
            f"Used by more tasks than expected by chance (random heads of the same layers, q below "
            f"{SIGNIFICANT}): {len(sure) or 'none'}{names}."
        )


def saturations(matrix: CircuitMatrix) -> dict[str, float]:
    """Saturation of each circuit with edges: the share of edges between its hubs that it has."""
    return {
        id: share
        for pair in matrix.pairs
        for id, share in (
            (pair.circuit_a.id, pair.saturation_a), (pair.circuit_b.id, pair.saturation_b)
        )
        if share is not None
    }  # fmt: skip


def _saturation(matrix: CircuitMatrix) -> Iterator[str]:
    by_circuit = saturations(matrix)
    if not by_circuit:
        return
    yield (
        f"Circuits have {_range(by_circuit.values())} of all edges between their hubs "
        f"(saturation). From {_UNRELIABLE} on, the null of degrees alone is not reliable."
    )


def _pair(matrix: CircuitMatrix, pair: PairComparison) -> str:
    return f"{matrix.labels[pair.circuit_a.id]} with {matrix.labels[pair.circuit_b.id]}"


def _iou(matrix: CircuitMatrix, pair: PairComparison) -> float | None:
    found = pair.comparison
    return found.connections.iou if matrix.of == "connections" else found.components.iou


def _ceiling(matrix: CircuitMatrix, pair: PairComparison) -> float | None:
    """Mean of both circuits' ceilings; None if one is unknown, or nothing is shared."""
    known = [matrix.ceilings.get(one.id) for one in (pair.circuit_a, pair.circuit_b)]
    means = [one.mean_iou for one in known if one is not None]
    return (fmean(means) or None) if len(means) == 2 else None


def _values(transfers: Iterable[Transfer]) -> list[float]:
    return [one.value for one in transfers]


def _range(values: Iterable[float]) -> str:
    known = sorted(values)
    low, high = _plain(known[0]), _plain(known[-1])
    return low if low == high else f"{low} to {high}"


def rounded(value: float | None, digits: int) -> str:
    """Text of a number for a sentence, without ``-0``."""
    return as_text(None) if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def _plain(value: float) -> str:
    """Shares with two digits, percents with none."""
    return rounded(value, 2 if abs(value) < _PERCENTS else 0)


def _local(name: str) -> str:
    return name.partition("/")[2]
