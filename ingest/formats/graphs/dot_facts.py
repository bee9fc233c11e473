"""The facts in our graphviz files that DOT has no field for: writing and reading them.

Attributes of DOT are text. Our attributes have distinct names (``circuit_task``, and ``component``,
``position``, ``effect``, ``rank``, ``role``, ``port``). Characters that DOT treats specially, or
that a text file does not preserve, are written as the character references of graphviz.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ingest.formats.facts import JSON_FACTS, MARK, VERSION, facts_of
from ingest.formats.reading import each_once
from registry.errors import BadInput
from registry.records import Circuit

__all__ = ["decoded", "facts_as_text", "facts_from_text"]

_PREFIX = "circuit_"
_NOT_TEXT = JSON_FACTS | {"higher_is_better", "universe_size"}
_REFERENCE = re.compile(r"&#(\d{1,7});")
_LARGEST_CHARACTER = 0x10FFFF


def decoded(text: str) -> str:
    """Undo :func:`registry.texts.markup.dot_escaped`."""
    return _REFERENCE.sub(_character, text)


def facts_as_text(circuit: Circuit) -> dict[str, str]:
    """Return a circuit's facts except nodes and edges, as a graph's attributes, not encoded."""
    return {
        _name(fact): json.dumps(value, sort_keys=True) if fact in _NOT_TEXT else str(value)
        for fact, value in facts_of(circuit).items()
    }


def facts_from_text(about: Mapping[str, str], file: str) -> dict[str, Any]:
    """Return the facts that a graph's attributes give; none if it is not our file.

    Raises:
        BadInput: It has our mark, but a value that should be JSON is malformed.
    """
    if about.get(MARK) != str(VERSION):
        return {}
    facts: dict[str, Any] = {MARK: VERSION}
    for name, text in about.items():
        if name.startswith(_PREFIX):
            fact = name.removeprefix(_PREFIX)
            facts[fact] = _json(decoded(text), name, file) if fact in _NOT_TEXT else decoded(text)
    return facts


def _name(fact: str) -> str:
    return fact if fact == MARK else _PREFIX + fact


def _json(text: str, name: str, file: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: {name} is no JSON: {error}") from error


def _character(found: re.Match[str]) -> str:
    number = int(found[1])
    return chr(number) if number <= _LARGEST_CHARACTER else found[0]
