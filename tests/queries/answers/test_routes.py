"""Connected parts and ways through a graph, beside listing every way."""

from __future__ import annotations

import random
from math import inf

import networkx as nx
import pytest

from queries.answers.shared.routes import (
    connected_parts,
    count_routes,
    group_links,
    strongest_routes,
)
from registry.identifiers import can_feed, parse_local

Edge = tuple[str, str, str | None, float | None]
HEADS_PER_GROUP = 3


def graph_of(*edges: Edge, links: bool = True) -> nx.MultiDiGraph[str]:
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    for source, target, port, strength in edges:
        name = f"{source}->{target}" + (f"<{port}>" if port else "")
        graph.add_edge(
            source, target, key=port or "", connection=name, port=port, strength=strength
        )
    for group, head in group_links(graph, HEADS_PER_GROUP if links else None):
        graph.add_edge(group, head, key="link", connection=None, port=None)
    return graph


def random_graph(seed: int, n_edges: int) -> nx.MultiDiGraph[str]:
    draw = random.Random(seed)
    names = ["input", "logits", *(f"m{layer}" for layer in range(4))]
    names += [f"a{layer}.h{head}" for layer in range(4) for head in (0, 1, 4)]
    names += [f"a{layer}.kv{group}" for layer in range(4) for group in (0, 1)]
    edges: dict[tuple[str, str, str | None], float] = {}
    while len(edges) < n_edges:
        source, target = draw.choice(names), draw.choice(names)
        port = "q" if ".h" in target else draw.choice("kv") if ".kv" in target else None
        if can_feed(parse_local(source), parse_local(target), port):
            # Few values, so that many ways have the same weakest connection.
            edges[source, target, port] = draw.choice((0.125, 0.25, 0.5, 1.0))
    return graph_of(*((*key, strength) for key, strength in edges.items()))


def listed_ways(graph: nx.MultiDiGraph[str]) -> list[tuple[tuple[float, ...], tuple[str, ...]]]:
    """Every way from input to logits: its strengths, the weakest first, and its connections."""
    ways = []
    for path in nx.all_simple_edge_paths(graph, "input", "logits"):
        hops = [graph.edges[hop] for hop in path]  # type: ignore[index]  # the stubs know no keys
        connections = [hop for hop in hops if hop["connection"]]
        strengths = sorted(hop["strength"] for hop in connections)
        ways.append(((*strengths, inf), tuple(hop["connection"] for hop in connections)))
    return ways


@pytest.mark.parametrize("seed", range(12))
def test_counts_and_the_strongest_are_those_of_a_list_of_all_ways(seed: int) -> None:
    graph = random_graph(seed, 75)
    ways = listed_ways(graph)
    assert count_routes(graph) == len(ways)
    for n in (1, 5, 1000):
        found = strongest_routes(graph, n)
        assert len(found) == min(n, len(ways))
        keys = [(*sorted(_strengths(graph, route.connections)), inf) for route in found]
        assert keys == sorted((key for key, _ in ways), reverse=True)[:n]
        assert len({str(route) for route in found}) == len(found)
        assert {route.connections for route in found} <= {names for _, names in ways}
        assert [route.strength for route in found] == [key[0] for key in keys]


def test_the_random_graphs_have_ways_and_links_on_them() -> None:
    graphs = [random_graph(seed, 75) for seed in range(12)]
    assert sum(count_routes(graph) for graph in graphs) > 1000
    assert any("=>" in str(route) for graph in graphs for route in strongest_routes(graph, 50))


def _strengths(graph: nx.MultiDiGraph[str], connections: tuple[str, ...]) -> list[float]:
    of = {name: data["strength"] for _, _, data in graph.edges(data=True)
          if (name := data["connection"])}  # fmt: skip
    return [of[name] for name in connections]


def test_a_way_leads_from_a_key_value_head_to_the_heads_that_read_it() -> None:
    edges: tuple[Edge, ...] = (("input", "a4.kv2", "k", 0.5), ("a4.h7", "logits", None, 0.25))
    (route,) = strongest_routes(graph_of(*edges), 10)
    assert str(route) == "input -> a4.kv2<k> => a4.h7 -> logits"
    assert route.connections == ("input->a4.kv2<k>", "a4.h7->logits")
    assert (route.weakest, route.strength) == ("a4.h7->logits", 0.25)
    assert strongest_routes(graph_of(*edges, links=False), 10) == ()
    other_group = (("input", "a4.kv0", "k", 0.5), ("a4.h7", "logits", None, 0.25))
    assert count_routes(graph_of(*other_group)) == 0


def test_two_inputs_of_one_head_are_two_ways() -> None:
    graph = graph_of(
        ("input", "a1.h2", "q", 1.0), ("input", "a1.h2", "k", 0.5), ("a1.h2", "logits", None, 0.75)
    )
    assert count_routes(graph) == 2
    assert [str(route) for route in strongest_routes(graph, 10)] == [
        "input -> a1.h2<q> -> logits", "input -> a1.h2<k> -> logits"
    ]  # fmt: skip


def test_ways_that_nobody_could_list_are_counted() -> None:
    layers = range(60)
    graph = graph_of(
        *(("input", f"m{layer}", None, 1.0) for layer in layers),
        *((f"m{a}", f"m{b}", None, 1.0) for a in layers for b in layers if a < b),
        *((f"m{layer}", "logits", None, 0.5) for layer in layers),
    )
    assert count_routes(graph) == 2**60 - 1
    (best, *_) = strongest_routes(graph, 3)
    assert len(best.connections) == 2


def test_edges_that_lead_back_are_passed_over() -> None:
    graph = graph_of(
        ("input", "m1", None, 1.0), ("m1", "a0.h1", "q", 1.0), ("a0.h1", "m1", None, 1.0),
        ("m1", "logits", None, 1.0), ("m1", "m1", None, 1.0),
    )  # fmt: skip
    assert [str(route) for route in strongest_routes(graph, 10)] == ["input -> m1 -> logits"]


def test_unknown_strengths_count_as_none_at_all() -> None:
    graph = graph_of(
        ("input", "m1", None, None), ("m1", "logits", None, 1.0), ("input", "logits", None, 0.1)
    )
    assert [str(route) for route in strongest_routes(graph, 10)] == [
        "input -> logits", "input -> m1 -> logits"
    ]  # fmt: skip


def test_parts_hang_together_through_links_and_leave_out_what_stands_alone() -> None:
    graph = graph_of(
        ("input", "a4.kv2", "v", 1.0), ("a4.h6", "m7", None, 1.0), ("m1", "m2", None, 1.0)
    )
    graph.add_node("m9")
    assert connected_parts(graph) == (
        frozenset({"input", "a4.kv2", "a4.h6", "m7"}),
        frozenset({"m1", "m2"}),
    )
