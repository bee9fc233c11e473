"""Figures: create an empty figure, save a figure as a file. Requires the extra ``plots``.

Equal figures give equal files: the files contain no date, and SVG has no random ids.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING

from registry.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_suffix", "empty_figure", "figure_bytes", "legend_above", "save_figure"]

_SALT = "circuits"
_SUFFIXES = (".svg", ".png", ".pdf")
_DOTS_PER_INCH = 160
_UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


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


def legend_above(axes: Axes) -> None:
    """Put the legend in one row above the axes, where it covers no data."""
    columns = len(axes.get_legend_handles_labels()[1])
    axes.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def check_suffix(path: Path) -> None:
    """Refuse a file that cannot be drawn, before the figure is computed.

    Raises:
        BadInput: It does not end in one of the supported formats.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise BadInput(f"cannot draw to {str(path)!r}; name a file that ends in .svg, .png or .pdf")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, PNG or PDF, by the suffix of ``path``.

    Raises:
        BadInput: The suffix is not supported.
    """
    check_suffix(path)
    _write(figure, path, path.suffix.lower())


def figure_bytes(figure: Figure, suffix: str, *, salt: str = _SALT) -> bytes:
    """A figure as the content of a file.

    Args:
        figure: What to write.
        suffix: ``.svg``, ``.png`` or ``.pdf``.
        salt: Basis of the ids in SVG; figures of one page need different salts.

    Raises:
        BadInput: The suffix is not supported.
    """
    check_suffix(Path(f"figure{suffix}"))
    content = io.BytesIO()
    _write(figure, content, suffix.lower(), salt)
    return content.getvalue()


def _write(figure: Figure, target: Path | IO[bytes], suffix: str, salt: str = _SALT) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(target, format=suffix[1:], dpi=_DOTS_PER_INCH, metadata=_UNDATED.get(suffix))
