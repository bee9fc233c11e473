"""Other people's text, made fit for a terminal.

Titles, notes, positions, file names and whatever a server answers may hold characters that redraw
the terminal, answer for the user or turn text around. They are shown as escapes.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "escaped_json", "is_printable", "one_line"]

# Control characters of both sets, line and paragraph separators, what turns the direction of text,
# and half characters.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SPACE = re.compile(r"[\r\n\t\u2028\u2029]+")


def one_line(text: str) -> str:
    """Text on one line, without characters that do more than show.

    Spaces stay: for a token, one in front makes a difference.
    """
    return escaped(_SPACE.sub(" ", text))


def escaped(text: str, *, keep: str = "") -> str:
    r"""Text with escapes such as ``\x1b`` for what does more than show.

    Args:
        text: Any text.
        keep: Characters that stay as they are, such as line ends.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escaped_json(text: str) -> str:
    """JSON that says the same, with escapes of JSON's own; its line ends stay."""
    return _UNSAFE.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def is_printable(text: str) -> bool:
    """Whether a terminal may be given the text, line ends and tabs included, as it is."""
    return all(found[0] in "\r\n\t" for found in _UNSAFE.finditer(text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
