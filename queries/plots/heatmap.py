"""Heat maps side by side over the same rows, with values as text and colour in the cells.

Cells with unknown values are hatched, so that they are not mistaken for zeros. Needs the extra
``plots``.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import MissingExtra

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HeatMaps", "Panel", "draw_heat_maps"]

Cell = tuple[int, int]

_INK = "#1d2733"
_FAINT = "#6b7783"
_UNKNOWN = "#e9ecef"
_STRONG = "#0b6e75"
_CELL = (0.78, 0.56)  # inches
_SMALL_CELL = 0.2
_MOST_ANNOTATED = 16
_GAP, _MARGIN = 0.45, 0.3
_TITLE, _TREE, _FOOT = 0.8, 0.5, 0.32
_LETTER = 0.085  # inches per letter of a label
_SLANT = 0.72


@dataclass(frozen=True, eq=False)
class Panel:
    """One heat map.

    Attributes:
        title: Title above the map.
        values: Rows and columns as drawn; NaN if a value is unknown.
        texts: Texts of the cells, one list per row.
        turning: Name of a diverging colour map with its centre at 0; None for a sequential map that
            starts at 0.
        most: Value of the strongest colour; larger values have the same colour.
        framed: Cells of a different kind than the others, by row and column.
        empty: Cells that cannot have a value; they stay white.
    """

    title: str
    values: pandas.DataFrame
    texts: Sequence[Sequence[str]]
    turning: str | None
    most: float
    framed: Set[Cell] = frozenset()
    empty: Set[Cell] = frozenset()


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Panels over the same rows.

    Attributes:
        title: Heading.
        panels: From left to right.
        foot: A note for the reader, one line.
        tree: Lines of a tree over the columns of the first panel. Each line has four points along
            the columns, where 0.5 is the middle of the first column, and their heights, up to 1.
    """

    title: str
    panels: Sequence[Panel]
    foot: str
    tree: Sequence[tuple[Sequence[float], Sequence[float]]] = ()


def draw_heat_maps(maps: HeatMaps) -> Figure:
    """Build the drawing as a matplotlib figure without a window.

    Raises:
        MissingExtra: matplotlib or seaborn is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing", "plots") from error
    measures = _measure(maps)
    figure = Figure(figsize=(measures.width, measures.height), facecolor="white")
    at = measures.left
    for place, (panel, wide) in enumerate(zip(maps.panels, measures.widths, strict=True)):
        axes = _axes(figure, measures, at, measures.below, panel.values.shape[1], measures.body)
        _draw_panel(axes, panel, annotated=measures.annotated, named=place == 0)
        y = measures.below + measures.body + measures.tree + 0.12
        figure.text(
            at / measures.width, y / measures.height, panel.title, fontsize=10, color=_INK,
            va="bottom", linespacing=1.3,
        )  # fmt: skip
        at += wide + _GAP
    if maps.tree:
        n, above = maps.panels[0].values.shape[1], measures.below + measures.body + 0.04
        axes = _axes(figure, measures, measures.left, above, n, measures.tree - 0.04)
        _draw_tree(axes, maps.tree, n)
    _caption(figure, maps)
    return figure


@dataclass(frozen=True, slots=True)
class _Measures:
    """Positions in inches from the left and from the bottom."""

    annotated: bool
    cell_width: float
    left: float
    below: float
    body: float
    tree: float
    widths: tuple[float, ...]

    @property
    def width(self) -> float:
        return self.left + sum(self.widths) + _GAP * (len(self.widths) - 1) + _MARGIN

    @property
    def height(self) -> float:
        return self.below + self.body + self.tree + _TITLE + _MARGIN


def _measure(maps: HeatMaps) -> _Measures:
    first = maps.panels[0].values
    annotated = max(first.shape) <= _MOST_ANNOTATED
    cell_width, cell_height = _CELL if annotated else (_SMALL_CELL, _SMALL_CELL)
    columns = [str(name) for panel in maps.panels for name in panel.values.columns]
    return _Measures(
        annotated=annotated,
        cell_width=cell_width,
        left=_MARGIN + _LETTER * max(map(len, map(str, first.index))),
        below=_FOOT + 0.1 + _SLANT * _LETTER * max(map(len, columns)),
        body=cell_height * len(first),
        tree=_TREE if maps.tree else 0.0,
        widths=tuple(_width(panel, cell_width) for panel in maps.panels),
    )


def _width(panel: Panel, cell: float) -> float:
    """Width of the cells, or of the title if that is longer."""
    longest = max(map(len, panel.title.split("\n")))
    return max(cell * panel.values.shape[1], _LETTER * 0.95 * longest)


def _axes(
    figure: Figure, measures: _Measures, left: float, below: float, n_columns: int, height: float
) -> Axes:
    return figure.add_axes(
        (
            left / measures.width, below / measures.height,
            measures.cell_width * n_columns / measures.width, height / measures.height,
        )
    )  # fmt: skip


def _caption(figure: Figure, maps: HeatMaps) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        _MARGIN / width, 1 - 0.26 / height, maps.title, fontsize=14, fontweight="bold", color=_INK,
        va="center", gid="title",
    )  # fmt: skip
    figure.text(_MARGIN / width, 0.2 / height, maps.foot, fontsize=8.5, color=_FAINT, va="center")


def _draw_panel(axes: Axes, panel: Panel, *, annotated: bool, named: bool) -> None:
    try:
        import seaborn  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra("drawing", "plots") from error
    axes.set_facecolor(_UNKNOWN)
    _mark(axes, panel)
    seaborn.heatmap(
        panel.values,
        ax=axes,
        annot=[list(row) for row in panel.texts] if annotated else None,
        fmt="",
        cmap=panel.turning or seaborn.light_palette(_STRONG, as_cmap=True),
        vmin=-panel.most if panel.turning else 0.0,
        vmax=panel.most,
        cbar=not annotated,
        linewidths=1.0 if annotated else 0.0,
        annot_kws={"fontsize": 8.5, "linespacing": 1.15},
        xticklabels=list(panel.values.columns),
        yticklabels=list(panel.values.index) if named else False,
    )
    size = 9 if annotated else 6
    axes.tick_params(length=0, labelsize=size, labelcolor=_INK)
    axes.set(xlabel="", ylabel="")
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    for label in axes.get_yticklabels():
        label.set_rotation(0)


def _mark(axes: Axes, panel: Panel) -> None:
    """Hatch unknown cells, whiten cells without a possible value, frame cells of another kind."""
    from matplotlib.patches import Rectangle

    unknown = panel.values.isna().to_numpy()
    for row, column in zip(*unknown.nonzero(), strict=True):
        style: dict[str, Any] = {"facecolor": _UNKNOWN, "edgecolor": "#b6bec7", "hatch": "////"}
        if (int(row), int(column)) in panel.empty:
            style = {"facecolor": "white", "edgecolor": "white"}
        axes.add_patch(Rectangle((column, row), 1, 1, linewidth=0, zorder=0.5, **style))
    for row, column in sorted(panel.framed):
        for style in ({"edgecolor": "white"}, {"edgecolor": _INK, "linestyle": (0, (3, 2))}):
            axes.add_patch(
                Rectangle(
                    (column + 0.06, row + 0.07), 0.88, 0.86, fill=False, linewidth=1.3, zorder=3,
                    **style,
                )
            )  # fmt: skip


def _draw_tree(
    axes: Axes, tree: Sequence[tuple[Sequence[float], Sequence[float]]], n_columns: int
) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, n_columns)
    # All joins can be high: the space below the lowest one carries no information.
    lowest = min(max(heights) for _, heights in tree)
    axes.set_ylim(lowest - 0.2 * (1.1 - lowest), 1.05)
    for along, heights in tree:
        axes.plot(along, heights, color=_FAINT, linewidth=1.1)
