"""The meaning of a table's columns: by our names, or by the usual names of other tools.

A column that the user maps is used first, then a column of exactly our name, then the only column
with a usual name (:data:`USUAL`), in any case; a note lists those. If two columns may have the same
meaning, nothing is guessed: the user chooses. ``parent`` and ``child`` are not usual names, because
tools differ in which of them feeds the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.formats.base import Said, UnknownFormat
from registry.errors import BadInput
from registry.texts.words import listed

__all__ = ["EDGE_COLUMNS", "NODE_COLUMNS", "USUAL", "Columns", "find_columns", "no_column"]

EDGE_COLUMNS = (
    "source", "target", "port", "effect", "rank", "source_position", "target_position",
    "in_circuit",
)  # fmt: skip
"""Columns of a table of edges; all except the first two may be absent."""
NODE_COLUMNS = (
    "node", "layer", "head", "effect", "rank", "position", "role", "density", "in_circuit",
)  # fmt: skip
"""Columns of a table of nodes: ``node``, or ``layer`` and ``head``; others may be absent."""
USUAL: Mapping[str, tuple[str, ...]] = {
    "source": ("source", "src", "from", "sender", "writer", "upstream", "source_node", "src_node",
               "from_node"),
    "target": ("target", "tgt", "dst", "dest", "destination", "to", "receiver", "reader",
               "downstream", "target_node", "dst_node", "to_node"),
    "port": ("port", "qkv"),
    "effect": ("effect", "effect_size", "score", "weight", "attribution", "attribution_score",
               "importance", "value", "edge_score", "head_score", "node_score"),
    "rank": ("rank",),
    "source_position": ("source_position", "source_pos", "src_position", "src_pos"),
    "target_position": ("target_position", "target_pos", "dst_position", "dst_pos"),
    "in_circuit": ("in_circuit", "in_graph", "is_in_circuit"),
    "node": ("node", "component", "part", "attention_head", "attn_head", "head_name"),
    "layer": ("layer", "layer_idx", "layer_index"),
    "head": ("head", "head_idx", "head_index"),
    "position": ("position", "pos"),
    "role": ("role",),
    "density": ("density",),
}  # fmt: skip
"""Usual names of columns for ours, in lower case with ``_`` between words."""
_BETWEEN = re.compile(r"[\s\-.]+")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table.

    Attributes:
        of_edges: Whether it is a table of edges, not of nodes.
        names: Our names of its columns, mapped to the file's names.
        guessed: The columns that neither the user's map nor our own names identify.
    """

    of_edges: bool
    names: Mapping[str, str]
    guessed: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return which columns were read as ours."""
        read = [f"{theirs} as {ours}" for ours, theirs in self.guessed.items()]
        what = "column" if len(read) == 1 else "columns"
        return [f"{what} read by the usual names: {', '.join(read)}"] if read else []


_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
"""What a table of one column may be separated by in fact."""


def find_columns(
    there: Sequence[str], said: Said, where: str, *, all_there: bool = True
) -> Columns:
    """Find our columns among a table's columns.

    A table with a source and a target is a table of edges; a table with a node, or a layer and a
    head, is
    one of nodes. A column ``head`` without ``layer`` names nodes.

    Args:
        there: The table's columns.
        said: The user's statements, with mapped columns.
        where: The file, for errors.
        all_there: Whether mapped columns must exist; rows of JSON may omit unknown values.

    Raises:
        BadInput: The user maps a column that does not exist, or two columns may have the same
            meaning.
        UnknownFormat: The table is of neither kind, and the user maps nothing.
    """
    known = dict.fromkeys((*EDGE_COLUMNS, *NODE_COLUMNS))
    unknown = set(said.columns) - set(known)
    if unknown:
        raise BadInput(f"unknown column {min(unknown)!r}; the columns are {', '.join(known)}")
    found = {ours: _candidates(ours, there, said) for ours in known}
    absent = [ours for ours in said.columns if not found[ours]]
    if found["source"] and found["target"]:
        if absent and all_there:
            raise no_column(absent[0], there, said, where)
        return _resolved(found, there, EDGE_COLUMNS, said, where)
    if found["source"] or found["target"] or not _names_nodes(found):
        missing = "target" if found["source"] else "source"
        raise no_column(missing, there, said, where)
    if absent and all_there:
        raise no_column(absent[0], there, said, where)
    if not found["node"] and not found["layer"]:
        found["node"], found["head"] = found["head"], []
    if found["node"]:
        found["layer"] = found["head"] = []
    return _resolved(found, there, NODE_COLUMNS, said, where)


def no_column(ours: str, there: Iterable[str], said: Said, where: str) -> BadInput:
    """Return the error for a table that lacks a column.

    Args:
        ours: Our name of the column.
        there: The columns of the table.
        said: The user's statements; if they map no column, the table may be about anything, so its
            format is unknown and it is not malformed.
        where: The file, and the place in it.
    """
    kind = BadInput if said.columns else UnknownFormat
    there = list(there)
    separator = next((one for one in _SEPARATORS if len(there) == 1 and one in there[0]), None)
    if separator is not None:
        raise kind(
            f"{where}: its values are separated by {_SEPARATORS[separator]}; write commas, or tabs"
            " in a file that ends in .tsv"
        )
    return kind(
        f"{where}: no column {said.columns.get(ours, ours)!r}; it has"
        f" {listed([*map(repr, there)]) or 'none'}. Map yours with --column {ours}=NAME; a table of"
        " heads has layer and head, or node"
    )


def _candidates(ours: str, there: Sequence[str], said: Said) -> list[str]:
    """Return columns that may have one of our meanings; a single one if this is certain."""
    if ours in said.columns:
        return [said.columns[ours]] if said.columns[ours] in there else []
    mapped = set(said.columns.values())
    if ours in there and ours not in mapped:
        return [ours]
    usual = USUAL[ours]
    return [name for name in there if name not in mapped and _plain(name) in usual]


def _plain(name: str) -> str:
    return _BETWEEN.sub("_", name.strip().lower()) if len(name) <= 40 else ""


def _names_nodes(found: Mapping[str, Sequence[str]]) -> bool:
    return bool(found["node"] or found["head"])


def _resolved(
    found: Mapping[str, Sequence[str]],
    there: Sequence[str],
    ours: Sequence[str],
    said: Said,
    where: str,
) -> Columns:
    names: dict[str, str] = {}
    for one in ours:
        twice = next((name for name in found[one] if there.count(name) > 1), None)
        if twice is not None:
            raise BadInput(f"{where} has two columns {twice!r}; give one of them another name")
        if len(found[one]) > 1:
            listed = " and ".join(map(repr, found[one]))
            raise BadInput(
                f"{where}: {listed} may each be the column {one!r}; choose one with --column"
                f" {one}={found[one][0]}"
            )
        if found[one]:
            names[one] = found[one][0]
    guessed = {one: name for one, name in names.items() if one not in said.columns and name != one}
    return Columns(ours is EDGE_COLUMNS, names, guessed)
