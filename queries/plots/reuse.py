"""The picture of how many tasks use a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.figures import empty_figure, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from queries.answers.reuse import Reuse

__all__ = ["figure_of_reuse"]

_FOUND, _BY_CHANCE = "#0b6e75", "#aab4bf"


def figure_of_reuse(found: Reuse) -> Figure:
    """Plot how many components and connections are used by one task, two, ..., and by chance.

    Circuits without edges have no connections, and no plot of them.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    spread = found.spread()
    numbers = [row["n_tasks"] for row in spread]
    plotted = ["components", *(["connections"] if found.connections else [])]
    figure = empty_figure(4.5 * len(plotted), 3.6)
    for axes, of in zip(figure.subplots(1, len(plotted), squeeze=False)[0], plotted, strict=True):
        axes.bar(
            [n - 0.2 for n in numbers],
            [row[of] for row in spread],
            0.4,
            color=_FOUND,
            label="found",
        )
        chance = [row[f"{of} by chance"] for row in spread]
        if None not in chance:
            axes.bar([n + 0.2 for n in numbers], chance, 0.4, color=_BY_CHANCE, label="by chance")
            legend_above(axes)
        axes.set_xticks(numbers)
        axes.set_xlabel(f"tasks, of {len(found.tasks)}")
        axes.set_ylabel(of)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"How many tasks use a part of {found.chosen.model}")
    return figure
