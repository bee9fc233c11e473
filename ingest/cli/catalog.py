"""Commands about published circuits: list them, show them and load them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from ingest.catalog import Entry
    from registry.errors import CircuitsError
    from registry.records import Circuit

__all__ = ["commands"]

_LISTED = (
    "name", "model", "task", "level", "heads", "mlps", "edges", "figures", "title", "source",
    "variant_of", "circuit",
)  # fmt: skip
_SHOWN = ("name", "model", "task", "heads", "mlps", "edges", "figures", "variant_of", "source")
_LOADED = ("name", "outcome", "circuit", "nodes", "edges", "figures", "new_figures")


def commands(app: typer.Typer) -> None:
    """Register ``catalog`` with its three commands."""
    group = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    group.callback()(catalog)
    group.command("list")(list_entries)
    group.command()(show)
    group.command()(load)
    app.add_typer(group, name="catalog")


def catalog() -> None:
    r"""List published circuits, show them and load them.

    \b
    circuits catalog list
    circuits catalog load ioi
    """


def list_entries(format: FormatOption = Format.TABLE) -> None:
    r"""List the published circuits that come with this program.

    \b
    circuits catalog list
    circuits catalog list --format json
    """
    from ingest.catalog import catalogue

    rows = tuple(_listed(entry) for entry in catalogue().values())
    show_rows(Rows(_LISTED, rows), format, columns=_SHOWN)


def show(
    name: Annotated[str, typer.Argument(help="Name in 'circuits catalog list'.", metavar="NAME")],
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show a published circuit: parts with roles, edges, figures, and the source of each.

    CSV holds the parts.

    \b
    circuits catalog show ioi
    circuits catalog show greater-than --format json
    """
    from ingest.catalog import find_entry
    from ingest.catalog.building import circuit_of

    entry = find_entry(name)
    show_sections(_sections(entry, circuit_of(entry)), format, csv="parts")


def load(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names in 'circuits catalog list'; default: all but variants.", metavar="NAME..."
        ),
    ] = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="Without names: load variants of circuits too.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Store published circuits with their roles and figures, under the method 'published'.

    The circuits have no effects. Circuits that are already stored keep their labels and content.
    Nothing is downloaded.

    \b
    circuits catalog load
    circuits catalog load ioi greater-than-acdc-extended
    circuits query components-by-role 'role=name mover' model=gpt2
    """
    from ingest.catalog import load as load_entries

    faults: dict[str, list[str]] = {}

    def left_out(entry: Entry, error: CircuitsError) -> None:
        faults.setdefault(f"{entry.model}: {error}", []).append(entry.name)

    with open_registry(context) as registry:
        loaded = load_entries(registry, names or (), variants=variants, left_out=left_out)
    rows = tuple(
        (
            one.entry.name, "stored" if one.is_new else "already there", one.circuit.id,
            len(one.circuit.nodes), len(one.circuit.edges), one.n_figures, one.n_new_figures,
        )
        for one in loaded
    )  # fmt: skip
    show_rows(Rows(_LOADED, rows), format)
    for fault, entries in faults.items():
        notice(f"not stored: {', '.join(entries)}, as the name of their model is taken: {fault}")
    if not any(one.is_new or one.n_new_figures for one in loaded):
        notice("nothing new; everything is already stored")


def _listed(entry: Entry) -> tuple[Any, ...]:
    from ingest.catalog.building import circuit_of

    circuit = circuit_of(entry)
    heads = sum(part.startswith("a") for part in entry.members)
    return (
        entry.name, entry.model, entry.task.slug, str(entry.level), heads,
        len(entry.members) - heads, len(circuit.edges), len(entry.figures), entry.title,
        entry.reference, entry.variant_of, circuit.id,
    )  # fmt: skip


def _sections(entry: Entry, circuit: Circuit) -> list[Section]:
    about = {
        "name": entry.name,
        "title": entry.title,
        "source": entry.reference,
        "variant_of": entry.variant_of,
        "model": circuit.model,
        "task": circuit.task,
        "description": entry.task.description,
        "level": str(circuit.level),
        "metric": circuit.metric,
        "ablation": circuit.ablation and str(circuit.ablation),
        "selection": circuit.selection,
        "circuit": circuit.id,
    }
    parts = tuple((node.component, node.role, node.position) for node in circuit.nodes)
    edges = tuple((edge.source, edge.target, edge.port) for edge in circuit.edges)
    verified = tuple((one.what, one.where) for one in entry.verified)
    return [
        Section("circuit", about),
        Section("parts", Rows(("component", "role", "position"), parts)),
        Section("edges", Rows(("source", "target", "port"), edges)),
        Section("figures", _figures(entry)),
        Section("read in", Rows(("what", "where"), verified)),
        Section("notes", Rows(("note",), tuple((note,) for note in entry.notes))),
    ]


def _figures(entry: Entry) -> Rows:
    columns = (
        "measure", "value", "unit", "task", "component", "removed", "prompts", "definition",
        "verified",
    )  # fmt: skip
    return Rows(
        columns,
        tuple(
            (
                one.measure, one.value, one.unit, one.task or entry.task.slug, one.component,
                list(one.removed), one.prompts, one.definition, one.verified,
            )
            for one in entry.figures
        ),
    )  # fmt: skip
