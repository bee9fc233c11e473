"""What is left of a tool's graph of hook points when only the links between parts count.

ACDC and those who build on it link hook points: some links stay inside one head or MLP
(``hook_q_input`` to ``hook_q``, ``hook_mlp_in`` to ``hook_mlp_out``). Here parts are told apart,
not their insides, and the token and the position embedding are one ``input``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from registry.identifiers import Kind, parse_local, parse_node_key, ports_of
from registry.records import Edge
from registry.words import listed

__all__ = ["fold_embeddings", "is_inside", "notes_on_inside", "notes_on_ports"]

_WITH_INSIDES = frozenset({Kind.HEAD, Kind.KV_HEAD, Kind.MLP, Kind.INPUT})


def is_inside(source: str, target: str) -> bool:
    """Whether a link between parts, by local name, stays in a head or an MLP; none feeds itself."""
    return source == target and parse_local(source).kind in _WITH_INSIDES


def notes_on_inside(inside: Sequence[str]) -> list[str]:
    """What was left out; ``inside`` are links as the file names them."""
    if not inside:
        return []
    links = "1 link that stays" if len(inside) == 1 else f"{len(inside):,} links that stay"
    return [f"{links} inside one head or MLP left out, such as {inside[0]}"]


def notes_on_ports(edges: Iterable[Edge]) -> list[str]:
    """How many edges do not say which input of a head they enter."""
    n_open = sum(
        edge.port is None and bool(ports_of(parse_node_key(edge.target)[0])) for edge in edges
    )
    if not n_open:
        return []
    enter = "1 edge enters a head" if n_open == 1 else f"{n_open:,} edges enter heads"
    return [f"{enter} without saying by which input (q, k or v)"]


def fold_embeddings(
    edges: Sequence[Edge], spelled: Collection[str]
) -> tuple[Sequence[Edge], list[str]]:
    """Make one edge of those from the token and from the position embedding to one place.

    Nothing says how two such effects add up, so the effect of what was folded is unknown.

    Args:
        edges: All of a file's.
        spelled: What the file calls ``input``; with one name for it there is nothing to fold.
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
        f"edges of the input that are several in the file ({names}), effects unknown: {len(once):,}"
    ]


def _from_input(edge: Edge) -> bool:
    return edge.source.partition("@")[0] == "input"


def _place(edge: Edge) -> tuple[str, str, str | None]:
    return edge.source, edge.target, edge.port
