"""A circuit reduced to what can be compared with another: names of parts, with effects.

Positions are always folded away. If one circuit is more detailed than the other, it is folded to
the detail that both have: the inputs of heads onto the heads, copies of keys and values per query
head onto the heads that the model has, ``embed`` and ``pos_embed`` onto ``input``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from registry.identifiers import Kind, parse_local, parse_node_key, ports_of
from registry.records import Circuit, Model

__all__ = [
    "Folded",
    "Folding",
    "fold",
    "heads_per_group",
    "how_ports_are_told",
    "node_effects",
    "ports_are_told",
    "shared_key_group",
]

_EMBEDDINGS = frozenset({"embed", "pos_embed"})


@dataclass(frozen=True, slots=True)
class Folding:
    """The level of detail that two circuits are folded to.

    Attributes:
        ports: Keep the queries, keys and values of a head separate.
        heads_per_group: Number of query heads that read one key/value head. Copies per query head
            are folded onto that head; None keeps the copies.
        one_input: ``embed`` and ``pos_embed`` count as ``input``.
    """

    ports: bool = True
    heads_per_group: int | None = None
    one_input: bool = False


@dataclass(frozen=True, repr=False)
class Folded:
    """Parts of a circuit by local name.

    Attributes:
        components: The components of all its nodes.
        effects: Effect of each connection, summed over the folded edges; None if no edge has an
            effect, or if the effects of the folded edges do not add up.
    """

    components: frozenset[str]
    effects: Mapping[str, float | None]

    def __repr__(self) -> str:
        return f"<Folded: {len(self.components)} components and {len(self.effects)} connections>"

    @cached_property
    def connections(self) -> frozenset[str]:
        """Names of the connections, with ports if these are kept separate."""
        return frozenset(self.effects)

    @cached_property
    def edges(self) -> frozenset[str]:
        """Pairs of a component and one that it feeds, regardless of the port."""
        return frozenset(name.partition("<")[0] for name in self.effects)


def fold(circuit: Circuit, how: Folding) -> Folded:
    """Reduce a circuit.

    Effects of exact patching do not add up over copies of a key or value: patching several copies
    at once differs from the sum of patching each. If such copies are folded, their effect is
    unknown.
    """
    rename = _renaming(circuit, how)
    adds_up = circuit.parameters.get("method") != "exact"
    effects: dict[str, float | None] = {}
    folded: dict[str, set[str]] = {}
    for edge in circuit.edges:
        source, target = (str(parse_node_key(key)[0]) for key in (edge.source, edge.target))
        source, target = rename(source, None), rename(target, edge.port)
        name = f"{source}->{target}" + (f"<{edge.port}>" if how.ports and edge.port else "")
        before = effects.setdefault(name, None)
        if edge.effect is not None:
            effects[name] = edge.effect + (before or 0.0)
        folded.setdefault(name, set()).add(edge.connection)
    if not adds_up:
        effects |= dict.fromkeys(name for name, copies in folded.items() if len(copies) > 1)
    return Folded(_components(circuit, rename), effects)


def node_effects(circuit: Circuit, components: Iterable[str]) -> dict[str, float | None]:
    """Effect of each component, summed over positions; None for components that folding renamed."""
    found: dict[str, float | None] = dict.fromkeys(components)
    for node in circuit.nodes:
        name = str(parse_node_key(node.key)[0])
        if name in found and node.effect is not None:
            found[name] = node.effect + (found[name] or 0.0)
    return found


def heads_per_group(model: Model | None) -> int | None:
    """How many query heads read one key/value head; 1 where each has its own, None if unknown."""
    if model is None or not model.n_heads or not model.n_kv_heads:
        return None
    return model.n_heads // model.n_kv_heads


def shared_key_group(model: Model | None) -> int | None:
    """Query heads per key/value head; None if each query head has its own, or if unknown."""
    group = heads_per_group(model)
    return group if group is not None and group > 1 else None


def ports_are_told(*circuits: Circuit) -> bool:
    """Whether every edge into a head names the input that it enters, in all of these circuits."""
    return not any("merged" in how_ports_are_told(circuit) for circuit in circuits)


def how_ports_are_told(circuit: Circuit) -> str:
    """How edges into heads are given: merged or separate; empty if there are none."""
    into_heads = {
        edge.port is not None
        for edge in circuit.edges
        if edge.port or ports_of(parse_node_key(edge.target)[0])
    }
    match sorted(into_heads):
        case [False, True]:
            return "merged for some edges"
        case [separate]:
            return "separate" if separate else "merged"
        case _:
            return ""


_Rename = Callable[[str, str | None], str]


def _renaming(circuit: Circuit, how: Folding) -> _Rename:
    """Names of parts after folding; a head that is read at its key or value becomes its group."""
    group = how.heads_per_group if circuit.kv_heads == "per-query-head" else None

    def rename(name: str, port: str | None) -> str:
        if how.one_input and name in _EMBEDDINGS:
            return "input"
        if group is not None and group > 1 and port in ("k", "v"):
            part = parse_local(name)
            if part.kind is Kind.HEAD and part.head is not None:
                return f"a{part.layer}.kv{part.head // group}"
        return name

    return rename


def _components(circuit: Circuit, rename: _Rename) -> frozenset[str]:
    """Nodes under their new names; a head with only its keys and values used becomes its group."""
    listed = {node.key: str(parse_node_key(node.key)[0]) for node in circuit.nodes}
    found = set()
    renamed: dict[str, set[str]] = {}
    for edge in circuit.edges:
        for key, port in ((edge.source, None), (edge.target, edge.port)):
            renamed.setdefault(key, set()).add(rename(listed[key], port))
    for key, name in listed.items():
        found |= renamed.get(key) or {rename(name, None)}
    return frozenset(found)
