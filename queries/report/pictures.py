"""Figures as SVG for use in a page: without external resources, and with unique ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from registry.figures import figure_bytes

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
        figure: The figure.
        name: Prefix of its ids, letters only, so that a page can contain several figures.
        label: Description of the figure for readers who cannot see it.
        hints: Tooltips by an element's ``gid``.
    """
    root = ElementTree.fromstring(figure_bytes(figure, ".svg", salt=name))
    for parent in list(root.iter()):
        for child in list(parent):
            # Metadata contains addresses; a style would apply to the whole page.
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
            element.set("pointer-events", "none")  # the element below it has the tooltip
        if given in seen:
            element.attrib.pop("id", None)  # ids of groups, such as all names of parts
        seen.add(given)
        _own_names(element, name)
    _fit(root, label)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _own_names(element: ElementTree.Element, name: str) -> None:
    """Put the picture's name before an element's id and before the ids that it refers to."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in ("href", f"{{{_XLINK}}}href"):
            del element.attrib[key]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))


def _fit(root: ElementTree.Element, label: str) -> None:
    """Limit the width to the drawn width; a narrow page shrinks the picture."""
    root.set("style", f"width: 100%; max-width: {root.get('width', '')}; height: auto; {_LINES}")
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
