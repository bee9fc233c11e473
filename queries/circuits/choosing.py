"""Which circuits represent a task: the best at a common size, all of them, or the named ones.

A larger circuit shares more with any other circuit. Circuits of several tasks are therefore
compared at one size: the smallest size at which every task has a circuit. At that size each task's
most faithful circuit is chosen. The size is the number of edges that a rule selected, before
dangling edges were removed, because the tasks have this number in common.

Circuits of two models are never compared. Several models may have circuits of all the tasks. If
only one of them has comparable circuits, that model is used, with a note. Otherwise the model must
be named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from queries.circuits.replicates import SAME_KIND, n_selected
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Chosen", "Facts", "Which", "choose_circuits"]

Which = Literal["best", "all"] | Sequence[str]
"""``best``: one circuit per task; ``all``: all active circuits; or ids, or their first digits."""

_Row = Mapping[str, Any]
_Key = tuple[Any, ...]


class Facts(NamedTuple):
    """Facts about a chosen circuit: its size, and its faithfulness on its own task."""

    n_edges: int
    n_nodes: int
    faithfulness: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Chosen:
    """Circuits that represent tasks.

    Attributes:
        model: The model of all circuits.
        by_task: Ids of each task's circuits, the most faithful first.
        size: Number of edges (nodes, at node level) selected for each circuit; None if it differs
            or was not requested.
        notes: Notes that the reader of the comparison must know.
        facts: Facts about each circuit, by id.
    """

    model: str
    by_task: Mapping[str, tuple[str, ...]]
    size: int | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Facts] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        each = ", ".join(f"{task} {len(ids)}" for task, ids in self.by_task.items())
        return f"<Chosen in {self.model}: circuits of {each}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, task by task."""
        return tuple(dict.fromkeys(id for ids in self.by_task.values() for id in ids))

    def rows(self) -> Rows:
        """One row per circuit and task: ``task circuit edges nodes faithfulness``."""
        return Rows(
            ("task", "circuit", "edges", "nodes", "faithfulness"),
            tuple((task, id, *self.facts[id]) for task, ids in self.by_task.items() for id in ids),
        )


def choose_circuits(
    registry: Registry,
    tasks: Sequence[str],
    *,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
) -> Chosen:
    """Choose the circuits that represent tasks.

    Args:
        registry: The open registry.
        tasks: Slugs. May be empty if circuits are named; their tasks are used then.
        circuits: ``best``, ``all``, or ids.
        model: Only circuits of this model. Needed if several models have comparable circuits of all
            the tasks: with one level, ablation and kind of key/value heads, and if possible one
            size.
        method: Only circuits found by this method.

    Raises:
        NotFound: No task, model or circuit has that name.
        BadInput: A task has no circuit, several models have comparable circuits, or a named circuit
            belongs to none of the tasks.
    """
    if not isinstance(circuits, str):
        return _named(registry, tasks, circuits)
    if circuits not in ("best", "all"):
        raise BadInput(f"circuits must be best, all or ids; got {circuits!r}")
    found = {
        task: registry.query("circuits-of-task", task=task, model=model, method=method).to_dicts()
        for task in dict.fromkeys(tasks)
    }
    for task, rows in found.items():
        if not rows:
            limits = [f"{name} {value}" for name, value in (("model", model), ("method", method))
                      if value]  # fmt: skip
            raise BadInput(
                f"{task} has no active circuit" + (f" of {' and '.join(limits)}" if limits else "")
            )
    of, notes = _common_model(found)
    of_model = _of_model(found, of)
    if circuits == "all":
        by_task = {task: _ids(rows) for task, rows in of_model.items()}
        return Chosen(of, by_task, notes=notes, facts=_facts(of_model))
    best = _best(of, of_model)
    return replace(best, notes=(*notes, *best.notes), facts=_facts(of_model))


def _named(registry: Registry, tasks: Sequence[str], prefixes: Iterable[str]) -> Chosen:
    entries = [registry.ledger.circuit(prefix) for prefix in prefixes]
    if not entries:
        raise BadInput("no circuit is named; give ids, best or all")
    models = sorted({entry.model for entry in entries})
    if len(models) > 1:
        raise BadInput(f"circuits of different models cannot be compared: {', '.join(models)}")
    by_task: dict[str, tuple[str, ...]] = dict.fromkeys(tasks, ())
    for entry in entries:
        if tasks and entry.task not in by_task:
            raise BadInput(f"circuit {entry.id[:12]} is of {entry.task}, not of {', '.join(tasks)}")
        before = by_task.get(entry.task, ())
        by_task[entry.task] = before if entry.id in before else (*before, entry.id)
    without = [task for task, ids in by_task.items() if not ids]
    if without:
        raise BadInput(f"none of the named circuits is of {', '.join(without)}")
    facts = {one.id: Facts(one.n_edges, one.n_nodes, one.faithfulness) for one in entries}
    return Chosen(models[0], by_task, facts=facts)


def _of_model(found: Mapping[str, Sequence[_Row]], model: str) -> dict[str, list[_Row]]:
    return {task: [row for row in rows if row["model"] == model] for task, rows in found.items()}


def _common_model(found: Mapping[str, Sequence[_Row]]) -> tuple[str, tuple[str, ...]]:
    """The model whose circuits are used, and a note if other models have circuits too."""
    models = [{row["model"] for row in rows} for rows in found.values()]
    common = sorted(set.intersection(*models)) if models else []
    if len(common) == 1:
        return str(common[0]), ()
    if not common:
        has = "; ".join(
            f"{task}: {', '.join(sorted(of_task))}"
            for task, of_task in zip(found, models, strict=True)
        )
        raise BadInput(
            f"no model has circuits of all these tasks ({has})"
            if has
            else "no task is named; give tasks, or the ids of circuits"
        )
    return _only_comparable(found, common)


def _only_comparable(
    found: Mapping[str, Sequence[_Row]], models: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """The only model with comparable circuits of these tasks, of one size if possible.

    Raises:
        BadInput: No model has such circuits, or several have.
    """
    for key in (_kind_and_size, _kind):
        fitting = [model for model in models if _common(_of_model(found, model), key)]
        if len(fitting) == 1:
            others = ", ".join(model for model in models if model != fitting[0])
            return fitting[0], (
                f"circuits of {fitting[0]} are used: those of {others} were not found the same way"
                " for all these tasks; --model chooses another",
            )
        if fitting:
            break
    raise BadInput(
        f"{len(models)} models have circuits of these tasks ({', '.join(models)}); choose one"
        " with --model"
    )


def _common(found: Mapping[str, Sequence[_Row]], key: Callable[[_Row], _Key]) -> set[_Key]:
    """The settings that at least one circuit of every task has in common."""
    return set.intersection(*({key(row) for row in rows} for rows in found.values()))


def _best(model: str, found: Mapping[str, Sequence[_Row]]) -> Chosen:
    common = sorted(_common(found, _kind_and_size), key=_by_size)
    if common:
        chosen = {
            task: [row for row in rows if _kind_and_size(row) == common[0]]
            for task, rows in found.items()
        }
        by_task = {task: _ids(rows)[:1] for task, rows in chosen.items()}
        return Chosen(model, by_task, common[0][-1], _arbitrary(chosen, "the first by id"))
    best = {task: _best_of_task(rows) for task, rows in found.items()}
    sizes = ", ".join(f"{task} {n_selected(row)}" for task, row in best.items())
    note = (
        "there is no size at which all tasks have a circuit found the same way; each task's most "
        "faithful or largest circuit was used, and a larger one shares more with any other "
        f"({sizes})"
    )
    by_task = {task: (row["circuit"],) for task, row in best.items()}
    return Chosen(model, by_task, None, (note, *_arbitrary(found, "the largest")))


def _best_of_task(rows: Sequence[_Row]) -> _Row:
    """The most faithful circuit; if faithfulness is unknown, the largest, the most complete one."""
    return rows[0] if rows[0]["faithfulness"] is not None else max(rows, key=n_selected)


def _arbitrary(found: Mapping[str, Sequence[_Row]], taken: str) -> tuple[str, ...]:
    """Report tasks with several circuits of unknown faithfulness."""
    return tuple(
        f"{task} has {len(rows)} circuits that can be used, none of known faithfulness; {taken} "
        "was used, and --circuits chooses another"
        for task, rows in found.items()
        if len(rows) > 1 and rows[0]["faithfulness"] is None
    )


def _kind(row: _Row) -> _Key:
    return tuple(row[name] for name in SAME_KIND)


def _kind_and_size(row: _Row) -> _Key:
    return (*_kind(row), n_selected(row))


def _by_size(kind_and_size: _Key) -> _Key:
    """Sort circuits of edges before others, and small ones first."""
    *kind, size = kind_and_size
    return (kind[0] != "edge", size, *map(str, kind))


def _facts(found: Mapping[str, Sequence[_Row]]) -> dict[str, Facts]:
    return {
        row["circuit"]: Facts(row["n_edges"], row["n_nodes"], row["faithfulness"])
        for rows in found.values()
        for row in rows
    }


def _ids(rows: Iterable[_Row]) -> tuple[str, ...]:
    return tuple(row["circuit"] for row in rows)
