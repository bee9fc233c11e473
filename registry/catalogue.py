"""Named queries: one ``.cypher`` file each; its header describes the question and the answer.

Files come from every package registered under the entry-point group ``circuits.queries`` (the
entry's value is the package; files are in its folder, ``shared_components.cypher`` holds the query
``shared-components``). A header is the line comments at the start of a file::

    // shared-components
    // Components that at least min_tasks of the given tasks use, and their effects in each.
    //
    // param tasks: list[task] -- Tasks to compare.
    // param min_tasks: count = null -- Smallest number of these tasks; null means all of them.
    // returns component: string -- Component with its model, such as gpt2/a9.h6.
    // returns effect: number? -- Mean effect; null where it is unknown,
    //   and an indented line continues the line above.

A parameter with ``= JSON`` is optional. Every ``$name`` of the statement is declared and every
declared name is used. Types of parameters are those of :data:`TYPES` and ``list[TYPE]``; columns
may also be ``map``, and end in ``?`` if null is possible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

from registry import plugins
from registry.errors import BadIdentifier, BadInput, CircuitsError, NotFound
from registry.parameters import TYPES, Parameter, Resolver
from registry.rows import COLUMN_TYPES, Rows

__all__ = [
    "TYPES",
    "Column",
    "NamedQuery",
    "Parameter",
    "bind",
    "collect",
    "find_query",
    "load_catalogue",
    "parse_query",
    "read_folder",
    "with_queries_of",
]

QUERIES_GROUP = "circuits.queries"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a query returns; ``type`` ends in ``?`` if it may be null."""

    name: str
    type: str
    help: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A documented question to the graph.

    Attributes:
        purpose: The question that it answers, in one or more sentences.
        text: The whole file with its header; it can be run by hand.
        source: Package and file that it comes from.
    """

    name: str
    purpose: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    text: str
    source: str

    def checked(self, rows: Rows) -> Rows:
        """The answer, if it matches the header.

        Raises:
            GraphUnavailable: It has other columns, or values of other types.
        """
        return rows.expecting(**{column.name: column.type for column in self.columns})


# -- reading ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)  # installed packages do not change while a program runs
def load_catalogue() -> Mapping[str, NamedQuery]:
    """Read the queries of every registered package, by name in alphabetical order.

    A query package of others is skipped with a warning if its queries cannot be read or have names
    that are already in use.

    Raises:
        BadInput: A header of ours is malformed; the message gives file and line.
    """
    found: Mapping[str, NamedQuery] = {}
    for plugin in plugins.plugins(QUERIES_GROUP):
        try:
            found = with_queries_of(plugin, found)
        except CircuitsError as error:
            plugins.leave_out(plugin, error)
    return found


def find_query(name: str) -> NamedQuery:
    """The query of that name.

    Raises:
        NotFound: There is none; the message gives similar names and all names.
    """
    catalogue = load_catalogue()
    if name in catalogue:
        return catalogue[name]
    near = get_close_matches(name, catalogue, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise NotFound("query", name, f"{guess}known: {', '.join(catalogue)}")


def with_queries_of(
    plugin: plugins.Plugin, known: Mapping[str, NamedQuery]
) -> Mapping[str, NamedQuery]:
    """The known queries and those of a package.

    Raises:
        PluginBroken: The package is not ours, and its queries cannot be read or have names that
            are in use.
        BadInput: The same for one of our packages.
    """
    try:
        return collect([*known.values(), *_read_package(plugin.value)])
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if plugin.is_ours:
            raise
        raise plugin.broken(error) from error


def collect(queries: Iterable[NamedQuery]) -> Mapping[str, NamedQuery]:
    """Arrange queries by name.

    Raises:
        BadInput: Two queries have the same name; the message gives both sources.
    """
    found: dict[str, NamedQuery] = {}
    for query in queries:
        if query.name in found:
            raise BadInput(
                f"two queries are named {query.name!r}: {found[query.name].source} and "
                f"{query.source}; uninstall one of the packages or rename its file"
            )
        found[query.name] = query
    return MappingProxyType(dict(sorted(found.items())))


def read_folder(folder: Traversable, package: str) -> Iterator[NamedQuery]:
    """Read every ``.cypher`` file of a folder that belongs to ``package``.

    Raises:
        BadInput: A header is malformed; the message gives file and line.
    """
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".cypher") and file.is_file():
            yield parse_query(file.read_text(encoding="utf-8"), f"{package}/{file.name}")


def _read_package(package: str) -> Iterator[NamedQuery]:
    try:
        folder = files(package)
    except ImportError as error:
        raise BadInput(
            f"the queries of {package!r} cannot be read ({error}); its entry in the group "
            f"{QUERIES_GROUP!r} must name an installed package"
        ) from error
    yield from read_folder(folder, package)


def parse_query(text: str, source: str) -> NamedQuery:
    """Read one file.

    Args:
        text: Its content.
        source: Path for messages; its last part gives the name that the header must have.

    Raises:
        BadInput: The header is malformed or does not fit the statement.
    """
    lines = list(_header(text, source))
    name = source.rpartition("/")[2].removesuffix(".cypher").replace("_", "-")
    if not lines or lines[0].text != name:
        raise _fault(source, 1, f"a header whose first line is '// {name}', after the file's name")
    declared = [line for line in lines[1:] if line.keyword]
    purpose = " ".join(line.text for line in lines[1:] if not line.keyword and line.text)
    parameters = tuple(_parameter(line, source) for line in declared if line.keyword == "param")
    columns = tuple(_column(line, source) for line in declared if line.keyword == "returns")
    if not purpose or not columns:
        raise _fault(source, 1, "a purpose, and a line '// returns NAME: TYPE -- MEANING' a column")
    _check_once([*parameters, *columns], declared, source)
    _check_used(parameters, text, source)
    return NamedQuery(name, purpose, parameters, columns, text, source)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    keyword: str
    text: str


_DECLARATION = re.compile(r"(?P<name>[a-z][a-z0-9_]*): (?P<type>[a-z\[\]]+\??)(?P<rest>.*)")
_DEFAULT = re.compile(r"(?: = (?P<default>.+?))? -- (?P<help>\S.*)")
_USED = re.compile(r"\$(\w+)")
_NOT_CODE = re.compile(r"//[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`", re.DOTALL)


def _header(text: str, source: str) -> Iterator[_Line]:
    """The header's lines, with continuation lines joined."""
    pending: _Line | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        if not raw.startswith("//"):
            break
        if raw.startswith("//   ") and pending is not None:
            pending = _Line(pending.number, pending.keyword, f"{pending.text} {raw[2:].strip()}")
            continue
        if pending is not None:
            yield pending
        pending = _split(raw[2:].strip(), number, source)
    if pending is not None:
        yield pending


def _split(text: str, number: int, source: str) -> _Line:
    keyword, _, rest = text.partition(" ")
    if keyword in ("param", "returns"):
        return _Line(number, keyword, rest.strip())
    if keyword.rstrip(":") in ("params", "parameter", "return", "column", "param", "returns"):
        raise _fault(source, number, "'param NAME: TYPE -- MEANING' or 'returns NAME: ...'")
    return _Line(number, "", text)


def _parameter(line: _Line, source: str) -> Parameter:
    name, type_, rest = _declaration(line, source)
    item = type_.removeprefix("list[").removesuffix("]") if type_.startswith("list[") else type_
    found = _DEFAULT.fullmatch(rest)
    if found is None or item not in TYPES:
        expected = f"'// param NAME: TYPE [= JSON] -- MEANING' with a type of {', '.join(TYPES)}"
        raise _fault(source, line.number, f"{expected}, or list[...] of one")
    if found["default"] is None:
        return Parameter(name, type_, found["help"])
    try:
        default = json.loads(found["default"])
    except json.JSONDecodeError as error:
        raise _fault(source, line.number, f"a default in JSON, not {found['default']}") from error
    return Parameter(name, type_, found["help"], required=False, default=default)


def _column(line: _Line, source: str) -> Column:
    name, type_, rest = _declaration(line, source)
    bare = type_.removesuffix("?").removeprefix("list[").removesuffix("]")
    found = _DEFAULT.fullmatch(rest)
    if found is None or found["default"] is not None or bare not in COLUMN_TYPES:
        types = ", ".join(COLUMN_TYPES)
        expected = f"'// returns NAME: TYPE -- MEANING' with a type of {types}, list[...] of one"
        raise _fault(source, line.number, f"{expected}, and ? where it may be null")
    return Column(name, type_, found["help"])


def _declaration(line: _Line, source: str) -> tuple[str, str, str]:
    found = _DECLARATION.fullmatch(line.text)
    if found is None:
        raise _fault(source, line.number, f"'// {line.keyword} NAME: TYPE -- MEANING'")
    return found["name"], found["type"], found["rest"]


def _check_once(named: Sequence[Parameter | Column], lines: Sequence[_Line], source: str) -> None:
    seen: set[tuple[type, str]] = set()
    for each in named:
        if (type(each), each.name) in seen:
            raise _fault(source, lines[0].number, f"{each.name!r} declared once")
        seen.add((type(each), each.name))


def _check_used(parameters: Sequence[Parameter], text: str, source: str) -> None:
    code = _NOT_CODE.sub(" ", text)
    used = set(_USED.findall(code))
    declared = {parameter.name for parameter in parameters}
    if used - declared:
        raise _fault(source, 1, f"a line '// param' for {_list(used - declared, '$')}")
    if declared - used:
        raise _fault(source, 1, f"a statement that uses {_list(declared - used, '$')}, as declared")


def _fault(source: str, line: int, expected: str) -> BadInput:
    return BadInput(f"{source}, line {line}: expected {expected}")


def _list(names: Iterable[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{name}" for name in sorted(names))


# -- binding ---------------------------------------------------------------------------------------


def bind(
    query: NamedQuery,
    given: Mapping[str, Any],
    *,
    resolve: Mapping[str, Resolver] | None = None,
) -> dict[str, Any]:
    """Turn a user's values into the query's parameters.

    Text, as the command line gives it, is read by the parameter's type. A list may be one text with
    commas, and names each value once. For a parameter with a default, None means the default.

    Args:
        query: The query that is asked.
        given: Values by parameter name.
        resolve: Function for each type of name, such as ``circuit`` or ``model``, that returns the
            stored name; for other types only the grammar is checked.

    Raises:
        BadInput: A parameter is missing, unknown or of another type; the message names it.
        NotFound: A resolver finds no such name.
    """
    known = {parameter.name for parameter in query.parameters}
    unknown = sorted(set(given) - known)
    if unknown:
        takes = f"it takes {_list(known)}" if known else "it takes none"
        raise BadInput(f"query {query.name!r} has no parameter {unknown[0]!r}; {takes}")
    return {
        parameter.name: _value(query, parameter, given, resolve or {})
        for parameter in query.parameters
    }


def _value(
    query: NamedQuery,
    parameter: Parameter,
    given: Mapping[str, Any],
    resolve: Mapping[str, Resolver],
) -> Any:
    value = given.get(parameter.name)
    if value is None or (parameter.is_list and isinstance(value, list | tuple) and not value):
        if parameter.required:
            raise BadInput(
                f"query {query.name!r} needs {parameter.name} ({parameter.type}): {parameter.help}"
            )
        return parameter.default
    try:
        return parameter.read(value, resolve.get(parameter.item_type, str))
    except BadIdentifier:
        raise
    except BadInput as error:
        raise BadInput(f"{parameter.name} of query {query.name!r}: {error}") from error
