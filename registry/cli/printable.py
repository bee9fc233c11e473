"""Make texts of other people safe for a terminal.

Titles, notes, positions, file names and answers of servers can contain characters that redraw the
terminal, type for the user or reverse the direction of text. They are shown as escapes.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "escaped_json", "is_printable", "one_line"]

# Control characters of both sets, line and paragraph separators, characters that change the
# direction of text, and surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SPACE = re.compile(r"[\r\n\t\u2028\u2029]+")


def one_line(text: str) -> str:
    """Text on one line, without control characters.

    Spaces stay: a leading space is part of a token.
    """
    return escaped(_SPACE.sub(" ", text))


def escaped(text: str, *, keep: str = "") -> str:
    r"""Text with escapes such as ``\x1b`` for control characters.

    Args:
        text: Any text.
        keep: Characters that stay as they are, such as line ends.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escaped_json(text: str) -> str:
    """JSON of the same meaning, with JSON's own escapes; its line ends stay."""
    return _UNSAFE.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def is_printable(text: str) -> bool:
    """Whether the text, with its line ends and tabs, can be sent to a terminal unchanged."""
    return all(found[0] in "\r\n\t" for found in _UNSAFE.finditer(text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
