"""The parts and edges that remain of a graph of hook points.

ACDC and tools based on it link hook points. Some links stay inside one head or MLP
(``hook_q_input`` to ``hook_q``, ``hook_mlp_in`` to ``hook_mlp_out``). Here parts are separate
nodes, but not their internal points, and the token embedding and the position embedding are one
``input``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from registry.errors import BadInput
from registry.identifiers import Kind, never_feeds, parse_local, parse_node_key, ports_of
from registry.records import Edge
from registry.texts.words import listed

__all__ = [
    "check_order",
    "fold_embeddings",
    "is_inside",
    "notes_on_inside",
    "notes_on_ports",
    "notes_on_positions",
]

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_WITH_INSIDES = frozenset({Kind.HEAD, Kind.KV_HEAD, Kind.MLP, Kind.INPUT})


def is_inside(source: str, target: str) -> bool:
    """Return whether a link between parts, by local name, stays in a head or an MLP."""
    return source == target and parse_local(source).kind in _WITH_INSIDES


def check_order(source: str, target: str) -> None:
    """Refuse an edge that cannot exist in any model, by the local names of its ends.

    Raises:
        BadInput: It runs backwards, ends at a part that reads nothing or starts at the logits.
    """
    if never_feeds(parse_local(source), parse_local(target)):
        raise BadInput(
            f"the edge {source} -> {target} is in no model: {source} cannot write before {target}"
            " reads; source and target may be exchanged"
        )


def notes_on_positions(edges: Iterable[Edge]) -> list[str]:
    """How many edges lead back to an earlier token, which no language model here reads from.

    Positions that are numbers are compared, both counted from the first token or both, as negative
    ones, from the last; others are names. The edges are kept: what a tool counts as a position is
    for its file to say.
    """
    back = [edge for edge in edges if _leads_back(edge)]
    if not back:
        return []
    lead = "1 edge leads" if len(back) == 1 else f"{len(back):,} edges lead"
    return [
        f"{lead} from a later token to an earlier one, such as {back[0].source} ->"
        f" {back[0].target}: no token reads those behind it; source and target, or their positions,"
        " may be the wrong way round"
    ]


def _leads_back(edge: Edge) -> bool:
    first, second = _number_of_position(edge.source), _number_of_position(edge.target)
    if first is None or second is None:
        return False
    return (first < 0) == (second < 0) and first > second


def _number_of_position(key: str) -> int | None:
    position = parse_node_key(key)[1]
    if position is None or not _WHOLE_NUMBER.fullmatch(position):
        return None
    return int(position)


def notes_on_inside(inside: Sequence[str]) -> list[str]:
    """Return notes on omitted links; ``inside`` are links as the file names them."""
    if not inside:
        return []
    links = "1 link that stays" if len(inside) == 1 else f"{len(inside):,} links that stay"
    return [f"{links} inside one head or MLP omitted, such as {inside[0]}"]


def notes_on_ports(edges: Iterable[Edge]) -> list[str]:
    """Return a note on the number of edges that do not give the input of a head."""
    n_open = sum(
        edge.port is None and bool(ports_of(parse_node_key(edge.target)[0])) for edge in edges
    )
    if not n_open:
        return []
    enter = "1 edge enters a head" if n_open == 1 else f"{n_open:,} edges enter heads"
    return [f"{enter} without giving the input (q, k or v)"]


def fold_embeddings(
    edges: Sequence[Edge], spelled: Collection[str]
) -> tuple[Sequence[Edge], list[str]]:
    """Merge edges from the token and the position embedding into one edge per target.

    The sum of two such effects is not defined, so the effect of merged edges is unknown.

    Args:
        edges: All edges of a file.
        spelled: The file's names of ``input``; with only one name, nothing is merged.
    """
    if len(spelled) < 2:
        return edges, []
    n_same = Counter(_place(edge) for edge in edges if _from_input(edge))
    doubled = {place for place, n in n_same.items() if 1 < n <= len(spelled)}
    if not doubled:
        return edges, []
    once = {
        _place(edge): edge.model_copy(update={"effect": None, "rank": None})
        for edge in edges
        if _from_input(edge) and _place(edge) in doubled
    }
    others = [edge for edge in edges if not _from_input(edge) or _place(edge) not in doubled]
    names = listed(sorted(spelled))
    return [*others, *once.values()], [
        f"edges merged from several of the input ({names}), effects unknown: {len(once):,}"
    ]


def _from_input(edge: Edge) -> bool:
    return edge.source.partition("@")[0] == "input"


def _place(edge: Edge) -> tuple[str, str, str | None]:
    return edge.source, edge.target, edge.port
