"""Texts for DOT and XML: characters that must be escaped, and those that XML cannot contain."""

from __future__ import annotations

import re

__all__ = ["NOT_XML", "dot_escaped", "dot_quoted"]

_SPECIAL_IN_DOT = re.compile(r"[&\"\\<>\x00-\x1f\x7f-\x9f\u2028\u2029]")

NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""A character that no XML document may contain, escaped or not."""


def dot_escaped(text: str) -> str:
    """Text that can be placed between the quotes of DOT.

    It uses character references, which graphviz reads, so no character can end the text or line.
    """
    return _SPECIAL_IN_DOT.sub(lambda found: f"&#{ord(found[0])};", text)


def dot_quoted(text: str) -> str:
    """Like :func:`dot_escaped`, with the quotes."""
    return f'"{dot_escaped(text)}"'
