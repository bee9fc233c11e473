"""Evaluations of sequence-continuation circuits, and the node lists that they refer to.

``{"task", "model", "unit", "definition", "prompts": n, "evaluations": [{"kind", "circuit",
"removed", "value"}]}``. Every value is F, the metric of an ablated model as a signed percentage of
the whole model's metric: values above 100 and below 0 are possible. It is not the faithfulness of
the registry, because the metric with everything ablated is not subtracted; it keeps its own name
and unit.

The owner of each evaluation: a circuit that the file names is the node list in the same folder
(``numerals_circuit_thres_0.8.json``). The result of a circuit on its own task or on another
circuit's task is an evaluation of that circuit, with the measure ``F``. Results without a node list
(the circuit or the whole model without one part, circuits whose list is missing) are stored with
the task's own circuit, with a measure that says so: ``F: one-head-removed-from-circuit``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit
from ingest.formats.reading import as_number, read_json
from ingest.formats.sequence_continuation.tasks import task_slug
from ingest.formats.spelling import read_name
from registry.errors import BadIdentifier, BadInput
from registry.measures import PERCENT_OF_METRIC as F
from registry.records import Ablation, Circuit, Evaluation, Level, Node
from registry.texts.words import listed

__all__ = ["NODE_LIST_NAME", "node_list", "read_evaluations"]

NODE_LIST_NAME = re.compile(r"(?P<task>[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)_circuit(?:_.*)?\.json")
_ABOUT = ("unit", "definition")
_OF_A_CIRCUIT = frozenset({"circuit", "cross-task"})


def node_list(data: Any, name: str, said: Said) -> Circuit:
    """Return the circuit of a node list.

    Raises:
        BadInput: It is malformed, or neither file nor user gives model or task.
    """
    heads, mlps = (data.get(key, []) if isinstance(data, dict) else None for key in _LISTS)
    if not isinstance(heads, list) or not isinstance(mlps, list):
        raise BadInput(f"{name} is no object with heads and mlps, which are lists")
    for pair in heads:
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_index, pair)):
            raise BadInput(f"{name}: {str(pair)[:80]} is no head such as [9, 1]")
    for layer in mlps:
        if not _is_index(layer):
            raise BadInput(f"{name}: {str(layer)[:80]!r} is no layer of an MLP")
    parts = [*(f"a{layer}.h{head}" for layer, head in heads), *(f"m{layer}" for layer in mlps)]
    return edge_circuit(
        said,
        [],
        method=said.method or "iterative-node-pruning",
        level=Level.NODE,
        nodes=tuple(Node(component=part) for part in parts),
    )


_LISTS = ("heads", "mlps")


def read_evaluations(data: Mapping[str, Any], path: Path, context: Context) -> Imported:
    """Read evaluations with the node lists in the same folder that they refer to.

    Raises:
        BadInput: They are malformed, or the task's own node list is missing.
    """
    notes: list[str] = []
    word = data.get("task")
    said = also_in_file(context.said, notes, model=data.get("model"), task=task_slug(word))
    said.need("task")
    if not isinstance(word, str):
        raise BadInput(f"{path.name} names no task, so the evaluated circuit is unknown")
    rows = [row for row in data["evaluations"] if isinstance(row, dict)]
    named = {one for row in rows if isinstance(one := row.get("circuit"), str)}
    lists = {one: found for one in sorted({*named, word}) if (found := _beside(path, one))}
    if word not in lists:
        raise BadInput(
            f"{path.name} evaluates a circuit that is not next to it: its node list,"
            f" {word[:80]}_circuit_thres_0.8.json, must be in the same folder"
        )
    circuits = {one: _listed(lists[one], one == word, one, said, context) for one in lists}
    evaluations = [
        _evaluation(row, at, data, circuits, circuits[word], path.name, said)
        for at, row in enumerate(data["evaluations"], 1)
    ]
    strangers = sorted(one[:80] for one in named - set(circuits))
    if strangers:
        notes.append(
            f"no node list next to it: {listed(strangers)}; their results are kept with"
            f" {word}'s circuit, under measures that say so"
        )
    return Imported(
        list(circuits.values()),
        evaluations=evaluations,
        beside=[lists[one] for one in circuits],
        notes=notes,
    )


def _beside(path: Path, word: str) -> Path | None:
    """Return the node list of that name in the folder; unknown names never become paths.

    Raises:
        BadInput: There are several node lists.
    """
    found = sorted(
        one
        for one in path.parent.iterdir()
        if (named := NODE_LIST_NAME.fullmatch(one.name)) and named["task"] == word
    )
    if len(found) > 1:
        names = listed([one.name for one in found])
        raise BadInput(f"{path.name} may evaluate any of {names}; keep only one of them there")
    return found[0] if found and found[0].is_file() and not found[0].is_symlink() else None


def _listed(path: Path, own: bool, word: str, said: Said, context: Context) -> Circuit:
    task = said.task if own else task_slug(word)
    return node_list(
        read_json(path, context.limits), path.name, said.model_copy(update={"task": task})
    )


def _evaluation(
    row: Any,
    at: int,
    data: Mapping[str, Any],
    circuits: Mapping[str, Circuit],
    own: Circuit,
    name: str,
    said: Said,
) -> Evaluation:
    where = f"{name}, evaluation {at}"
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        raise BadInput(f"{where} is no object with kind and value")
    value = as_number(row.get("value"), f"{where}: the value")
    if value is None or not math.isfinite(value):
        raise BadInput(f"{where} has no value" + ("" if value is None else f" but {value}"))
    of = row.get("circuit") if row["kind"] in _OF_A_CIRCUIT else None
    circuit = circuits.get(of) if isinstance(of, str) else None
    about: dict[str, Any] = {key: row[key] for key in ("kind", "circuit") if key in row}
    if "removed" in row:
        about["removed"] = [_part(row["removed"], where)]
    return Evaluation(
        circuit=(circuit or own).id,
        task=said.need("task"),
        measure=F.name if circuit else f"{F.name}: {row['kind']}",
        value=value,
        ablation=said.ablation or _ablation(data),
        n_prompts=_n_prompts(data, name),
        parameters={**about, **{key: data[key] for key in _ABOUT if key in data}},
    )


def _part(text: Any, where: str) -> str:
    try:
        local, port = read_name(text) if isinstance(text, str) else ("", None)
    except BadIdentifier as error:
        raise BadInput(f"{where}: {error}") from error
    if not local or port is not None:
        raise BadInput(f"{where}: {str(text)[:80]!r} is no part that can be removed")
    return local


def _ablation(data: Mapping[str, Any]) -> Ablation | None:
    """Return mean if the definition says that outputs are replaced by their mean."""
    definition = data.get("definition")
    meant = isinstance(definition, str) and "by their mean" in definition
    return Ablation.MEAN if meant else None


def _n_prompts(data: Mapping[str, Any], name: str) -> int | None:
    count = data.get("prompts")
    if count is not None and (not _is_index(count) or count < 1):
        raise BadInput(f"{name}: prompts is {str(count)[:80]!r}, no number of at least 1")
    return count


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**9
