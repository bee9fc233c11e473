"""Figures as SVG that can stand in a page: it needs nothing from elsewhere, its ids are its own."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_svg"]

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_LINES = "stroke-linejoin: round; stroke-linecap: butt"


def as_svg(figure: Figure, name: str, label: str, hints: Mapping[str, str] | None = None) -> str:
    """Write a figure as an SVG element; equal figures give equal text.

    Args:
        figure: What to write.
        name: Letters that its ids begin with, so that several can stand in one page.
        label: What it shows, for who cannot see it.
        hints: By an element's ``gid``, what is shown where a pointer rests on it.
    """
    root = ElementTree.fromstring(_written(figure, name))
    for parent in list(root.iter()):
        for child in list(parent):
            # Metadata names addresses; a style would hold for the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    seen: set[str] = set()
    for element in list(root.iter()):
        given = element.get("id", "")
        hint = (hints or {}).get(given)
        if hint is not None:
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = hint
            element.insert(0, title)
        if hints and element.tag == f"{{{_SVG}}}text":
            element.set("pointer-events", "none")  # what lies below it has the hint
        if given in seen:
            element.attrib.pop("id", None)  # marks of a kind, such as all names of parts
        seen.add(given)
        _own_names(element, name)
    _fit(root, label)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _written(figure: Figure, name: str) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _own_names(element: ElementTree.Element, name: str) -> None:
    """Put the picture's name before an element's id and before those that it refers to."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in ("href", f"{{{_XLINK}}}href"):
            del element.attrib[key]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))


def _fit(root: ElementTree.Element, label: str) -> None:
    """As wide as it was drawn where there is room, else as there is."""
    root.set("style", f"width: 100%; max-width: {root.get('width', '')}; height: auto; {_LINES}")
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
