"""Results on sequence continuation: node lists, edges, evaluations and prompts, all of them JSON.

From Lan, Torr and Barez 2023 (arXiv 2311.04131): circuits of GPT-2 that continue numerals, number
words and months. There are four kinds of files, distinguished by their content:

* node lists, ``{"heads": [[layer, head], ...], "mlps": [layer, ...]}``, named
  ``numerals_circuit_thres_0.8.json``: a published circuit without effects and edges. They do not
  name model and task; the task is read from the file's name if the user does not give it;
* edges, ``{"task", "model", "keep_rule", "edges": [{"source", "target", "ratio"}]}``: ``ratio`` is
  F/100 with that path replaced by the corrupt run's path. A ratio of 1 means no effect, so the
  effect is 1 - ratio, the share of the metric that is lost without the edge (below 0: it grows);
* evaluations, ``{"task", "model", "definition", "evaluations": [{"kind", "circuit", "removed",
  "value"}]}``: F as a signed percentage of the whole model's metric. A result of a circuit whose
  node list is next to the file is an evaluation ``F`` of that circuit; a result without a node list
  (a part removed, another circuit) is kept with the task's own circuit as ``F: KIND``;
* prompts, ``{"task", "prompts": {template: [{"text", "corr", "incorr"}]}}``: a prompt set of the
  texts and their answers, without tokens, on which jobs cannot run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit, stored_sign
from ingest.formats.choosing import Choice, choose, is_asked
from ingest.formats.contraction import check_order
from ingest.formats.reading import (
    OddScores,
    as_number,
    check_count,
    finite,
    outer_keys,
    read_json,
)
from ingest.formats.sequence_continuation.evaluations import (
    NODE_LIST_NAME,
    node_list,
    read_evaluations,
)
from ingest.formats.sequence_continuation.prompts import read_prompts
from ingest.formats.sequence_continuation.tasks import TASKS, task_slug
from ingest.formats.spelling import notes_on_names, read_name
from registry.errors import BadIdentifier, BadInput
from registry.records import Ablation, Circuit, Edge, Sign

__all__ = ["FORMAT", "SequenceContinuation"]

_ABOUT_EDGES = ("circuit", "circuit_F_of_this_run", "meaning_of_ratio", "keep_rule", "source")
_EDGE_KEYS = ("keep_rule", "meaning_of_ratio", "circuit_F_of_this_run")


class SequenceContinuation:
    """The format."""

    name = "sequence-continuation"
    summary = "sequence continuation: node lists, edges, evaluations and prompts, as JSON"
    # Evaluations read the node lists in the same folder, which can also be imported themselves.
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if the fields of one of the four kinds are present."""
        if path.suffix.lower() != ".json":
            return 0.0
        outer = outer_keys(head)
        found = (
            {"heads", "mlps"} <= outer
            and re.search(rb'"heads"\s*:\s*\[', head)
            and re.search(rb'"mlps"\s*:\s*\[', head),
            "edges" in outer and not outer.isdisjoint(_EDGE_KEYS),
            "evaluations" in outer and b'"kind"' in head,
            "prompts" in outer and b'"corr"' in head and b'"text"' in head,
        )
        return 0.95 if any(found) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a file of any of the four kinds.

        Raises:
            BadInput: It is malformed, of none of these kinds, or evaluates a circuit that is not
                next to it.
        """
        data = read_json(path, context.limits, odd=True)
        if not isinstance(data, dict):
            raise BadInput(f"{path.name} is no object with heads, edges, evaluations or prompts")
        if "heads" in data or "mlps" in data:
            return _nodes(data, path, context.said)
        if isinstance(data.get("edges"), list):
            return _edges(data, path.name, context)
        if isinstance(data.get("evaluations"), list):
            return read_evaluations(finite(data), path, context)
        if isinstance(data.get("prompts"), dict):
            return read_prompts(finite(data), path.name, context)
        raise BadInput(
            f"{path.name} has neither heads and mlps, nor lists of edges or evaluations, nor"
            " prompts by template"
        )


FORMAT = SequenceContinuation()


def _nodes(data: Mapping[str, Any], path: Path, said: Said) -> Imported:
    notes: list[str] = []
    named = NODE_LIST_NAME.fullmatch(path.name)
    if named and named["task"] in TASKS:
        if said.task is None:
            notes.append(f"the task is taken from the file's name: {TASKS[named['task']]}")
        said = also_in_file(said, notes, task=TASKS[named["task"]])
    return Imported([node_list(data, path.name, said)], notes=notes)


def _edges(data: Mapping[str, Any], name: str, context: Context) -> Imported:
    notes: list[str] = []
    task = task_slug(data.get("task"))
    said = also_in_file(context.said, notes, model=data.get("model"), task=task)
    read_as, odd = dict[str, str](), OddScores()
    edges, ratios = _rows(data["edges"], name, context, read_as, odd)
    dropped_rows = data.get("dropped", [])
    if not isinstance(dropped_rows, list):
        raise BadInput(f"{name}: dropped is no list of edges")
    dropped, dropped_ratios = _rows(dropped_rows, name, context, read_as, odd)
    n_tried = len(edges) + len(dropped)
    both = {edge.connection for edge in edges} & {edge.connection for edge in dropped}
    if both:
        raise BadInput(f"{name}: {min(both)} is kept and dropped")
    if not edges:
        raise BadInput(f"{name} holds no edge")
    choice = Choice(())
    if is_asked(said):
        listed = [*edges, *dropped]
        marks = [at < len(edges) for at in range(len(listed))]
        choice = choose([edge.effect for edge in listed], marks, said, name)
        edges = [listed[at] for at in choice.places]
    if ratios:
        notes.append("effects are 1 - ratio: the share of the metric lost without the edge")
    about = {key: data[key] for key in _ABOUT_EDGES if key in data}
    more = {"ratios": ratios, "dropped": dropped_ratios} if ratios or dropped else {}
    circuit = _circuit(
        said,
        edges,
        scored=bool(ratios),
        # The file lists all tested edges: those that were kept and those that were dropped.
        universe_size=n_tried if "dropped" in data else None,
        selection=choice.selection
        or ({"rule": data["keep_rule"]} if isinstance(data.get("keep_rule"), str) else None),
        parameters=finite({**about, **more}),
    )
    return Imported(
        [circuit], notes=[*notes_on_names(read_as), *notes, *odd.notes(), *choice.notes]
    )


def _circuit(said: Said, edges: Sequence[Edge], *, scored: bool, **more: Any) -> Circuit:
    rule = f"{more['parameters'].get('keep_rule')} {more['parameters'].get('meaning_of_ratio')}"
    resampled = Ablation.RESAMPLE if "corrupt run" in rule else None
    return edge_circuit(
        said,
        edges,
        method=said.method or "path-patching",
        ablation=said.ablation or resampled,
        # A ratio has the same meaning in every file of this kind, for any sign that the user gives.
        sign=Sign.HELPS_POSITIVE if scored else stored_sign(said),
        **more,
    )


def _rows(
    rows: Sequence[Any], name: str, context: Context, read_as: dict[str, str], odd: OddScores
) -> tuple[list[Edge], dict[str, float]]:
    """Return edges, ranked by their effects, and the ratios in the file."""
    check_count(len(rows), "edges", name, context.limits)
    found: dict[str, Edge] = {}
    ratios: dict[str, float] = {}
    for at, row in enumerate(rows):
        where = f"{name}, edge {at + 1}"
        edge, ratio = _row(row, where, read_as, odd)
        if edge.connection in found:
            raise BadInput(f"{where}: {edge.connection} appears before")
        found[edge.connection] = edge
        if ratio is not None:
            ratios[edge.connection] = ratio
    best = sorted(ratios, key=lambda connection: ratios[connection])
    ranks = {connection: rank for rank, connection in enumerate(best, 1)}
    edges = [Edge(**dict(edge) | {"rank": ranks.get(key)}) for key, edge in found.items()]
    return edges, ratios


def _row(
    row: Any, where: str, read_as: dict[str, str], odd: OddScores
) -> tuple[Edge, float | None]:
    if not isinstance(row, dict):
        raise BadInput(f"{where} is no object with source and target")
    ends: list[tuple[str, Any]] = []
    for end in ("source", "target"):
        text = row.get(end)
        if not isinstance(text, str):
            raise BadInput(f"{where}: {end} is {str(text)[:80]!r}, no name of a part")
        try:
            local, port = read_name(text)
        except BadIdentifier as error:
            raise BadInput(f"{where}: {error}") from error
        read_as[text] = local + (f"<{port}>" if port else "")
        ends.append((local, port))
    (source, of_source), (target, port) = ends
    if of_source is not None:
        raise BadInput(f"{where}: {row['source']!r} is an input of a head, which sends nothing")
    try:
        check_order(source, target)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    given = as_number(row.get("ratio"), f"{where}: the ratio")
    ratio = odd.taken(given, f"{source}->{target}" + (f"<{port}>" if port else ""))
    effect = None if ratio is None else 1.0 - ratio
    return Edge(source=source, target=target, port=port, effect=effect), ratio
