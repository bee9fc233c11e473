"""YAML as plain values, for files from untrusted sources.

A small YAML text can become very large when it is parsed: aliases and merged keys expand to any
size, and whole numbers may be in base 60. An impossible date is not an error of YAML. So sizes are
counted on the parsed nodes, before values are made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from ingest.formats.base import Limits
from ingest.formats.reading import read_text
from registry.errors import BadInput

__all__ = ["parse_yaml", "read_yaml"]

_MAX_BYTES: Final = 2**20
_MAX_VALUES: Final = 100_000
_MAX_DEPTH: Final = 50
_LONGEST_NUMBER: Final = 400
_NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


def read_yaml(path: Path, limits: Limits | None = None) -> Any:
    """Return a file's YAML; no objects, at most 1 MiB.

    Raises:
        BadInput: It cannot be read, is malformed, or expands to more than such files contain.
    """
    most = min(_MAX_BYTES, (limits or Limits()).max_bytes)
    return parse_yaml(read_text(path, Limits(max_bytes=most)), path.name)


def parse_yaml(text: str, name: str) -> Any:
    """Return the content of a YAML text, as :func:`read_yaml`.

    Args:
        text: The whole text.
        name: Its name, for errors.

    Raises:
        BadInput: It is malformed, or expands to more than such files contain.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, name)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except BadInput:
        raise
    # Values that do not fit their type make the parser fail in many ways.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError,
            TypeError, ValueError) as error:  # fmt: skip
        raise BadInput(f"{name} is no YAML that can be read: {_why(error)}") from error


def _why(error: Exception) -> str:
    """Return the error, and its line if the parser gives it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark or error.context_mark
        return error.problem if mark is None else f"line {mark.line + 1}: {error.problem}"
    return (str(error).splitlines() or ["nested too deeply"])[0]


def _check(node: yaml.Node, name: str) -> None:
    """Refuse nodes with more values than such files have; aliases count each time."""
    left = _MAX_VALUES
    waiting = [(node, 0)]
    while waiting:
        one, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise BadInput(f"{name} holds more values, or nests them deeper, than is allowed")
        if isinstance(one, yaml.MappingNode):
            _check_names(one, name)
            waiting += [(part, depth + 1) for pair in one.value for part in pair]
        elif isinstance(one, yaml.SequenceNode):
            waiting += [(part, depth + 1) for part in one.value]
        elif one.tag in _NUMBERS and len(one.value) > _LONGEST_NUMBER:
            raise BadInput(f"{name} holds a number of {len(one.value):,} digits")


def _check_names(node: yaml.MappingNode, name: str) -> None:
    """Refuse a repeated name in one object, for which the parser keeps the last value."""
    found: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if (key.tag, key.value) in found:
            line = key.start_mark.line + 1
            raise BadInput(f"{name}, line {line}: {key.value[:80]!r} appears twice")
        found.add((key.tag, key.value))
