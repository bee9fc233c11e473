"""The tables of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from queries.circuits.transfers import MEASURED
from queries.report.page import Table
from queries.report.summary import controls, listed, rounded, saturations

if TYPE_CHECKING:
    from queries.answers.reuse import ReusedComponent
    from queries.answers.shared.parts import Used
    from queries.chance.chance import Chance
    from queries.report.gathering import Report

__all__ = [
    "ceilings",
    "circuits",
    "families",
    "general_heads",
    "pairs",
    "parts",
    "paths",
    "shared_components",
    "shared_connections",
    "specific",
    "spread",
    "transfers",
]

_MOST_ROWS = 40
_MOST_HEADS = 25
_MOST_NAMES = 8
_MOST_TASK_COLUMNS = 8
_HEADS = ("head", "kv_head")


def circuits(report: Report) -> Table:
    """Circuits that represent the tasks."""
    saturated = saturations(report.matrix)
    rows = []
    for entry in report.provenance.circuits:
        one = report.circuits[entry.id]
        rows.append(
            (
                entry.task, entry.id, len(one.edges) or None, len(one.nodes), entry.faithfulness,
                saturated.get(entry.id), one.level, one.method, one.metric, one.ablation,
                entry.prompt_set, entry.labels.title,
            )
        )  # fmt: skip
    columns = (
        "task", "circuit", "edges", "nodes", "faithfulness", "saturation", "level", "method",
        "metric", "ablation", "prompts", "title",
    )  # fmt: skip
    return Table.of("The circuits that represent the tasks", columns, rows)


def pairs(report: Report) -> Table:
    """All pairs, with all nulls."""
    matrix, rows = report.matrix, []
    for pair in matrix.pairs:
        found = pair.comparison
        overlap = found.connections if matrix.of == "connections" else found.components
        rows.append(
            (
                matrix.labels[pair.circuit_a.id], matrix.labels[pair.circuit_b.id],
                overlap.n_shared, overlap.iou, *_heads(pair), *_of_null(pair.by_degrees),
                *_of_null(pair.by_hubs), *_of_null(pair.by_layers),
                *_of_null(pair.components_by_layers if pair.counts_components
                          else None),
                pair.q, found.sign_agreement, found.rank_correlation,
            )
        )  # fmt: skip
    columns = (
        "a", "b", "shared", "IoU", "shared heads", "IoU of heads",
        "expected by degrees", "z by degrees", "p by degrees", "expected by hubs", "z by hubs",
        "p by hubs", "expected by layers", "z by layers", "p by layers",
        "components expected by layers", "z by layers", "p by layers",
        "q of the largest p", "same sign", "rank correlation",
    )  # fmt: skip
    return Table.of(f"Shared {matrix.of} of every pair, and expected by chance", columns, rows)


def transfers(report: Report) -> Table:
    """Transfer of each circuit to each task, random circuits in brackets."""
    matrix = report.matrix
    rows = [
        (matrix.labels[id], *(_transfer(report, id, task) for task in matrix.tasks))
        for id in matrix.order()
    ]
    measure = MEASURED[matrix.measure]
    comma = "" if measure.unit is None else ","
    what = f"{measure.label}{comma} of each circuit (row) on each task (column)"
    if not measure.is_percent:
        what += f"; in brackets the median of {controls(report)}"
    return Table(what, ("circuit of", *matrix.tasks), tuple(rows))


def ceilings(report: Report) -> Table:
    """Overlap of circuits of one task that were found on different prompts."""
    matrix = report.matrix
    rows = [
        (matrix.labels[id], one.n_circuits, one.mean_iou, one.lowest_iou, one.highest_iou)
        for id, one in matrix.ceilings.items()
    ]
    columns = ("circuit", "replicates", "mean IoU", "lowest", "highest")
    return Table.of("The ceiling: what a task shares with itself on other prompts", columns, rows)


def families(report: Report) -> Iterator[Table]:
    """Similarity of tasks of a family, among each other and with other tasks."""
    for one in report.families:
        rows = [
            (name, like.n_pairs, *map(_mean, (like.iou, like.z, like.transfer, like.gain)))
            for name, like in (("each other", one.within), *one.beside.items())
        ]
        yield Table.of(
            f"Tasks of the family {one.family} compared with others, means over pairs",
            (f"{one.family} and", "pairs", "IoU", "z", "transfer", "beyond random circuits"),
            rows,
        )


def shared_components(report: Report) -> Table:
    """Components that enough tasks use."""
    shared = report.shared
    return _shared_table(report, "components", shared.components, "component")


def shared_connections(report: Report) -> Table:
    """Connections that enough tasks use."""
    return _shared_table(report, "connections", report.shared.connections, "connection")


def parts(report: Report) -> Table:
    """Connected parts of the shared subgraph."""
    rows = [
        (len(one.components), one.n_connections, one.n_paths, _names(one.components))
        for one in report.shared.parts
    ]
    columns = ("components", "connections", "paths", "which")
    return Table.of("Connected parts of the shared subgraph", columns, rows, most=_MOST_NAMES)


def paths(report: Report) -> Table:
    """The strongest paths from input to logits."""
    shared = report.shared
    rows = [
        (
            str(one),
            shared.strength_of(one),
            one.weakest,
            _which(shared.tasks_of(one), shared.tasks),
        )
        for one in shared.paths
    ]
    columns = ("path", "strength", "weakest connection", "tasks that have all of it")
    return Table.of("The strongest shared paths from input to logits", columns, rows)


def general_heads(report: Report) -> Table:
    """Heads by how many tasks use them."""
    heads = [one for one in report.reuse.components if one.kind in _HEADS and one.n_tasks > 1]
    rows = [_reused(one, report.reuse.tasks) for one in heads]
    columns = ("head", "tasks", "which", "generality", "expected tasks", "p", "q", "roles")
    return Table.of(
        "Heads and key/value heads that most tasks use", columns, rows, most=_MOST_HEADS
    )


def spread(report: Report) -> Table:
    """How many parts are used by one task, two, and so on, and by chance."""
    rows = [tuple(row.values()) for row in report.reuse.spread()]
    columns = (
        "tasks", "components", "by chance", "connections", "by chance",
    )  # fmt: skip
    return Table.of("How many components and connections tasks have in common", columns, rows)


def specific(report: Report) -> Table:
    """Parts that only one task uses."""
    rows = []
    for task, one in (report.shared.unique or {}).items():
        heads = [part.name for part in one.components if part.kind in _HEADS]
        links = [link.name for link in one.connections]
        rows.append((task, len(heads), _names(heads), len(links), _names(links)))
    columns = ("task", "heads", "strongest", "connections", "strongest")
    return Table.of("Parts that only one task uses, the strongest first", columns, rows)


def _mean(value: float | None) -> float | None:
    """Three digits at most, and no ``-0``."""
    return None if value is None else round(value, 3) + 0.0


def _heads(pair: Any) -> tuple[int, float | None]:
    from registry.identifiers import Kind

    found = pair.comparison.of_kind(Kind.HEAD)
    return found.n_shared, found.iou


def _of_null(chance: Chance | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if chance is None else (chance.expected, chance.z, chance.p)


def _transfer(report: Report, circuit: str, task: str) -> str | None:
    found = report.matrix.transfer(circuit, task)
    if found is None:
        return None
    digits = 1 if MEASURED[found.measure].is_percent else 2
    beside = "" if found.random is None else f" ({rounded(found.random, digits)})"
    return f"{rounded(found.value, digits)}{beside}"


def _shared_table(report: Report, what: str, of: Sequence[Used], name: str) -> Table:
    tasks = report.shared.tasks if len(report.shared.tasks) <= _MOST_TASK_COLUMNS else ()
    rows = [
        (one.name, getattr(one, "roles", None), one.n_tasks, one.strength, one.signs_agree,
         *(_effect(one, task) for task in tasks))
        for one in of
    ]  # fmt: skip
    columns = (name, "roles", "tasks", "strength", "signs agree", *tasks)
    effects = "; columns of tasks hold the mean effect, positive helps" if tasks else ""
    caption = f"Shared {what}, the most used and strongest first{effects}"
    return Table.of(caption, columns, rows, most=_MOST_ROWS)


def _effect(one: Used, task: str) -> float | None:
    use = one.uses.get(task)
    return None if use is None else use.effect if use.effect is not None else use.magnitude


def _reused(one: ReusedComponent, tasks: Sequence[str]) -> tuple[Any, ...]:
    name = one.name.partition("/")[2]
    return (
        name, one.n_tasks, _which(one.tasks, tasks), one.generality, one.expected, one.p, one.q,
        one.roles,
    )  # fmt: skip


def _which(used: Sequence[str], tasks: Sequence[str]) -> str:
    """Tasks that use a part, in a short form."""
    others = [task for task in tasks if task not in used]
    if len(others) < len(used):
        return f"all but {listed(others)}" if others else "all"
    return ", ".join(task for task in tasks if task in used)


def _names(names: Iterable[str]) -> str:
    all_ = list(names)
    more = f" and {len(all_) - _MOST_NAMES} more" if len(all_) > _MOST_NAMES else ""
    return ", ".join(all_[:_MOST_NAMES]) + more
