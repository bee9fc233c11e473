"""Commands that query the graph: named queries and the user's own Cypher."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    show_rows,
    show_sections,
)
from registry.cli.session import open_registry
from registry.cli.values import assignments, split_assignment
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.catalogue import NamedQuery, Parameter

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(query)
    app.command()(cypher)


def query(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a query; without one, list the queries.", metavar="NAME"),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Argument(help="Its parameters; list items have commas between.", metavar="KEY=VALUE"),
    ] = None,
    about: Annotated[
        bool, typer.Option("--about", help="Describe the query's parameters and columns instead.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Answer a named query; without a name, list the queries.

    \b
    circuits query
    circuits query shared-components --about
    circuits query shared-components tasks=ioi,sequence/numerals
    circuits query shared-components tasks=ioi,sequence/numerals --format json
    """
    if name is None:
        _list_queries(format)
    elif about:
        _describe(name, format)
    else:
        given = _given(parameters or ())
        with open_registry(context) as registry:
            rows = registry.query(name, **given)
        _say_models(_known(name), given, rows)
        show_rows(rows, format)


def cypher(
    context: typer.Context,
    statement: Annotated[
        str,
        typer.Argument(help="One Cypher statement; - reads standard input.", metavar="STATEMENT"),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(help="Value of a $name, as name=JSON; repeat.", metavar="NAME=JSON"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which it is stopped.", metavar="SECONDS")
    ] = 60.0,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows.", metavar="NUMBER")
    ] = 100_000,
    max_memory: Annotated[
        float,
        typer.Option(min=0.001, help="Memory it may use here, besides the graph.", metavar="GB"),
    ] = 2.0,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Answer your own Cypher statement, which can only read.

    \b
    circuits cypher "MATCH (c:Circuit) RETURN c.id AS id, c.task AS task ORDER BY id"
    circuits cypher 'MATCH (n:Node) WHERE n.rank <= $k RETURN count(n) AS n' --param k=10
    circuits cypher - --timeout 5 --format csv < statement.cypher
    """
    text = sys.stdin.read() if statement == "-" else statement
    if not text.strip():
        raise BadInput("the statement is empty; give one Cypher statement, such as RETURN 1 AS one")
    parameters = assignments(param, "--param")
    with open_registry(context) as registry:
        rows = registry.cypher(
            text,
            parameters,
            timeout_seconds=timeout,
            max_rows=max_rows,
            memory_bytes=round(max_memory * 1e9),
        )
    show_rows(rows, format)


def _given(texts: Sequence[str]) -> dict[str, Any]:
    """Texts by key, which the catalogue reads by type; a repeated key makes a list."""
    values: dict[str, Any] = {}
    for text in texts:
        key, value = split_assignment(text, "parameter")
        before = values.get(key)
        values[key] = value if before is None else [*_as_list(before), value]
    return values


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _say_models(query: NamedQuery, given: Mapping[str, Any], rows: Rows) -> None:
    """Note that rows are of several models, if the query has a parameter to choose one."""
    takes_model = any(p.name == "model" and not p.required for p in query.parameters)
    if not takes_model or given.get("model") or "model" not in rows.columns:
        return
    models = list(dict.fromkeys(row["model"] for row in rows))
    if len(models) > 1:
        notice(
            f"note: rows of {len(models)} models, each counted separately: {', '.join(models)};"
            " model=NAME shows one of them"
        )


def _list_queries(format: Format) -> None:
    from registry.catalogue import load_catalogue

    rows = [
        (query.name, [_signature(parameter) for parameter in query.parameters], query.purpose)
        for query in load_catalogue().values()
    ]
    show_rows(Rows(("query", "parameters", "purpose"), tuple(rows)), format)


def _describe(name: str, format: Format) -> None:
    query = _known(name)
    parameters = [(p.name, p.type, p.required, p.default, p.help) for p in query.parameters]
    columns = [(column.name, column.type, column.help) for column in query.columns]
    sections = [
        Section("query", {"name": name, "purpose": query.purpose, "source": query.source}),
        Section(
            "parameters", Rows(("name", "type", "required", "default", "help"), tuple(parameters))
        ),
        Section("columns", Rows(("name", "type", "help"), tuple(columns))),
    ]
    show_sections(sections, format, csv="parameters")


def _known(name: str) -> NamedQuery:
    from registry.catalogue import find_query

    return find_query(name)


def _signature(parameter: Parameter) -> str:
    text = f"{parameter.name}: {parameter.type}"
    return text if parameter.required else f"[{text}]"
