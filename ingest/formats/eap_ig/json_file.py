"""Graph JSON of EAP-IG and the MIB circuit track, in all its dialects.

``{"cfg": {...}, "nodes": {...}, "edges": {"input->a0.h0<q>": {"score": s, "in_graph": b}}}``. A
node is ``{"in_graph": b}``, with ``score``, ``neurons`` and ``neurons_scores`` if they were
computed. Before February 2025 it is a bare boolean, and ``neurons`` and ``neuron_scores`` are
fields of the whole file, by node. Some files list single neurons as nodes (``m0.17``), some list
only the MLPs with the edges between them.

What the tool calls neurons are coordinates of a node's output in the residual stream, not of an
MLP's hidden layer: ``m0#coordinate[17]``. A score that is missing or NaN was never computed, and
such an edge stays in the circuit for any selection by size. 0 is an unknown effect if all scores,
or most scores, are exactly 0. The sign is not in the file: with the tool's usual settings positive
edges help, in MIB's own example negative edges do.

Edges that are marked as in the circuit stay in it if a node that they join is marked as not in it,
with a note: the tool writes this if it does not prune. If no edge is marked, marked nodes make a
circuit of nodes only if no edge is scored either; otherwise the file has no selection yet.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported
from ingest.formats.eap_ig.columns import (
    GraphColumns,
    Part,
    Shape,
    coordinates,
    left_out,
    read_shape,
)
from ingest.formats.eap_ig.records import as_records
from ingest.formats.reading import as_float, check_count, outer_keys, read_json
from ingest.formats.spelling import notes_on_names, read_name
from registry.errors import BadIdentifier, BadInput

__all__ = ["FORMAT", "EapIgJson"]


class EapIgJson:
    """The format."""

    name = "eap-ig-json"
    summary = "EAP-IG and MIB graph JSON, all dialects"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if the shape of the model is given; likely if edges have names like ours."""
        if path.suffix.lower() != ".json":
            return 0.0
        outer = outer_keys(head)
        if "cfg" in outer and b'"n_layers"' in head:
            return 0.9
        return 0.4 if "edges" in outer and b"->" in head and b'"in_graph"' in head else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph; the marked edges are the circuit, or the edges requested by size."""
        data = read_json(path, context.limits, each_edge=("->",), odd=True)
        if not isinstance(data, dict) or not isinstance(data.get("edges"), dict):
            raise BadInput(f"{path.name} has no edges: expected an object with cfg, nodes, edges")
        shape = read_shape(data.get("cfg"), path.name, context.limits)
        check_count(len(data["edges"]), "edges", path.name, context.limits)
        edges = _Edges(path.name, shape)
        for name, said in data.pop("edges").items():
            edges.add(name, said)
        return as_records(edges.columns(_Parts(path.name, shape, data)), context.said)


FORMAT = EapIgJson()

_NEURON = re.compile(r"(m\d{1,9}|a\d{1,9}\.h\d{1,9})\.(\d{1,9})")
_NAMED = "edge such as input->a0.h0<q> or a0.h0->m1"


class _Edges:
    """The columns of a file's edges, filled one by one."""

    def __init__(self, file: str, shape: Shape) -> None:
        self._file, self._shape = file, shape
        space = shape.space
        self._rows = {name: row for row, name in enumerate(space.senders)}
        self._columns = {one.name: column for column, one in enumerate(space.receivers)}
        self._n_sources = [receiver.n_sources for receiver in space.receivers]
        self._impossible: list[str] = []
        self._read_as: dict[str, str] = {}
        self._found = array("l"), array("l"), array("d"), array("b")

    def add(self, name: str, said: Any) -> None:
        """Add an edge.

        Raises:
            BadInput: It is not an edge of the model, or its values have the wrong type.
        """
        source, _, target = name.partition("->")
        row, column = self._rows.get(source), self._columns.get(target)
        if row is None or column is None:
            row, column = self._spelled(name, source, target)
        if not isinstance(said, dict):
            raise BadInput(f"{self._file}: {name!r} is {said!r:.80}, not its score and in_graph")
        if row >= self._n_sources[column]:
            self._impossible.append(name)
            return
        rows, columns, scores, marked = self._found
        rows.append(row)
        columns.append(column)
        scores.append(_score(said.get("score"), name, self._file))
        marked.append(_mark(said.get("in_graph"), name, self._file))

    def columns(self, parts: _Parts) -> GraphColumns:
        """Return all added edges.

        Raises:
            BadInput: An edge appears twice, in two spellings.
        """
        import numpy

        rows, columns, scores, marked = (numpy.array(one) for one in self._found)
        order = numpy.lexsort((columns, rows))  # the order of the space, for any order of the file
        rows, columns = rows[order], columns[order]
        twice = numpy.flatnonzero((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]))
        if len(twice):
            edge = self._shape.space.edge_id(int(rows[twice[0]]), int(columns[twice[0]]))
            raise BadInput(f"{self._file}: {edge} appears twice")
        read_as = {**self._read_as, **parts.read_as}
        notes = notes_on_names(read_as)
        if self._impossible:
            notes.append(
                f"{len(self._impossible):,} edges omitted, such as {self._impossible[0]}: their"
                " source writes only after their target has read"
            )
        return GraphColumns(
            self._file, self._shape, rows, columns, scores[order],
            marked[order].astype(bool), parts.nodes, parts.coordinates, [*notes, *parts.notes],
        )  # fmt: skip

    def _spelled(self, name: str, source: str, target: str) -> tuple[int, int]:
        """Return row and column of an edge whose name differs from the tool's spelling."""
        try:
            (sender, port), (receiver, to) = read_name(source), read_name(target)
        except BadIdentifier as error:
            raise BadInput(f"{self._file}: {name!r} is no {_NAMED}: {error}") from error
        full = receiver + (f"<{to}>" if to else "")
        row, column = self._rows.get(sender), self._columns.get(full)
        if port is not None or row is None or column is None:
            space = self._shape.space
            raise BadInput(
                f"{self._file}: {name!r} is no {_NAMED} in a model of {space.n_layers} layers with"
                f" {space.n_heads} heads"
            )
        self._read_as |= {t: o for t, o in ((source, sender), (target, full)) if t != o}
        return row, column


class _Parts:
    """The nodes of a file, and the coordinates of their outputs.

    Raises:
        BadInput: A name or its value is malformed.
    """

    def __init__(self, file: str, shape: Shape, data: Mapping[str, Any]) -> None:
        self._file, self._shape = file, shape
        self.nodes: list[Part] = []
        self.coordinates: list[Part] = []
        self.read_as: dict[str, str] = {}
        self._left_out: list[tuple[str, int]] = []
        self._known = {*shape.space.senders, "logits"}
        marks = self._table(data, "neurons")
        scores = self._table(data, "neuron_scores", "neurons_scores")
        for text, said in self._table(data, "nodes").items():
            self._node(text, said)
        for text in {**marks, **scores}:
            self._neurons(self._name(text), marks.get(text), scores.get(text))
        names = [part.name for part in (*self.nodes, *self.coordinates)]
        if len(set(names)) < len(names):
            raise BadInput(f"{file}: a node appears twice, in two spellings")

    @property
    def notes(self) -> list[str]:
        """Return notes on omitted content."""
        return left_out(self._left_out, self._shape)

    def _table(self, data: Mapping[str, Any], *names: str) -> dict[str, Any]:
        for name in names:
            if data.get(name) is not None:
                if not isinstance(data[name], dict):
                    raise BadInput(f"{self._file}: {name} is no object by node")
                return dict(data[name])
        return {}

    def _name(self, text: str) -> str:
        if text in self._known:
            return text
        try:
            name, port = read_name(text)
        except BadIdentifier as error:
            raise BadInput(f"{self._file}: {error}") from error
        if port is not None or name not in self._known:
            space = self._shape.space
            raise BadInput(
                f"{self._file}: {text!r} is no node of a model of {space.n_layers} layers with"
                f" {space.n_heads} heads"
            )
        self.read_as[text] = name
        return name

    def _node(self, text: str, said: Any) -> None:
        fields = said if isinstance(said, dict) else {"in_graph": said}
        said_so = fields.get("in_graph")
        marked = None if said_so is None else _mark(said_so, text, self._file)
        score = _score(fields.get("score"), text, self._file)
        one = None if math.isnan(score) else score
        if found := _NEURON.fullmatch(text):
            node, at = self._name(found[1]), int(found[2])
            width = self._shape.d_model
            if width is not None and at >= width:
                raise BadInput(f"{self._file}: {text!r}, and cfg.d_model is {width}")
            if node.startswith("m"):
                self.coordinates.append(Part(f"{node}#coordinate[{at}]", marked, one))
            else:
                self._left_out.append((node, 1))
            return
        name = self._name(text)
        self.nodes.append(Part(name, marked, one))
        neurons = fields.get("neurons_scores", fields.get("neuron_scores"))
        if neurons is not None or fields.get("neurons") is not None:
            self._neurons(name, fields.get("neurons"), neurons)

    def _neurons(self, name: str, marks: Any, scores: Any) -> None:
        if isinstance(scores, int | float) and marks is None:  # one score for the whole node
            self._whole(name, _score(scores, name, self._file))
            return
        marks, scores = self._of_head(name, marks), self._of_head(name, scores)
        width = len(marks if marks is not None else scores or ())
        if any(one is not None and len(one) != width for one in (marks, scores)):
            raise BadInput(
                f"{self._file}: {name} has {len(marks)} neurons and {len(scores)} scores"
            )
        marked = [_mark(one, name, self._file) for one in marks or [False] * width]
        known = None if scores is None else [
            None if math.isnan(score := _score(one, name, self._file)) else score for one in scores
        ]  # fmt: skip
        found = coordinates(name, marked, known, self._shape)
        if found is None:
            self._left_out.append((name, width))
        else:
            self.coordinates += found

    def _whole(self, name: str, score: float) -> None:
        at = next((at for at, node in enumerate(self.nodes) if node.name == name), None)
        known = Part(name, None) if at is None else self.nodes.pop(at)
        self.nodes.append(Part(name, known.marked, None if math.isnan(score) else score))

    def _of_head(self, name: str, values: Any) -> Sequence[Any] | None:
        """Return a node's list; for each head the tool writes the list of the whole layer."""
        if values is None:
            return None
        if not isinstance(values, list):
            raise BadInput(f"{self._file}: the neurons of {name} are {values!r:.80}, no list")
        if values and all(isinstance(one, list) for one in values):
            head = int(name.rpartition(".h")[2]) if ".h" in name else 0
            if head >= len(values):
                raise BadInput(f"{self._file}: the neurons of {name} cover too few heads")
            nested: list[Any] = values[head]
            return nested
        return values


def _score(value: Any, name: str, file: str) -> float:
    """Return a score; NaN if there is none."""
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{file}: the score of {name} is {value!r:.80}, no number")
    return as_float(value)


def _mark(value: Any, name: str, file: str) -> bool:
    if value is True or value is False:
        return value
    if value is None:
        return False
    if value in (0, 1):
        return bool(value)
    raise BadInput(f"{file}: in_graph of {name} is {value!r:.80}, neither true nor false")
