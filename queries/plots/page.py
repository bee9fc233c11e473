"""The page of a drawn circuit: its size, heading and legend.

A page is as small as what is drawn and its texts allow, so that texts stay legible when a picture
is scaled to the width of a column.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from queries.plots.picture import (
    OWN,
    SHARED_BY_ALL,
    SHARED_BY_SOME,
    DrawnEdge,
    Picture,
    acts,
    colour_of,
    users_of,
)
from registry.errors import MissingExtra
from registry.texts.nouns import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

__all__ = ["DASHES", "FAINT", "INCHES", "INK", "THINNEST", "WIDEST", "page"]

INK = "#1d2733"
FAINT = "#6b7783"
INCHES = 0.74
"""Size of a drawing unit."""
WIDEST, THINNEST = 4.2, 0.8
"""Widths of the strongest and of the weakest edge, in points."""
DASHES: Mapping[str, Any] = {
    "helps": "solid", "hurts": (0, (2.2, 1.2)), "mixed": (0, (6, 1.2, 1.2, 1.2)),
}  # fmt: skip
"""Style of a line by how its effects act; lengths are multiples of its width."""

_MARGIN = 0.3  # inches, as are all sizes below unless they are said to be others
_NARROWEST = 4.5
_TOP, _BOTTOM = 0.2, 0.12
_TITLE_LINE, _SUBTITLE_LINE = 0.27, 0.175
_TITLE: Mapping[str, Any] = {"size": 14, "weight": "bold"}  # points
_SUBTITLE: Mapping[str, Any] = {"size": 9}  # points
_MOST_LINES = 3
_UNEVEN = 0.9
"""Share of the room that a line takes at most on average, as some letters are wide."""
_GAP = 0.15
_MOST_COLUMNS = 4
_LEGEND_SIZE = 8.5  # points
_DASHED = 2.0  # points
_SWATCH = 3.7  # times the size of the legend's letters: a period of every line, and a dash


def page(
    picture: Picture, edges: Sequence[DrawnEdge], width: float, height: float
) -> tuple[Figure, Axes]:
    """A page with heading and legend, and axes over its whole width for the drawing.

    Args:
        picture: What is drawn.
        edges: Its drawn edges.
        width: Smallest width of the axes, in inches.
        height: Height of the axes, in inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing", "plots") from error
    width = max(_NARROWEST, width + 2 * _MARGIN)
    title = _lines(picture.title, width, _TITLE)
    subtitle = _subtitle(picture, edges, width)
    head = _TOP + len(title) * _TITLE_LINE + len(subtitle) * _SUBTITLE_LINE + _GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    foot = _draw_legend(figure, list(_legend(picture, edges)), width)
    whole = head + height + foot
    figure.set_figheight(whole)
    _draw_heading(figure, title, subtitle)
    return figure, figure.add_axes((0.0, foot / whole, 1.0, height / whole))


def _draw_heading(figure: Figure, title: Sequence[str], subtitle: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    below_title = _TOP + len(title) * _TITLE_LINE
    figure.text(
        _MARGIN / width, 1 - _TOP / height, "\n".join(title), **_TITLE, color=INK, va="top",
        gid="title",
    )  # fmt: skip
    figure.text(
        _MARGIN / width, 1 - below_title / height, "\n".join(subtitle), **_SUBTITLE, color=FAINT,
        va="top", linespacing=1.4, gid="subtitle",
    )  # fmt: skip


def _draw_legend(figure: Figure, handles: Sequence[Any], width: float) -> float:
    """Draw the legend in as many columns as the page has room for.

    Returns:
        Height of the strip at the foot of the page that it takes, in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    for columns in range(_MOST_COLUMNS, 0, -1):
        legend = _legend_of(figure, handles, columns)
        taken = legend.get_window_extent(renderer)
        if columns == 1 or taken.width / figure.dpi <= width - _MARGIN:
            break
        legend.remove()
    return _BOTTOM + float(taken.height) / figure.dpi + _GAP


def _legend_of(figure: Figure, handles: Sequence[Any], columns: int) -> Legend:
    return figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.2, _BOTTOM),
        bbox_transform=figure.dpi_scale_trans,
        ncols=columns,
        frameon=False,
        fontsize=_LEGEND_SIZE,
        labelcolor=INK,
        handlelength=_SWATCH,
        columnspacing=1.8,
    )


def _lines(text: str, width: float, font: Mapping[str, Any]) -> list[str]:
    """Break a text that is wider than the page into lines; what is too long is cut."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    room = 72 * (width - 2 * _MARGIN)
    taken = TextPath((0, 0), text, size=font["size"], prop=FontProperties(**font)).get_extents()
    if taken.width <= room:
        return [text]
    return textwrap.wrap(
        text,
        int(_UNEVEN * len(text) * room / taken.width),
        max_lines=_MOST_LINES,
        placeholder="…",
        break_on_hyphens=False,
    )


def _subtitle(picture: Picture, edges: Sequence[DrawnEdge], width: float) -> list[str]:
    about = f"{_count(picture, edges)}; the numbers are layers"
    return [
        line
        for text in (",  ".join(picture.tasks), about)
        for line in _lines(text, width, _SUBTITLE)
    ]


def _count(picture: Picture, edges: Sequence[DrawnEdge]) -> str:
    """How many of the edges are drawn, in words."""
    if not edges:
        n_shared = sum(n >= picture.min_tasks for n in picture.components.values())
        return f"{counted(n_shared, 'shared component')}, without edges"
    shared = [edge for edge in picture.edges if len(edge.effects) >= picture.min_tasks]
    shown = sum(len(edge.effects) >= picture.min_tasks for edge in edges)
    edges_in_all = counted(len(shared), "edge" if len(picture.tasks) < 2 else "shared edge")
    all_ = edges_in_all if len(shared) == 1 else f"all {edges_in_all}"
    count = all_ if shown == len(shared) else f"the strongest {shown} of {edges_in_all}"
    context = len(edges) - shown
    others = "1 other" if context == 1 else f"{context} others"
    return count + (f", with {others} for context" if context else "")


def _legend(picture: Picture, edges: Sequence[DrawnEdge]) -> Iterable[Any]:
    from matplotlib.lines import Line2D

    def line(label: str, colour: str, **style: Any) -> Line2D:
        return Line2D([], [], color=colour, label=label, **{"linewidth": 3.0, **style})

    n_tasks = len(picture.tasks)
    users = {*(len(edge.effects) for edge in edges), *users_of(picture, edges).values()}
    drawn = {colour_of(count, n_tasks) for count in users}
    names = {
        SHARED_BY_ALL: {1: "edge of the circuit", 2: "used by both"}.get(
            n_tasks, f"used by all {n_tasks}"
        ),
        SHARED_BY_SOME: "used by some, not all",
        OWN: "used by only one",
    }
    yield from (line(text, colour) for colour, text in names.items() if colour in drawn)
    if edges:
        yield line("strong effect", INK, linewidth=WIDEST)
        yield line("weak effect", INK, linewidth=THINNEST)
    acting = {acts(edge.effects) for edge in edges}
    if "hurts" in acting:
        yield line("hurts the metric", INK, linestyle=DASHES["hurts"], linewidth=_DASHED)
    if "mixed" in acting:
        yield line("helps one, hurts another", INK, linestyle=DASHES["mixed"], linewidth=_DASHED)
    if any(edge.port for edge in edges):
        yield Line2D(
            [], [], linestyle="", marker="$q\\ k\\ v$", markersize=16, color=FAINT,
            markeredgewidth=0, label="input of a head: query, key, value",
        )  # fmt: skip
    if picture.heads_per_group is not None:
        yield line("heads that read a key/value head", FAINT, linestyle=":", linewidth=1.1)
