"""Tables of heads, or of other nodes with heads among them: a circuit of level node.

A row names its node by ``layer`` and ``head``, or by one name: ``a9.h6`` in any spelling
(:mod:`ingest.formats.spelling`), and also ``9.6`` or ``(9, 6)``, which are unambiguous in a column
of heads. A number such as 9.1 that is not text is refused: it may be head 1 of layer 9 or head 10.
A node appears once, or once per position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from pydantic import ValidationError

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import edge_circuit, with_sign
from ingest.formats.choosing import choose
from ingest.formats.reading import OddScores
from ingest.formats.spelling import Read, notes_on_names, read_head, read_name
from ingest.formats.tables.cells import (
    is_empty,
    odd_number,
    read_density,
    read_effect,
    read_mark,
    read_position,
    read_rank,
)
from ingest.formats.tables.rows import Row
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Kind, parse_local
from registry.limits import check_length
from registry.records import Circuit, Level, Node
from registry.texts.problems import first_problem

__all__ = ["names_a_node", "read_nodes", "why_no_number"]

_FINER = {
    Kind.NEURON: Level.NEURON,
    Kind.SUBSPACE: Level.SUBSPACE,
    Kind.FEATURE: Level.FEATURE,
    Kind.ERROR: Level.FEATURE,
}
_NORMS_AND_ENDS = frozenset({Kind.NORM, Kind.INPUT, Kind.LOGITS})


def read_nodes(
    rows: Iterable[Row],
    name: str,
    context: Context,
    read: Read = read_name,
    **told: Any,
) -> Imported:
    """Return the circuit of a table of nodes.

    Args:
        rows: The place of each row in the file (``line 3``), and its values by our names of
            columns.
        name: The file's name.
        context: With the user's statements, and the allowed number of rows.
        read: Reads the names of parts.
        told: Fields of the circuit that the file gives.

    Raises:
        BadInput: A row is not a node, there are too many or no rows, or a node appears twice.
    """
    read_as, odd = dict[str, str](), OddScores()
    nodes: dict[str, Node] = {}
    marks: list[bool] = []
    for where, row in rows:
        if len(nodes) == context.limits.max_edges:
            raise BadInput(
                f"{name} has more than {context.limits.max_edges:,} rows; --max-edges allows more"
            )
        try:
            node = _node(row, context.said, read_as, read)
            if node.key in nodes:
                raise BadInput(f"{node.key} appears before")
            if "in_circuit" in row:
                marks.append(read_mark(row["in_circuit"]))
        except (BadIdentifier, BadInput) as error:
            raise BadInput(f"{name}, {where}: {error}") from error
        except ValidationError as error:
            raise BadInput(f"{name}, {where}: {first_problem(error)}") from error
        nodes[node.key] = node
        if node.effect is None and (number := odd_number(row.get("effect"))) is not None:
            odd.add(number, f"{where}, {node.key}")
    if not nodes:
        raise BadInput(f"{name} holds no node")
    if marks and len(marks) < len(nodes):
        raise BadInput(f"{name}: some nodes say whether they are in the circuit, and some do not")
    listed = list(nodes.values())
    choice = choose([one.effect for one in listed], marks or None, context.said, name, "node")
    chosen = [listed[at] for at in choice.places]
    circuit = _circuit(chosen, context.said, {"selection": choice.selection, **told})
    notes = [*odd.notes(), *choice.notes, *notes_on_names(read_as)]
    return Imported([circuit], notes=notes)


def why_no_number(given: float) -> str:
    """Why a number names no head, and what does."""
    return (
        f"{given!r:.40} is a number and may be several heads (9.1 is 9.10 too); write it as"
        " text, such as L9H1, or give columns layer and head"
    )


def names_a_node(row: Mapping[str, Any]) -> bool:
    """Return whether a row names a part of a model."""
    try:
        _component(row, {}, read_name)
    except (BadIdentifier, BadInput):
        return False
    return True


def _circuit(nodes: Sequence[Node], said: Said, told: Mapping[str, Any]) -> Circuit:
    """Return the circuit of all nodes; without ranks, they are ranked by absolute effect."""
    ranked = "level" in told  # our own files give all existing ranks
    if not ranked and all(node.rank is None for node in nodes):
        sized = [node for node in nodes if node.effect is not None]
        strongest = sorted(sized, key=lambda node: -abs(node.effect or 0.0))
        ranks = {node.key: rank for rank, node in enumerate(strongest, 1)}
        nodes = [node.model_copy(update={"rank": ranks.get(node.key)}) for node in nodes]
    kinds = {parse_local(node.component).kind for node in nodes}
    return edge_circuit(said, [], **{"nodes": tuple(nodes), "level": _level(kinds), **told})


def _level(kinds: Set[Kind]) -> Level:
    """Return the level of a circuit that names parts of these kinds, without edges."""
    if Kind.NORM in kinds and kinds <= _NORMS_AND_ENDS:
        return Level.PARAMETER
    return next((level for kind, level in _FINER.items() if kind in kinds), Level.NODE)


def _node(row: Mapping[str, Any], said: Said, read_as: dict[str, str], read: Read) -> Node:
    component = _component(row, read_as, read)
    role = row.get("role")
    if isinstance(role, str):
        check_length("role", role)
    elif not is_empty(role):
        raise BadInput(f"role {role!r:.80} is no text")
    return Node(
        component=component,
        position=read_position(row.get("position")),
        effect=with_sign(read_effect(row.get("effect")), said, component),
        rank=read_rank(row.get("rank")),
        role=role if isinstance(role, str) and role else None,
        density=read_density(row.get("density")),
    )


def _component(row: Mapping[str, Any], read_as: dict[str, str], read: Read) -> str:
    """Return the part that a row is about.

    Raises:
        BadInput: It names no part, or an input of a head.
        BadIdentifier: The name is not in the grammar.
    """
    if "node" not in row:
        layer, number = (_index(row.get(one), one) for one in ("layer", "head"))
        return f"a{layer}.h{number}"
    given = row["node"]
    if isinstance(given, int | float) and not isinstance(given, bool):
        raise BadInput(why_no_number(given))
    if not isinstance(given, str):
        raise BadInput(f"{given!r:.80} is no name of a part")
    head = read_head(given)
    local, port = read(given) if head is None else (head, None)
    if port is not None:
        raise BadInput(f"{given!r:.80} is an input of a head, and no node")
    read_as.setdefault(given, local)
    return local


def _index(value: Any, what: str) -> int:
    """Return a layer's or head's number: 9, "9", 9.0 (from tables with empty cells), L9, H6.

    Raises:
        BadInput: It is not a whole number from 0.
    """
    if isinstance(value, str) and len(value) < 40:
        letter = "L" if what == "layer" else "H"
        text = value.strip().upper().removeprefix(letter).removesuffix(".0")
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
    elif type(value) in (int, float) and 0 <= value < 10**9 and value == int(value):
        return int(value)
    raise BadInput(f"{what} {value!r:.80} is no whole number from 0")
