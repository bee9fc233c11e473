"""The picture of a matrix of circuits: overlap, overlap beyond chance, and transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from queries.circuits.transfers import MEASURED
from queries.plots.heatmap import HeatMaps, Panel, draw_heat_maps

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from queries.answers.matrix import CircuitMatrix, Of

__all__ = ["figure_of_matrix"]

_LEAST_Z = 3.0
_RED_ABOVE, _TEAL_ABOVE = "vlag", "BrBG"


def figure_of_matrix(matrix: CircuitMatrix, of: Of) -> Figure:
    """Draw it, circuits in clustered order.

    Args:
        matrix: What to draw.
        of: The kind of part that the first panel counts.

    Raises:
        MissingExtra: matplotlib or seaborn is not installed.
    """
    order = matrix.order(of)
    panels = (
        _overlaps(matrix, of, order),
        _beyond_chance(matrix, order),
        _transfers(matrix, order),
    )
    return draw_heat_maps(
        HeatMaps(
            title=f"{len(matrix.circuits)} circuits of {len(matrix.tasks)} tasks in "
            f"{matrix.chosen.model}",
            panels=panels,
            foot="framed: a circuit with itself on other prompts, or on its own task; hatched: not "
            "measured, or unknown",
            tree=_tree(matrix, of),
        )
    )


def _overlaps(matrix: CircuitMatrix, of: Of, order: Sequence[str]) -> Panel:
    values = _named(matrix, matrix.overlap(of).loc[list(order), list(order)])
    return Panel(
        title=f"Shared {of}: intersection over union\ndiagonal: same task, other prompts",
        values=values,
        texts=_texts(values, ".2f"),
        turning=None,
        most=_most(values, 0.5),
        framed=_known_diagonal(values),
    )


def _beyond_chance(matrix: CircuitMatrix, order: Sequence[str]) -> Panel:
    values = _named(matrix, matrix.beyond_chance().loc[list(order), list(order)])
    levels = sorted(
        {
            "components" if pair.counts_components else "connections"
            for pair in matrix.pairs
            if pair.null is not None
        }
    )
    return Panel(
        title=f"Beyond chance: z of shared {' or '.join(levels) or 'connections'}\n"
        "under the null with the smallest z",
        values=values,
        texts=_texts(values, "+.1f"),
        turning=_RED_ABOVE,
        most=_most(values, _LEAST_Z),
        empty=frozenset((place, place) for place in range(len(order))),
    )


def _transfers(matrix: CircuitMatrix, order: Sequence[str]) -> Panel:
    task_of = {id: task for task, ids in matrix.chosen.by_task.items() for id in ids}
    tasks = list(dict.fromkeys(task_of[id] for id in order))
    values = matrix.transferred().loc[list(order), tasks]
    random = matrix.transferred(random=True).loc[list(order), tasks]
    measure = MEASURED[matrix.measure]
    percent = measure.is_percent
    digits = ".0f" if percent else ".2f"
    texts = [
        [_with_random(text, beside, digits) for text, beside in zip(*row, strict=True)]
        for row in zip(_texts(values, digits), random.to_numpy().tolist(), strict=True)
    ]
    has_random = bool(random.notna().to_numpy().any())
    own = {(row, tasks.index(task_of[id])) for row, id in enumerate(order)}
    named = _named(matrix, values, columns=False)
    return Panel(
        title=f"{measure.label}\nof the circuit (row) on the task (column)"
        + ("; below: random circuits" if has_random else ""),
        values=named,
        texts=texts,
        turning=_TEAL_ABOVE,
        most=_most(values, 100.0 if percent else 1.0),
        framed={cell for cell in own if not named.isna().iat[cell]},
    )


def _named(
    matrix: CircuitMatrix, values: pandas.DataFrame, *, columns: bool = True
) -> pandas.DataFrame:
    labels = dict(matrix.labels)
    named = values.rename(index=labels)
    return named.rename(columns=labels) if columns else named


def _texts(values: pandas.DataFrame, format: str) -> list[list[str]]:
    return [
        # NaN differs from itself; + 0.0 turns -0 into 0.
        ["" if value != value else f"{round(value, 2) + 0.0:{format}}" for value in row]
        for row in values.to_numpy().tolist()
    ]


def _with_random(text: str, random: float, digits: str) -> str:
    known = bool(text) and random == random
    return f"{text}\n{round(random, 2) + 0.0:{digits}}" if known else text


def _most(values: pandas.DataFrame, least: float) -> float:
    """The largest absolute value, but at least a minimum, so that small differences stay pale."""
    sizes: list[float] = values.abs().to_numpy().ravel().tolist()
    return max([least, *(size for size in sizes if size == size)])


def _known_diagonal(values: pandas.DataFrame) -> frozenset[tuple[int, int]]:
    known = values.notna().to_numpy().diagonal()
    return frozenset((place, place) for place, there in enumerate(known) if there)


def _tree(matrix: CircuitMatrix, of: Of) -> Sequence[tuple[Sequence[float], Sequence[float]]]:
    from scipy.cluster.hierarchy import dendrogram

    if len(matrix.circuits) < 3:
        return ()
    found = dendrogram(matrix.linkage(of), no_plot=True)
    highest = max(max(heights) for heights in found["dcoord"]) or 1.0
    # The middles of leaves are at 5, 15, 25, ...
    return [
        ([one / 10 for one in along], [one / highest for one in heights])
        for along, heights in zip(found["icoord"], found["dcoord"], strict=True)
    ]
