"""Which column of a table is which: ours by their names, others by the names that people use.

A column that the user maps is taken, then one of exactly our name, then the only one of a usual
name (:data:`USUAL`), whatever its case; a note says which those were. Where two columns may be the
same one of ours, nothing is guessed: the user says which. ``parent`` and ``child`` are no usual
names, as tools differ in which of them feeds the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.formats.base import Said, UnknownFormat
from registry.errors import BadInput
from registry.words import listed

__all__ = ["EDGE_COLUMNS", "NODE_COLUMNS", "USUAL", "Columns", "find_columns", "no_column"]

EDGE_COLUMNS = (
    "source", "target", "port", "effect", "rank", "source_position", "target_position",
    "in_circuit",
)  # fmt: skip
"""Of a table of edges; all but the first two may be absent."""
NODE_COLUMNS = ("node", "layer", "head", "effect", "rank", "position", "role", "in_circuit")
"""Of a table of heads or other nodes: ``node``, or ``layer`` and ``head``; others may be absent."""
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
}  # fmt: skip
"""Names of columns that are read as ours, in lower case with ``_`` between words."""
_BETWEEN = re.compile(r"[\s\-.]+")


@dataclass(frozen=True, slots=True)
class Columns:
    """A table's columns.

    Attributes:
        of_edges: The table is one of edges, not of nodes.
        names: Our names of the columns that are there, to the file's.
        guessed: Those of them that neither the user named nor our own names tell.
    """

    of_edges: bool
    names: Mapping[str, str]
    guessed: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Which columns were read as ours."""
        read = [f"{theirs} as {ours}" for ours, theirs in self.guessed.items()]
        what = "column" if len(read) == 1 else "columns"
        return [f"{what} read by the usual names: {', '.join(read)}"] if read else []


def find_columns(
    there: Sequence[str], said: Said, where: str, *, all_there: bool = True
) -> Columns:
    """Find ours among a table's columns.

    A table with a source and a target is one of edges; one with a node, or a layer and a head, is
    one of nodes. A column ``head`` without ``layer`` names nodes.

    Args:
        there: The table's columns.
        said: With those that the user maps.
        where: Which file, for errors.
        all_there: What the user maps must be there; rows of JSON may lack what is unknown.

    Raises:
        BadInput: The user maps a column that we or the table have not, or two columns may be the
            same of ours.
        UnknownFormat: The table has neither, and the user maps nothing.
    """
    known = dict.fromkeys((*EDGE_COLUMNS, *NODE_COLUMNS))
    unknown = set(said.columns) - set(known)
    if unknown:
        raise BadInput(f"no column {min(unknown)!r} of ours; there are {', '.join(known)}")
    found = {ours: _candidates(ours, there, said) for ours in known}
    absent = [ours for ours in said.columns if not found[ours]]
    if found["source"] and found["target"]:
        if absent and all_there:
            raise no_column(absent[0], there, said, where)
        return _resolved(found, EDGE_COLUMNS, said, where)
    if found["source"] or found["target"] or not _names_nodes(found):
        missing = "target" if found["source"] else "source"
        raise no_column(missing, there, said, where)
    if absent and all_there:
        raise no_column(absent[0], there, said, where)
    if not found["node"] and not found["layer"]:
        found["node"], found["head"] = found["head"], []
    if found["node"]:
        found["layer"] = found["head"] = []
    return _resolved(found, NODE_COLUMNS, said, where)


def no_column(ours: str, there: Iterable[str], said: Said, where: str) -> BadInput:
    """What is wrong with a table that lacks a column.

    Args:
        ours: Our name of the column.
        there: The columns that the table has.
        said: What the user says; where that maps no column, the table may be one of anything, so
            that it is no malformed one but of no format that is known.
        where: Which file, and where in it.
    """
    kind = BadInput if said.columns else UnknownFormat
    return kind(
        f"{where}: no column {said.columns.get(ours, ours)!r}; it has"
        f" {listed([*map(repr, there)]) or 'none'}. Map yours with --column {ours}=NAME; a table of"
        " heads has layer and head, or node"
    )


def _candidates(ours: str, there: Sequence[str], said: Said) -> list[str]:
    """Columns that may be one of ours; one where that is certain."""
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
    found: Mapping[str, Sequence[str]], ours: Sequence[str], said: Said, where: str
) -> Columns:
    names: dict[str, str] = {}
    for one in ours:
        if len(found[one]) > 1:
            listed = " and ".join(map(repr, found[one]))
            raise BadInput(
                f"{where}: {listed} may each be the column {one!r}; say which with --column"
                f" {one}={found[one][0]}"
            )
        if found[one]:
            names[one] = found[one][0]
    guessed = {one: name for one, name in names.items() if one not in said.columns and name != one}
    return Columns(ours is EDGE_COLUMNS, names, guessed)
