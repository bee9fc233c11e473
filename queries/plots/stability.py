"""The picture of :class:`queries.answers.stability.Stability`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from registry.figures import empty_figure, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from queries.answers.stability import Stability

__all__ = ["stability_figure"]

_MOST_LABELS = 30
_BINS = 10
_BAR, _MARK = "#0b6e75", "#d9822b"


def stability_figure(found: Stability) -> Figure:
    """A map of the overlap of any two circuits, beside how often parts are found.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = empty_figure(10.5, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_overlaps(left, found)
    _draw_frequencies(right, found)
    figure.suptitle(f"Circuits of {found.task} in {found.model}")
    return figure


def _draw_overlaps(axes: Axes, found: Stability) -> None:
    image = axes.imshow(found.iou, vmin=0, vmax=1, cmap="viridis")
    axes.figure.colorbar(image, ax=axes, label=f"shared {found.over} over all of the two")
    labels = [f"{one.group}: {one.circuit[:6]}" for one in found.circuits]
    axes.set_yticks([*range(len(labels))] if len(labels) <= _MOST_LABELS else [])
    if len(labels) <= _MOST_LABELS:
        axes.set_yticklabels(labels, fontsize=8)
    axes.set_xticks([])
    axes.set_title("overlap; labels are numbers of groups", fontsize=10)
    for place, (one, other) in enumerate(itertools.pairwise(found.circuits)):
        if one.group != other.group:
            axes.axhline(place + 0.5, color="white", linewidth=1.5)
            axes.axvline(place + 0.5, color="white", linewidth=1.5)


def _draw_frequencies(axes: Axes, found: Stability) -> None:
    shares = [one.share for one in found.frequent]
    axes.hist(shares, bins=[n / _BINS for n in range(_BINS + 1)], color=_BAR, edgecolor="white")
    axes.axvspan(found.share, 1, color=_MARK, alpha=0.15, linewidth=0, zorder=0, label="consensus")
    within = "within a group" if found.by == "seeds" else "over groups"
    axes.set_xlabel(f"share of circuits that have a {found.over.removesuffix('s')}, {within}")
    axes.set_ylabel(found.over)
    axes.set_xlim(0, 1)
    legend_above(axes)
    axes.spines[["top", "right"]].set_visible(False)
