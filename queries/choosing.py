"""Which circuits stand for a task: the best at a common size, all of them, or those that are named.

A larger circuit shares more with any other, so circuits of several tasks are compared at one size:
the smallest that all tasks have a circuit of, and there each task's most faithful one. A size is
how many edges a rule chose, before what dangled was taken out: that is what tasks have in common.

Circuits of two models never compare. Where several models have circuits of all the tasks, but only
one has such as compare, that one is meant, and a note says so; else the model has to be named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from queries.alike import group_alike
from registry.errors import BadInput

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Chosen", "Which", "choose_circuits", "replicates"]

Which = Literal["best", "all"] | Sequence[str]
"""``best``: one circuit a task; ``all``: all active ones; or the ids, or their first digits."""

_Row = Mapping[str, Any]
_Key = tuple[Any, ...]
_SAME_KIND = ("level", "ablation", "kv_heads")
_SAME_WAY = ("model", "method", "metric", "sign", *_SAME_KIND)
_MOST_REPLICATES = 20
_MOST_READ = 60


@dataclass(frozen=True, slots=True, repr=False)
class Chosen:
    """Circuits that stand for tasks.

    Attributes:
        model: The model they all lie in.
        by_task: Ids of each task's circuits, the most faithful first.
        size: How many edges (nodes, at node level) were chosen for each; None where that differs
            or was not asked for.
        notes: What a reader of the comparison has to know.
    """

    model: str
    by_task: Mapping[str, tuple[str, ...]]
    size: int | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        each = ", ".join(f"{task} {len(ids)}" for task, ids in self.by_task.items())
        return f"<Chosen in {self.model}: circuits of {each}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, task by task."""
        return tuple(dict.fromkeys(id for ids in self.by_task.values() for id in ids))


def choose_circuits(
    registry: Registry,
    tasks: Sequence[str],
    *,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
) -> Chosen:
    """Choose the circuits that stand for tasks.

    Args:
        registry: Where they are.
        tasks: Slugs; may be empty where circuits are named, whose tasks these are then.
        circuits: ``best``, ``all``, or ids.
        model: Only circuits of this model. Needed where several have circuits of all the tasks that
            compare: of one level, ablation and kind of key/value heads, and if possible one size.
        method: Only circuits found by this method.

    Raises:
        NotFound: No task, model or circuit goes by that name.
        BadInput: A task has no circuit, circuits that compare lie in several models, or a named
            circuit is of none of the tasks.
    """
    if not isinstance(circuits, str):
        return _named(registry, tasks, circuits)
    if circuits not in ("best", "all"):
        raise BadInput(f"circuits are best, all or ids; got {circuits!r}")
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
        return Chosen(of, {task: _ids(rows) for task, rows in of_model.items()}, notes=notes)
    best = _best(of, of_model)
    return replace(best, notes=(*notes, *best.notes))


def replicates(registry: Registry, circuit: str) -> tuple[str, ...]:
    """Circuits that were found the same way on other prompts of the same task.

    The same as :func:`queries.alike.group_alike` says; at most 20 of them, the newest.

    Args:
        registry: Where they are.
        circuit: Full id of one of them.

    Returns:
        Ids, the given one first.
    """
    given = registry.document(circuit)
    rows = registry.query(
        "circuits-of-task", task=given.task, model=given.model, method=given.method
    ).to_dicts()
    mine = next((row for row in rows if row["circuit"] == circuit), None)
    if mine is None or given.prompt_set is None:
        return (circuit,)
    others = [
        row
        for row in rows
        if row["prompt_set"] not in (None, given.prompt_set)
        and all(row[name] == mine[name] for name in _SAME_WAY)
    ]
    others.sort(key=lambda row: (row["recorded_at"], row["circuit"]), reverse=True)
    others.sort(key=lambda row: _size(row) != _size(mine))
    groups = group_alike(registry, (circuit, *_ids(others)[:_MOST_READ]))
    same = next(group.circuits for group in groups if circuit in group.circuits)
    return same[:_MOST_REPLICATES]


def _named(registry: Registry, tasks: Sequence[str], prefixes: Iterable[str]) -> Chosen:
    entries = [registry.ledger.circuit(prefix) for prefix in prefixes]
    if not entries:
        raise BadInput("no circuit is named; give ids, best or all")
    models = sorted({entry.model for entry in entries})
    if len(models) > 1:
        raise BadInput(f"circuits of different models do not compare: {', '.join(models)}")
    by_task: dict[str, tuple[str, ...]] = dict.fromkeys(tasks, ())
    for entry in entries:
        if tasks and entry.task not in by_task:
            raise BadInput(
                f"circuit {entry.id[:12]} is of {entry.task}, which is none of {', '.join(tasks)}"
            )
        before = by_task.get(entry.task, ())
        by_task[entry.task] = before if entry.id in before else (*before, entry.id)
    without = [task for task, ids in by_task.items() if not ids]
    if without:
        raise BadInput(f"none of the named circuits is of {', '.join(without)}")
    return Chosen(models[0], by_task)


def _of_model(found: Mapping[str, Sequence[_Row]], model: str) -> dict[str, list[_Row]]:
    return {task: [row for row in rows if row["model"] == model] for task, rows in found.items()}


def _common_model(found: Mapping[str, Sequence[_Row]]) -> tuple[str, tuple[str, ...]]:
    """The model whose circuits are meant, and what has to be said where others have some too."""
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
    """The one of several models whose circuits of these tasks compare, of one size if possible.

    Raises:
        BadInput: None of them has such circuits, or several have.
    """
    for key in (_kind_and_size, _kind):
        fitting = [model for model in models if _common(_of_model(found, model), key)]
        if len(fitting) == 1:
            others = ", ".join(model for model in models if model != fitting[0])
            return fitting[0], (
                f"circuits of {fitting[0]} are taken: those of {others} were not found the same way"
                " for all these tasks; --model names another",
            )
        if fitting:
            break
    raise BadInput(
        f"{len(models)} models have circuits of these tasks ({', '.join(models)}); choose one"
        " with --model"
    )


def _common(found: Mapping[str, Sequence[_Row]], key: Callable[[_Row], _Key]) -> set[_Key]:
    """What some circuit of every task has alike."""
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
    sizes = ", ".join(f"{task} {_size(row)}" for task, row in best.items())
    note = (
        "no size of circuit, found the same way, is there for all tasks; each task's most faithful "
        f"circuit was taken, or its largest, and a larger one shares more with any other ({sizes})"
    )
    by_task = {task: (row["circuit"],) for task, row in best.items()}
    return Chosen(model, by_task, None, (note, *_arbitrary(found, "the largest")))


def _best_of_task(rows: Sequence[_Row]) -> _Row:
    """The most faithful; where that is not known, the largest, which tells most of the task."""
    return rows[0] if rows[0]["faithfulness"] is not None else max(rows, key=_size)


def _arbitrary(found: Mapping[str, Sequence[_Row]], taken: str) -> tuple[str, ...]:
    """Say where nothing told which of several circuits is the most faithful."""
    return tuple(
        f"{task} has {len(rows)} circuits that would do, none of known faithfulness; {taken} "
        "was taken, and --circuits names another"
        for task, rows in found.items()
        if len(rows) > 1 and rows[0]["faithfulness"] is None
    )


def _kind(row: _Row) -> _Key:
    return tuple(row[name] for name in _SAME_KIND)


def _kind_and_size(row: _Row) -> _Key:
    return (*_kind(row), _size(row))


def _size(row: _Row) -> int:
    """How many parts were chosen: edges, or nodes where there are no edges."""
    return int(row["n_selected"] or row["n_edges"] or row["n_nodes"])


def _by_size(kind_and_size: _Key) -> _Key:
    """Circuits of edges before others, small ones first."""
    *kind, size = kind_and_size
    return (kind[0] != "edge", size, *map(str, kind))


def _ids(rows: Iterable[_Row]) -> tuple[str, ...]:
    return tuple(row["circuit"] for row in rows)
