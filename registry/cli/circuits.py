"""Commands about stored circuits: find, show and label them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.attach import attachment_rows
from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.paging import AfterOption, LimitOption, say_how_to_go_on, why_empty
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.known_measures import direction_of, unit_of
from registry.rows import Rows
from registry.texts.words import faithfulness_in_words

if TYPE_CHECKING:
    from registry.ledger.base import CircuitEntry
    from registry.records import Annotation, Circuit, Edge, Evaluation, Node, Run

__all__ = ["CircuitArgument", "commands"]

CircuitArgument = Annotated[
    str, typer.Argument(help="Id of a circuit, or the first digits of it.", metavar="CIRCUIT")
]

_TABLE_COLUMNS = (
    "circuit",
    "task",
    "model",
    "method",
    "level",
    "nodes",
    "edges",
    "faithfulness",
    "state",
    "tags",
    "title",
)
_STATES = ("active", "superseded", "retracted")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("list")(list_circuits)
    app.command()(show)
    app.command()(tag)
    app.command()(note)
    app.command()(retract)


def list_circuits(
    context: typer.Context,
    task: Annotated[
        str | None,
        typer.Option(help="Task, or family: sequence finds sequence/numerals.", metavar="TASK"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model, or its alias.", metavar="MODEL")] = None,
    method: Annotated[
        str | None, typer.Option(help="Method that found it.", metavar="METHOD")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Tag.", metavar="TAG")] = None,
    author: Annotated[str | None, typer.Option(help="Author.", metavar="NAME")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="active, superseded or retracted; default: all.", metavar="STATE"),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(help="Words that titles and notes contain; all of them.", metavar="WORDS"),
    ] = None,
    limit: LimitOption = None,
    after: AfterOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List circuits, by filters and words in titles and notes.

    With --limit, the option for the next page is printed if there are more circuits.

    \b
    circuits list --task ioi --model smollm2
    circuits list --tag final --state active
    circuits list --search "name mover" --format json
    circuits list --limit 20
    """
    from registry.ledger.base import CircuitFilter
    from registry.records import CircuitState

    if state is not None and state not in _STATES:
        raise BadInput(f"--state is {state!r}; it must be one of {', '.join(_STATES)}")
    which = CircuitFilter(
        task=task,
        model=model,
        method=method,
        tag=tag,
        author=author,
        state=CircuitState(state) if state else None,
        text=search,
    )
    with open_registry(context) as registry:
        page = registry.circuits_page(which, limit=limit, after=after)
        empty = why_empty("circuits", page.items, registry.circuits_page, after)
    rows = _rows([_entry_fields(entry) for entry in page.items], _ENTRY_COLUMNS)
    cut = Rows(rows.columns, rows.values, truncated=page.after is not None and after is None)
    show_rows(cut, format, columns=_TABLE_COLUMNS, empty=empty, limit_option="--limit")
    say_how_to_go_on(page.after)


def show(
    context: typer.Context,
    circuit: CircuitArgument,
    top: Annotated[
        int,
        typer.Option(
            min=0, help="Number of nodes and edges, strongest first; 0 for all.", metavar="NUMBER"
        ),
    ] = 20,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show one circuit with its provenance, attached files and measurements.

    CSV holds only the edges, or the nodes if the circuit has no edges.

    \b
    circuits show 3f9a02c41d7b
    circuits show 3f9a --top 0 --format csv > edges.csv
    """
    with open_registry(context) as registry:
        stored = registry.circuit(circuit)
        annotations = registry.annotations(stored.id)
        runs = {run.id: run for run in registry.ledger.runs(stored.entry.runs)}
        attached = registry.attachments(stored.id)
    entry, content = stored.entry, stored.circuit
    sections = [
        Section("circuit", _content_fields(content, entry)),
        Section("labels", _label_fields(entry)),
        Section("runs", _run_rows(entry, runs)),
        Section("files", _file_rows(entry)),
        Section("attachments", attachment_rows(attached)),
        Section("evaluations", _evaluation_rows(stored.evaluations, whole=format is Format.JSON)),
        Section("in words", _in_words(entry)),
        Section("annotations", _annotation_rows(annotations)),
        Section(
            "nodes", _node_rows(_strongest(content.nodes, top), whole=format is not Format.TABLE)
        ),
        Section("edges", _edge_rows(_strongest(content.edges, top))),
    ]
    show_sections(sections, format, csv="edges" if content.edges else "nodes")
    for section, known in ((sections[-2], content.nodes), (sections[-1], content.edges)):
        shown = len(section.content)
        if shown < len(known) and format is Format.TABLE:
            ranked = any(part.rank or part.effect is not None for part in known)
            which = "strongest" if ranked else "first"
            notice(f"the {which} {shown} of {len(known)} {section.title}; --top 0 shows all")


def tag(
    context: typer.Context,
    circuit: CircuitArgument,
    tags: Annotated[list[str], typer.Argument(help="Tags.", metavar="TAG...")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove them instead.")] = False,
) -> None:
    r"""Add tags to a circuit, or remove them.

    \b
    circuits tag 3f9a02c41d7b final figure-2
    circuits tag 3f9a02c41d7b draft --remove
    """
    if empty := [tag for tag in tags if not tag.strip()]:
        raise BadInput(f"{empty[0]!r} is not a tag; give one word or more")
    with open_registry(context) as registry:
        registry.tag(circuit, **{"remove" if remove else "add": tags})
        labels = registry.circuit(circuit).entry.labels
    notice(f"tags: {', '.join(labels.tags) or 'none'}")


def note(
    context: typer.Context,
    circuit: CircuitArgument,
    text: Annotated[str, typer.Argument(help="Text of the note.", metavar="TEXT")],
) -> None:
    r"""Add a note to a circuit.

    \b
    circuits note 3f9a02c41d7b "a9.h6 looks like a name mover"
    """
    if not text.strip():
        raise BadInput("the note is empty; give its text after the circuit")
    with open_registry(context) as registry:
        registry.note(circuit, text)
    notice("noted")


def retract(
    context: typer.Context,
    circuit: CircuitArgument,
    reason: Annotated[str, typer.Option(help="Reason for the retraction.", metavar="TEXT")],
    superseded_by: Annotated[
        str | None, typer.Option(help="Newer circuit that replaces it.", metavar="CIRCUIT")
    ] = None,
) -> None:
    r"""Mark a circuit as no longer valid.

    It is removed from the graph and its answers, not from the record.

    \b
    circuits retract 3f9a02c41d7b --reason "prompts had unequal lengths"
    circuits retract 3f9a --reason "more prompts" --superseded-by 77b1
    """
    with open_registry(context) as registry:
        registry.retract(circuit, reason=reason, superseded_by=superseded_by)
        labels = registry.circuit(circuit).entry.labels
    notice(f"now {labels.state}")


# -- records to rows -------------------------------------------------------------------------------

_ENTRY_COLUMNS = (
    *_TABLE_COLUMNS,
    "notes",
    "author",
    "superseded_by",
    "reason",
    "metric",
    "ablation",
    "sign",
    "universe_size",
    "prompt_set",
    "runs",
    "recorded_at",
)


def _entry_fields(entry: CircuitEntry) -> dict[str, Any]:
    return {
        "circuit": entry.id,
        "nodes": entry.n_nodes,
        "edges": entry.n_edges,
        **{name: getattr(entry, name) for name in _OF_ENTRY},
        **entry.labels.model_dump(),
    }


_OF_ENTRY = (
    "task",
    "model",
    "method",
    "level",
    "faithfulness",
    "metric",
    "ablation",
    "sign",
    "universe_size",
    "prompt_set",
    "runs",
    "recorded_at",
)


def _content_fields(circuit: Circuit, entry: CircuitEntry) -> dict[str, Any]:
    fields = circuit.model_dump(exclude={"nodes", "edges"})
    return {
        "id": entry.id,
        **fields,
        "n_nodes": entry.n_nodes,
        "n_edges": entry.n_edges,
        "recorded_at": entry.recorded_at,
    }


def _label_fields(entry: CircuitEntry) -> dict[str, Any]:
    return {name: value for name, value in entry.labels.model_dump().items() if value}


def _run_rows(entry: CircuitEntry, runs: Mapping[str, Run]) -> Rows:
    known = [runs[run] for run in entry.runs]
    fields = ("job", "version", "status", "started_at", "finished_at", "device")
    records = [{"run": run.id, **{name: getattr(run, name) for name in fields}} for run in known]
    return _rows(records, ("run", *fields))


def _file_rows(entry: CircuitEntry) -> Rows:
    fields = ("name", "format", "sha256")
    return _rows([file.model_dump() for file in entry.source_files], fields)


def _evaluation_rows(evaluations: Sequence[Evaluation], *, whole: bool) -> Rows:
    """Evaluations; unless ``whole``, without runs and without lists such as curves."""
    short = (
        "task", "measure", "value", "unit", "better", "full", "empty", "ablation", "n_prompts",
        "parameters",
    )  # fmt: skip
    fields = (*short, "run") if whole else short
    records = [
        {**one.model_dump(), "unit": unit_of(one.measure), "better": direction_of(one.measure)}
        for one in evaluations
    ]
    if not whole:
        for record in records:
            said = record["parameters"].items()
            record["parameters"] = {k: v for k, v in said if not isinstance(v, list | dict)}
    return _rows(records, fields)


def _annotation_rows(annotations: Sequence[Annotation]) -> Rows:
    fields = ("node", "role", "said_by", "run", "scores")
    return _rows([annotation.model_dump() for annotation in annotations], fields)


def _in_words(entry: CircuitEntry) -> dict[str, Any]:
    if entry.faithfulness is None:
        return {}
    return {"faithfulness": faithfulness_in_words(entry.faithfulness, entry.metric)}


def _node_rows(nodes: Sequence[Node], *, whole: bool) -> Rows:
    """Nodes; unless ``whole``, with a column for densities only if one is known."""
    fields = ["component", "position", "effect", "rank", "role"]
    if whole or any(node.density is not None for node in nodes):
        fields.append("density")
    return _rows([node.model_dump() for node in nodes], fields)


def _edge_rows(edges: Sequence[Edge]) -> Rows:
    fields = ("source", "target", "port", "effect", "rank")
    return _rows([edge.model_dump() for edge in edges], fields)


def _strongest(parts: Sequence[Any], top: int) -> list[Any]:
    """The first ``top`` by rank, else by absolute effect; parts without either come last."""
    ordered = sorted(parts, key=lambda part: (part.rank or len(parts) + 1, -abs(part.effect or 0)))
    return ordered[:top] if top else ordered


def _rows(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Rows:
    return Rows(tuple(columns), tuple(tuple(record[c] for c in columns) for record in records))
