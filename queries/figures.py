"""Charts of results: an empty figure to begin with, a file to end in. Need the extra ``plots``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["empty_figure", "save_figure"]

_DOTS_PER_INCH = 160


def empty_figure(width: float, height: float) -> Figure:
    """A matplotlib figure that belongs to no window, its size in inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing", "plots") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, PNG or PDF, by the suffix of ``path``; equal figures give equal files.

    Raises:
        BadInput: The suffix is another.
    """
    from matplotlib import rc_context

    from queries.drawing import check_suffix

    check_suffix(path)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "circuits", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata.get(path.suffix.lower()))
