"""The command ``compare``: two circuits beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from queries.pictures import OutOption, check_drawable, draw_to, heads_per_group
from registry.cli.output import Format, FormatOption, Section, notice, show_sections
from registry.cli.session import open_registry
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.compare import Comparison
    from queries.drawing import Picture
    from registry.records import Circuit
    from registry.registry import Registry

__all__ = ["commands"]


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(compare)


def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="Id of a circuit, or its first digits.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Id of another.", metavar="B")],
    draws: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            metavar="NUMBER",
            help="Pairs of random circuits with the same degrees, to see what is shared by chance.",
        ),
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, help="Decides which are drawn.", metavar="NUMBER")
    ] = 0,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Compare two circuits: sizes, overlap of components and connections, agreement of signs.

    Circuits of one model share its hubs whatever their tasks. --draws says how many connections
    they would share if every part only sent and read as many edges as it does: the expected number,
    where 95 % of the draws lie, and the share p of draws that share at least as many. For
    components it says the same of any heads of the same layers, exactly.

    CSV holds the overlap.

    \b
    circuits compare 3f9a 81c2
    circuits compare 3f9a 81c2 --draws 1000
    circuits compare 3f9a 81c2 --format json
    """
    from queries.compare import chance
    from queries.compare import compare as compare_circuits

    check_drawable(out)
    with open_registry(context) as registry:
        first, second = registry.circuit(a).circuit, registry.circuit(b).circuit
        models = {model.slug: model for model in registry.ledger.models()}
        model = models[first.model]
        comparison = compare_circuits(first, second, model)
        by_chance = chance(first, second, model, n=draws, seed=seed) if draws else ()
        if out is not None:
            draw_to(_picture_of_pair(registry, first, second), out)
    for difference in comparison.differences:
        notice(f"warning: the circuits differ in {difference}")
    sections = _comparison_sections(comparison, first, second)
    for name, found in zip(("connections", "components"), reversed(by_chance), strict=False):
        if found is None:
            notice(f"how many {name} the model has is unknown, so chance cannot be told for them")
        else:
            sections.insert(2, Section(f"{name} by chance", asdict(found)))
    show_sections(sections, format, csv="overlap")


def _comparison_sections(comparison: Comparison, a: Circuit, b: Circuit) -> list[Section]:
    agreement = {
        "signed shared connections": comparison.n_signed,
        "with the same sign": comparison.n_same_sign,
        "sign agreement": comparison.sign_agreement,
    }
    return [
        Section("circuits", _fields_of((a, b))),
        Section("overlap", _overlaps(comparison)),
        Section("signs", agreement),
        Section("differences", Rows(("difference",), tuple((d,) for d in comparison.differences))),
    ]


def _fields_of(circuits: Sequence[Circuit]) -> Rows:
    names = ("task", "model", "method", "level", "metric", "ablation", "sign", "kv_heads")
    return Rows(
        ("circuit", "id", *names),
        tuple(
            (label, circuit.id, *(getattr(circuit, name) for name in names))
            for label, circuit in zip("ab", circuits, strict=True)
        ),
    )


def _overlaps(comparison: Comparison) -> Rows:
    columns = ("n_a", "n_b", "n_shared", "iou", "iom", "share_of_a", "share_of_b")
    parts = {"components": comparison.nodes, "connections": comparison.edges}
    return Rows(
        ("of", *columns),
        tuple(
            (name, *(getattr(overlap, column) for column in columns))
            for name, overlap in parts.items()
        ),
    )


def _picture_of_pair(registry: Registry, a: Circuit, b: Circuit) -> Picture:
    from queries.compare import ports_are_told
    from queries.drawing import DrawnEdge, Picture

    labels = tuple(f"{circuit.task} ({circuit.id[:12]})" for circuit in (a, b))
    effects: dict[tuple[str, str, str | None], dict[str, float | None]] = {}
    told = ports_are_told(a, b)
    for label, circuit in zip(labels, (a, b), strict=True):
        for edge in circuit.edges:
            ends = (edge.source.partition("@")[0], edge.target.partition("@")[0])
            found = effects.setdefault((*ends, edge.port if told else None), {})
            if edge.effect is not None:
                found[label] = edge.effect + (found.get(label) or 0.0)
            else:
                found.setdefault(label, None)
    return Picture(
        title=f"What two circuits in {a.model} share",
        tasks=tuple(dict.fromkeys(labels)),
        edges=tuple(DrawnEdge(*key, effects=found) for key, found in effects.items()),
        min_tasks=len(set(labels)),
        heads_per_group=heads_per_group(registry, [a.model]),
    )
