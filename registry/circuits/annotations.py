"""Annotations of a circuit's nodes after discovery: roles, with their sources and scores.

Roles that a circuit was found with are part of its content and its id; annotations are not. Each
source (a person, a tool, a paper) has its own roles for a node: a new one replaces the earlier ones
of this source, and roles of other sources stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

from registry.errors import BadIdentifier, BadInput, NotFound
from registry.identifiers import parse_node_key
from registry.ledger.base import Ledger
from registry.records import Annotation, Circuit

__all__ = ["check_nodes", "full_run_id", "node_of"]

_DIGITS = "give 4 digits of its id or more"


def node_of(circuit: Circuit, name: str) -> str:
    """The node, or component, of a circuit that a name refers to.

    Args:
        circuit: Circuit of the node.
        name: ``a9.h6``, ``gpt2/a9.h6``, or with its position ``a9.h6@END``.

    Returns:
        A node's key, or a component's local name if no position is given.

    Raises:
        BadIdentifier: It does not name a part of a model.
        NotFound: The circuit has no such node; the message gives the nearest one.
    """
    key = name.removeprefix(f"{circuit.model}/")
    _, position = parse_node_key(key)
    known = (
        {node.key for node in circuit.nodes}
        if position is not None
        else {node.component for node in circuit.nodes}
    )
    if key in known:
        return key
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0)
    hint = f"nearest: {near[0]}; " if near else "it has no nodes; "
    raise NotFound("node of this circuit", key, f"{hint}see 'circuits show'")


def check_nodes(
    annotations: Iterable[Annotation],
    given: Mapping[str, Circuit],
    stored: Callable[[str], Circuit] | None = None,
) -> None:
    """Refuse annotations of nodes that their circuits do not have.

    Args:
        annotations: Annotations to be recorded.
        given: Circuits that are recorded with them, by id.
        stored: Reads another circuit by its full id; without it, there are no other circuits.

    Raises:
        NotFound: There is no such circuit, or it has no such node.
    """
    by_circuit: dict[str, set[str]] = {}
    for one in annotations:
        by_circuit.setdefault(one.circuit, set()).add(one.node)
    for id, nodes in by_circuit.items():
        circuit = given[id] if stored is None or id in given else stored(id)
        keys = {node.key for node in circuit.nodes} | {node.component for node in circuit.nodes}
        if unknown := nodes - keys:
            node_of(circuit, min(unknown))  # raises, and names the nearest node


def full_run_id(ledger: Ledger, prefix: str) -> str:
    """The id of the run that starts with these digits.

    Raises:
        NotFound: None does, or several do.
    """
    try:
        return ledger.run(prefix).id
    except (BadIdentifier, NotFound) as error:
        why = "'circuits show' shows the runs of a circuit"
        raise NotFound("run", prefix, f"{_DIGITS}; {why}") from error
    except BadInput as error:
        raise NotFound("run", prefix, f"{_DIGITS}; several runs start with these") from error
