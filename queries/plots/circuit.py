"""Draw the most important part of one or several circuits.

Layers run from left to right, heads are above, MLPs below. The width of a line shows the strength
of the edge relative to the strongest edge of the same task. The colour shows how many tasks share
the edge, and dashes whether it hurts. Needs the extra ``plots``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.plots.page import DASHES, FAINT, INCHES, INK, THINNEST, WIDEST, page
from queries.plots.picture import (
    FILLS,
    DrawnEdge,
    Picture,
    acts,
    colour_of,
    edge_key,
    strengths,
    strongest,
    users_of,
)
from registry.errors import BadInput
from registry.figures import check_suffix, save_figure
from registry.identifiers import Kind, parse_local, sort_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from queries.plots.layout import Layout

__all__ = ["DrawnEdge", "Picture", "draw", "figure_of", "strongest"]


_BAND = "#f6f8fa"
_BELOW, _ABOVE = 0.35, 0.55  # drawing units, for the ends of bands and the numbers of layers


def draw(picture: Picture, path: Path) -> None:
    """Write a drawing as SVG, PNG or PDF, depending on the suffix of ``path``.

    Raises:
        BadInput: The suffix is another, or there is nothing to draw.
        MissingExtra: matplotlib is not installed.
    """
    check_suffix(path)
    save_figure(figure_of(picture), path)


def figure_of(picture: Picture) -> Figure:
    """Build the drawing as a matplotlib figure without a window.

    Raises:
        BadInput: There is nothing to draw.
        MissingExtra: matplotlib is not installed.
    """
    from queries.plots.layout import lay_out

    edges = strongest(picture)
    if not edges and not picture.components:
        raise BadInput("there is nothing to draw; ask for fewer tasks or a smaller --min-tasks")
    names = users_of(picture, edges)
    layout = lay_out(names, [(edge.source, edge.target, edge.port) for edge in edges])
    drawn = (layout.right - layout.left, layout.top - layout.bottom + _BELOW + _ABOVE)
    figure, axes = page(picture, edges, drawn[0] * INCHES, drawn[1] * INCHES)
    _frame(axes, layout, figure.get_figwidth())
    _draw_edges(axes, layout, picture, edges)
    _draw_nodes(axes, layout, picture, edges)
    return figure


def _frame(axes: Axes, layout: Layout, width: float) -> None:
    """Axes without ticks at a fixed scale; a band and a number for every second layer."""
    from matplotlib.patches import Rectangle

    spare = (width / INCHES - (layout.right - layout.left)) / 2
    axes.set_xlim(layout.left - spare, layout.right + spare)
    axes.set_ylim(layout.bottom - _BELOW, layout.top + _ABOVE)
    axes.set_axis_off()
    low, high = axes.get_ylim()
    for place, (layer, left, right) in enumerate(layout.layers):
        if place % 2 == 0:
            axes.add_patch(
                Rectangle((left, low), right - left, high - low, color=_BAND, zorder=0, lw=0)
            )
        axes.text(
            (left + right) / 2, high - 0.12, str(layer), ha="center", va="top", fontsize=8,
            color=FAINT, gid="layer",
        )  # fmt: skip


def _draw_edges(axes: Axes, layout: Layout, picture: Picture, edges: Sequence[DrawnEdge]) -> None:
    import numpy as np

    from queries.plots.layout import PORT_OFFSET, curves

    strength = strengths(picture)
    top = max((strength[edge_key(edge)] for edge in edges), default=0.0) or 1.0
    control = curves(
        np.array([layout.places[edge.source] for edge in edges]).reshape(-1, 2),
        np.array([layout.places[edge.target] for edge in edges]).reshape(-1, 2),
        np.array([PORT_OFFSET[edge.port] for edge in edges]),
    )
    for edge, points in zip(edges, control, strict=True):
        # A few edges are many times stronger than the others, whose widths would not differ.
        share = (strength[edge_key(edge)] / top) ** 0.5
        axes.add_patch(_line(points, edge, picture, share))
    _draw_groups(axes, layout, picture)


def _line(points: Any, edge: DrawnEdge, picture: Picture, share: float) -> Any:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    colour = colour_of(len(edge.effects), len(picture.tasks))
    context = len(edge.effects) < picture.min_tasks
    acting = acts(edge.effects)
    outline = Outline(points, [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4])
    return PathPatch(
        outline,
        fill=False,
        edgecolor=colour,
        linewidth=THINNEST + (0.8 if context else WIDEST - THINNEST) * share,
        linestyle=DASHES[acting],
        alpha=0.45 if context else 0.8,
        capstyle="round" if acting == "helps" else "butt",
        zorder=1 if context else 2 + len(edge.effects) / 100,
        gid=f"{edge.source}->{edge.target}" + (f"<{edge.port}>" if edge.port else ""),
    )


def _draw_groups(axes: Axes, layout: Layout, picture: Picture) -> None:
    """Dotted links from a key/value head to the drawn heads that read it; they are not edges."""
    if picture.heads_per_group is None:
        return
    for name, (x, y) in layout.places.items():
        local = parse_local(name)
        if local.kind is not Kind.HEAD or local.head is None:
            continue
        group = f"a{local.layer}.kv{local.head // picture.heads_per_group}"
        if group in layout.places:
            gx, gy = layout.places[group]
            axes.plot([gx, x], [gy, y], ":", color=FAINT, linewidth=1.1, zorder=1.5)


def _draw_nodes(axes: Axes, layout: Layout, picture: Picture, edges: Sequence[DrawnEdge]) -> None:
    users = users_of(picture, edges)
    ports: dict[str, set[str]] = {}
    for edge in edges:
        if edge.port:
            ports.setdefault(edge.target, set()).add(edge.port)
    for name in sorted(layout.places, key=lambda name: sort_key(parse_local(name))):
        _draw_node(
            axes, layout.places[name], name, users[name], sorted(ports.get(name, ())), picture
        )


def _draw_node(
    axes: Axes,
    middle: tuple[float, float],
    name: str,
    n_tasks: int,
    ports: Sequence[str],
    picture: Picture,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    from queries.plots.layout import BOX_HEIGHT, BOX_WIDTH, PORT_OFFSET

    x, y = middle
    colour = colour_of(n_tasks, len(picture.tasks))
    rounding = 0.04 if parse_local(name).kind in {Kind.MLP, Kind.NEURON} else 0.2
    axes.add_patch(
        FancyBboxPatch(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2),
            BOX_WIDTH,
            BOX_HEIGHT,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=FILLS[colour],
            edgecolor=colour,
            linewidth=1.5,
            zorder=4,
            gid=name,
        )
    )
    shift = 0.07 if ports else 0.0
    axes.text(
        x + shift, y, name, ha="center", va="center_baseline", zorder=5, gid="node", color=INK,
        fontsize=_font_size(name, narrow=bool(ports)),
    )  # fmt: skip
    for port in ports:
        axes.text(
            x - BOX_WIDTH / 2 + 0.09, y + PORT_OFFSET[port], port, ha="center",
            va="center_baseline", fontsize=6, color=FAINT, zorder=5, gid="port",
        )  # fmt: skip


def _font_size(name: str, *, narrow: bool) -> float:
    # A box is 0.72 inches wide; a character takes about 0.6 of the font's size.
    room = 52.0 * (0.78 if narrow else 0.92)
    return max(4.0, min(9.5, room / (0.6 * len(name))))
