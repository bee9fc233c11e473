"""A report as a page: its sections and their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from queries.report import sources, tables
from queries.report.methods import methods
from queries.report.page import Block, Drawing, Items, Page, Section, Text, as_text
from queries.report.pictures import as_svg
from queries.report.summary import listed, summary

if TYPE_CHECKING:
    from queries.answers.shared.parts import Used
    from queries.report.gathering import Report

__all__ = ["build_page"]


def build_page(report: Report) -> Page:
    """Arrange a report in sections.

    Raises:
        MissingExtra: matplotlib or seaborn is not installed.
    """
    matrix = report.matrix
    return Page(
        title=f"Circuits of {len(matrix.tasks)} tasks in {matrix.chosen.model}",
        about=f"{listed(matrix.tasks)}. Made from records up to "
        f"{report.provenance.newest:%Y-%m-%d %H:%M} UTC.",
        sections=tuple(
            Section(name, title, tuple(blocks))
            for name, title, blocks in (
                ("summary", "Summary", _summary(report)),
                ("circuits", "Circuits", _circuits(report)),
                ("matrix", "Overlap, chance and transfer", _matrix(report)),
                ("shared", "The shared subgraph", _shared(report)),
                ("reuse", "What is general and what is specific", _reuse(report)),
                ("methods", "Methods", iter(methods(report))),
                ("provenance", "Where the numbers come from", sources.provenance(report)),
            )
        ),
    )


def _summary(report: Report) -> Iterator[Block]:
    yield Items(summary(report))


def _circuits(report: Report) -> Iterator[Block]:
    if report.notes:
        yield Text("Notes on this choice:")
        yield Items(report.notes)
    yield tables.circuits(report)


def _matrix(report: Report) -> Iterator[Block]:
    matrix = report.matrix
    yield Drawing(
        "matrix",
        as_svg(matrix.plot(), "matrix", f"Heat maps over {listed(matrix.tasks)}"),
        "Similar circuits are next to each other (average linkage over 1 - IoU).",
    )
    differences = _differences(report)
    if differences:
        yield Text("What makes the comparisons less sound:")
        yield Items(differences)
    yield tables.pairs(report)
    yield from tables.families(report)
    yield tables.transfers(report)
    if matrix.ceilings:
        yield tables.ceilings(report)
    yield sources.of_matrix(report)


def _shared(report: Report) -> Iterator[Block]:
    shared = report.shared
    least, n = shared.min_tasks, len(shared.tasks)
    who = f"all {n} tasks" if least == n else f"{least} or more of the {n} tasks"
    if not shared.components and not shared.connections:
        yield Text(f"There is no component and no connection that {who} use.")
        return
    alone = (shared.unique or {}).values()
    drawn = (*shared.connections, *shared.components,
             *(part for one in alone for part in (*one.connections, *one.components)))  # fmt: skip
    hints = {one.name: _hint(one) for one in drawn}
    yield Drawing(
        "shared",
        as_svg(shared.plot(), "shared", f"What {who} share, layers from left to right", hints),
        f"What {who} use. Layers run from left to right; the wider a line, the stronger the "
        "connection. Point at a part to see its name and its effects.",
    )
    yield tables.shared_components(report)
    if shared.connections:
        yield tables.shared_connections(report)
    if shared.parts:
        yield tables.parts(report)
    if shared.paths:
        yield tables.paths(report)
    yield sources.of_shared(report)


def _reuse(report: Report) -> Iterator[Block]:
    general = tables.general_heads(report)
    if general.rows:
        yield general
    yield tables.spread(report)
    yield tables.specific(report)
    yield sources.of_reuse(report)


def _differences(report: Report) -> tuple[str, ...]:
    matrix, found = report.matrix, dict[str, list[str]]()
    for pair in matrix.pairs:
        labels = (matrix.labels[pair.circuit_a.id], matrix.labels[pair.circuit_b.id])
        for difference in pair.comparison.differences:
            found.setdefault(difference, []).append(" with ".join(labels))
    return tuple(
        f"{text} ({'all pairs' if len(pairs) == len(matrix.pairs) else '; '.join(pairs)})"
        for text, pairs in found.items()
    )


def _hint(one: Used) -> str:
    """The tooltip of a part."""
    lines = [one.name]
    for use in one.uses.values():
        effect = use.effect if use.effect is not None else use.magnitude
        lines.append(f"{use.task}: {as_text(effect) if effect is not None else 'used'}")
    return "\n".join(lines)
