"""Circuits reduced to what others tell: copies of keys and values, ports, embeddings."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.answers.overlap import compare
from queries.circuits.folding import Folded, Folding, fold
from registry.identifiers import can_feed, parse_local
from registry.records import Circuit, Edge, Level, Model, Node, Sign

HEADS, GROUPS, LAYERS = 4, 2, 3
PER_GROUP = HEADS // GROUPS
MODEL = Model(slug="m", n_layers=LAYERS, n_heads=HEADS, n_kv_heads=GROUPS)
ONTO_GROUPS = Folding(heads_per_group=PER_GROUP)

Key = tuple[str, str, str | None]
Effects = dict[Key, float | None]

_LAYERS_HEADS = list(itertools.product(range(LAYERS), range(HEADS)))
_SENDERS = [
    "input", "embed", "pos_embed",
    *(f"a{layer}.h{head}" for layer, head in _LAYERS_HEADS),
    *(f"m{layer}" for layer in range(LAYERS)),
]  # fmt: skip
_QUERIES = [(f"a{layer}.h{head}", "q") for layer, head in _LAYERS_HEADS]
_OTHERS = [*((f"m{layer}", None) for layer in range(LAYERS)), ("logits", None)]


def possible(receivers: list[tuple[str, str | None]]) -> list[Key]:
    """All edges into these receivers."""
    return [
        (sender, receiver, port)
        for sender, (receiver, port) in itertools.product(_SENDERS, receivers)
        if can_feed(parse_local(sender), parse_local(receiver), port)
    ]


GROUPED = possible(
    [
        *_QUERIES,
        *((f"a{layer}.kv{group}", port)
          for layer, group, port in itertools.product(range(LAYERS), range(GROUPS), "kv")),
        *_OTHERS,
    ]
)  # fmt: skip
PER_QUERY_HEAD = possible(
    [*_QUERIES, *((head, port) for (head, _), port in itertools.product(_QUERIES, "kv")), *_OTHERS]
)
# Sums of these are exact in any order.
EFFECTS = st.one_of(st.none(), st.integers(-1000, 1000).map(float))


def circuit(effects: Effects, kv_heads: str, method: str = "eap") -> Circuit:
    names = sorted({name for key in effects for name in key[:2]})
    fields = {
        "model": "m", "task": "ioi", "method": "edge-attribution", "level": Level.EDGE,
        "sign": Sign.HELPS_POSITIVE, "kv_heads": kv_heads, "parameters": {"method": method},
        "nodes": tuple(Node(component=name) for name in names),
        "edges": tuple(
            Edge.model_validate({"source": s, "target": t, "port": p, "effect": effect})
            for (s, t, p), effect in effects.items()
        ),
    }  # fmt: skip
    return Circuit.model_validate(fields)


def edges_of(universe: list[Key]) -> st.SearchStrategy[Effects]:
    return st.dictionaries(st.sampled_from(universe), EFFECTS, min_size=1, max_size=12)


@st.composite
def with_copies(draw: st.DrawFn) -> tuple[Circuit, Circuit]:
    """A circuit, and the same with some copies of its keys and values for each query head."""
    grouped = draw(edges_of(GROUPED))
    copies: Effects = {}
    for (sender, receiver, port), effect in grouped.items():
        part = parse_local(receiver)
        if port not in ("k", "v"):
            copies[sender, receiver, port] = effect
            continue
        group = part.head or 0
        heads = range(group * PER_GROUP, (group + 1) * PER_GROUP)
        chosen = draw(st.lists(st.sampled_from(heads), min_size=1, unique=True))
        rest = effect
        for head in chosen[1:]:
            share = None if effect is None else draw(st.integers(-1000, 1000).map(float))
            copies[sender, f"a{part.layer}.h{head}", port] = share
            rest = None if rest is None or share is None else rest - share
        copies[sender, f"a{part.layer}.h{chosen[0]}", port] = rest
    return circuit(grouped, "grouped"), circuit(copies, "per-query-head")


def unfolded(folded: Folded, like: Circuit) -> Circuit:
    """A circuit of the parts that were folded onto."""
    edges = []
    for name, effect in folded.effects.items():
        source, _, target = name.partition("->")
        target, _, port = target.rstrip(">").partition("<")
        edges.append(
            Edge.model_validate(
                {"source": source, "target": target, "port": port or None, "effect": effect}
            )
        )
    nodes = tuple(Node(component=name) for name in folded.components)
    return like.model_copy(update={"nodes": nodes, "edges": tuple(edges)})


@given(with_copies())
def test_a_circuit_equals_its_version_with_keys_and_values_per_query_head(
    pair: tuple[Circuit, Circuit],
) -> None:
    grouped, copied = pair
    found = compare(grouped, copied, MODEL)
    assert (found.components.iou, found.edges.iou, found.connections.iou) == (1, 1, 1)
    assert fold(copied, ONTO_GROUPS).effects == fold(grouped, ONTO_GROUPS).effects
    assert found.sign_agreement in (1, None)


@given(edges_of(PER_QUERY_HEAD), st.data())
def test_equal_circuits_are_equal_whatever_they_are_folded_onto(
    effects: Effects, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(sorted(effects, key=str)))
    one = circuit(effects, "per-query-head")
    other = circuit({key: effects[key] for key in order}, "per-query-head")
    how = data.draw(FOLDINGS)
    assert fold(one, how) == fold(other, how)


FOLDINGS = st.builds(
    Folding,
    ports=st.booleans(),
    heads_per_group=st.sampled_from([None, 1, PER_GROUP]),
    one_input=st.booleans(),
)


@given(
    st.one_of(edges_of(GROUPED), edges_of(PER_QUERY_HEAD)),
    st.sampled_from(["grouped", "per-query-head"]),
    st.sampled_from(["eap", "exact"]),
    FOLDINGS,
)
def test_folding_twice_changes_no_more_than_folding_once(
    effects: Effects, kv_heads: str, method: str, how: Folding
) -> None:
    given_circuit = circuit(effects, kv_heads, method)
    once = fold(given_circuit, how)
    assert fold(unfolded(once, given_circuit), how) == once


@given(edges_of(GROUPED))
def test_nothing_is_folded_that_need_not_be(effects: Effects) -> None:
    folded = fold(circuit(effects, "grouped"), ONTO_GROUPS)
    assert folded.components == {name for key in effects for name in key[:2]}
    assert dict(folded.effects) == {
        f"{s}->{t}" + (f"<{p}>" if p else ""): effect for (s, t, p), effect in effects.items()
    }


def test_copies_of_a_key_add_up_where_effects_are_estimates() -> None:
    copies: Effects = {
        ("input", "a1.h0", "k"): 1.0, ("input", "a1.h1", "k"): -3.0, ("input", "a1.h2", "k"): 5.0,
        ("input", "a1.h0", "q"): 7.0, ("a1.h0", "logits", None): 9.0,
    }  # fmt: skip
    folded = fold(circuit(copies, "per-query-head"), ONTO_GROUPS)
    assert dict(folded.effects) == {
        "input->a1.kv0<k>": -2.0, "input->a1.kv1<k>": 5.0, "input->a1.h0<q>": 7.0,
        "a1.h0->logits": 9.0,
    }  # fmt: skip
    assert folded.components == {"input", "a1.kv0", "a1.kv1", "a1.h0", "logits"}


@pytest.mark.parametrize(("method", "effect"), [("eap", 3.0), ("exact", None)])
def test_what_was_patched_exactly_is_not_summed(method: str, effect: float | None) -> None:
    copies: Effects = {("input", "a1.h0", "k"): 1.0, ("input", "a1.h1", "k"): 2.0}
    folded = fold(circuit(copies, "per-query-head", method), ONTO_GROUPS)
    assert dict(folded.effects) == {"input->a1.kv0<k>": effect}
    alone = fold(circuit({("input", "a1.h0", "k"): 1.0}, "per-query-head", method), ONTO_GROUPS)
    assert dict(alone.effects) == {"input->a1.kv0<k>": 1.0}


def test_copies_at_several_positions_do_not_add_up_either() -> None:
    edges = [("input@1", "a1.h0@1"), ("input@1", "a1.h1@1"), ("input@2", "a1.h0@2")]
    alone = circuit({("input", "a1.h0", "k"): 1.0}, "per-query-head", "exact")
    at_positions = alone.model_copy(
        update={
            "nodes": tuple(
                Node(component=key.partition("@")[0], position=key.partition("@")[2])
                for key in sorted({key for edge in edges for key in edge})
            ),
            "edges": tuple(Edge(source=s, target=t, port="k", effect=1.0) for s, t in edges),
        }
    )
    assert dict(fold(at_positions, ONTO_GROUPS).effects) == {"input->a1.kv0<k>": None}
    assert dict(fold(at_positions, Folding()).effects) == {
        "input->a1.h0<k>": 2.0, "input->a1.h1<k>": 1.0
    }  # fmt: skip


def test_without_ports_the_inputs_of_a_head_are_one() -> None:
    effects: Effects = {("m0", "a1.h0", port): 1.0 for port in "qkv"}
    folded = fold(circuit(effects, "grouped"), Folding(ports=False))
    assert dict(folded.effects) == {"m0->a1.h0": 3.0}
    assert fold(circuit(effects, "grouped"), Folding()).edges == {"m0->a1.h0"}


def test_embeddings_are_the_input_where_the_other_circuit_says_so() -> None:
    effects: Effects = {("embed", "m0", None): 1.0, ("pos_embed", "m0", None): 0.5}
    given_circuit = circuit(effects, "grouped")
    folded = fold(given_circuit, Folding(one_input=True))
    assert dict(folded.effects) == {"input->m0": 1.5}
    assert folded.components == {"input", "m0"}
    assert fold(given_circuit, Folding()).components == {"embed", "pos_embed", "m0"}


def test_a_part_without_edges_is_kept_by_its_name() -> None:
    alone = circuit({}, "per-query-head").model_copy(update={"nodes": (Node(component="a1.h3"),)})
    assert fold(alone, ONTO_GROUPS).components == {"a1.h3"}
