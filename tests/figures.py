"""What is expected of every figure."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["assert_no_legend_lies_on_data"]


def assert_no_legend_lies_on_data(figure: Figure) -> None:
    """Every axes has a legend, on the page and outside of all axes."""
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        taken = legend.get_window_extent()
        assert not any(taken.overlaps(other.bbox) for other in figure.axes)
        assert figure.bbox.x0 <= taken.x0 < taken.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= taken.y0 < taken.y1 <= figure.bbox.y1
