"""The picture of the differences of two circuits."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from registry.figures import empty_figure, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from queries.answers.diff import Differences, Where

__all__ = ["figure_of_differences"]

_COLOURS: Mapping[Where, str] = {"a": "#d9822b", "b": "#5b6bb5", "both": "#0b6e75"}
_LEGEND: Mapping[Where, str] = {"a": "only in a", "b": "only in b", "both": "in both"}


def figure_of_differences(found: Differences) -> Figure:
    """Plot the effect of each connection in b against that in a; of components if there are none.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    what, drawn = "Connections", found.connections
    if not drawn:
        what, drawn = "Components", found.components
    figure = empty_figure(5.6, 5.2)
    axes = figure.subplots()
    for where in _COLOURS:
        parts = [one for one in drawn if one.where == where]
        axes.scatter(
            [one.effect_a or 0.0 for one in parts],
            [one.effect_b or 0.0 for one in parts],
            s=14,
            color=_COLOURS[where],
            alpha=0.7,
            label=f"{_LEGEND[where]} ({len(parts)})",
        )
    # A few edges are far stronger than all others: above the median size, scales are logarithmic.
    sizes = [abs(e) for one in drawn for e in (one.effect_a, one.effect_b) if e]
    largest, middle = (max(sizes), median(sizes)) if sizes else (1.0, 1.0)
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("symlog", linthresh=middle)
    reach = (-1.3 * largest, 1.3 * largest)
    axes.plot(reach, reach, color="#aab4bf", linewidth=0.8, zorder=0)
    axes.set_xlim(reach)
    axes.set_ylim(reach)
    axes.set_xlabel(f"effect in a ({found.a[:12]})")
    axes.set_ylabel(f"effect in b ({found.b[:12]})")
    legend_above(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{what} of two circuits in {found.model}", fontsize=10)
    return figure
