"""Tables of heads, or of other nodes with heads among them: a circuit of level node.

A row names its node by ``layer`` and ``head``, or by one name: ``a9.h6`` in any spelling
(:mod:`ingest.formats.spelling`), and also ``9.6`` or ``(9, 6)``, which in a column of heads can be
nothing else. A number such as 9.1 that is no text is refused: it may be head 1 of layer 9 or
head 10. A node stands there once, or once for each position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import edge_circuit, with_sign
from ingest.formats.cells import (
    is_empty,
    odd_number,
    read_effect,
    read_mark,
    read_position,
    read_rank,
)
from ingest.formats.choosing import choose
from ingest.formats.reading import OddScores
from ingest.formats.spelling import Read, notes_on_names, read_head, read_name
from ingest.formats.table_rows import Row
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Kind, parse_local
from registry.limits import check_length
from registry.records import Circuit, Level, Node

__all__ = ["names_a_node", "read_nodes"]

_FINER = {
    Kind.NEURON: Level.NEURON,
    Kind.SUBSPACE: Level.SUBSPACE,
    Kind.FEATURE: Level.FEATURE,
    Kind.ERROR: Level.FEATURE,
}


def read_nodes(
    rows: Iterable[Row],
    name: str,
    context: Context,
    read: Read = read_name,
    **told: Any,
) -> Imported:
    """The circuit of a table of nodes.

    Args:
        rows: Where each stands in the file (``line 3``), and its values by our names of columns.
        name: The file's.
        context: With what the user says, and how many rows are allowed.
        read: What reads the names of parts.
        told: Fields of the circuit that the file says itself.

    Raises:
        BadInput: A row is no node, there are too many, there is none, or one stands there twice.
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
                raise BadInput(f"{node.key} stands there already")
            if "in_circuit" in row:
                marks.append(read_mark(row["in_circuit"]))
        except (BadIdentifier, BadInput) as error:
            raise BadInput(f"{name}, {where}: {error}") from error
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


def names_a_node(row: Mapping[str, Any]) -> bool:
    """Whether a row names a part of a model."""
    try:
        _component(row, {}, read_name)
    except (BadIdentifier, BadInput):
        return False
    return True


def _circuit(nodes: Sequence[Node], said: Said, told: Mapping[str, Any]) -> Circuit:
    """All nodes; where none has a rank, they are ranked by the size of their effects."""
    ranked = "level" in told  # a file of ours tells all ranks there are
    if not ranked and all(node.rank is None for node in nodes):
        sized = [node for node in nodes if node.effect is not None]
        strongest = sorted(sized, key=lambda node: -abs(node.effect or 0.0))
        ranks = {node.key: rank for rank, node in enumerate(strongest, 1)}
        nodes = [node.model_copy(update={"rank": ranks.get(node.key)}) for node in nodes]
    kinds = {parse_local(node.component).kind for node in nodes}
    finer = next((level for kind, level in _FINER.items() if kind in kinds), Level.NODE)
    return edge_circuit(said, [], **{"nodes": tuple(nodes), "level": finer, **told})


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
    )


def _component(row: Mapping[str, Any], read_as: dict[str, str], read: Read) -> str:
    """The part that a row is about.

    Raises:
        BadInput: It names none, or an input of a head.
        BadIdentifier: As above.
    """
    if "node" not in row:
        layer, number = (_index(row.get(one), one) for one in ("layer", "head"))
        return f"a{layer}.h{number}"
    given = row["node"]
    if isinstance(given, int | float) and not isinstance(given, bool):
        raise BadInput(
            f"{given!r:.40} is a number and may be several heads (9.1 is 9.10 too); write it as"
            " text, such as L9H1, or give columns layer and head"
        )
    if not isinstance(given, str):
        raise BadInput(f"{given!r:.80} is no name of a part")
    head = read_head(given)
    local, port = read(given) if head is None else (head, None)
    if port is not None:
        raise BadInput(f"{given!r:.80} is an input of a head, and no node")
    read_as.setdefault(given, local)
    return local


def _index(value: Any, what: str) -> int:
    """A layer's or head's number: 9, "9", 9.0 as tables with empty cells have it, L9, H6.

    Raises:
        BadInput: It is none.
    """
    if isinstance(value, str) and len(value) < 40:
        letter = "L" if what == "layer" else "H"
        text = value.strip().upper().removeprefix(letter).removesuffix(".0")
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
    elif type(value) in (int, float) and 0 <= value < 10**9 and value == int(value):
        return int(value)
    raise BadInput(f"{what} {value!r:.80} is no whole number from 0")
