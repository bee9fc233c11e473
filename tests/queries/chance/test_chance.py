"""What circuits share by chance where only layers count, and what no name of a part may change."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, spearmanr

from queries.answers.overlap import compare
from queries.chance.chance import Chance, corrected
from queries.chance.degrees import Draws, saturation, shared_by_chance, shared_by_draws
from queries.chance.layers import edges_by_layers, parts_by_chance
from registry.circuits.ranking import rank_correlation
from registry.identifiers import can_feed, parse_connection, parse_local
from registry.records import Circuit, Edge, Level, Model, Node
from tests.few import n_examples

N_HEADS = 3
HEADS = [f"a{layer}.h{head}" for layer in range(2) for head in range(N_HEADS)]
MLPS = ["m0", "m1"]
PARTS = st.frozensets(st.sampled_from([*HEADS, *MLPS, "input", "logits"]))
TWO_LAYERS = Model(slug="m", n_layers=2, n_heads=N_HEADS, n_kv_heads=N_HEADS)


def edges_of(n_heads: int, n_kv_heads: int, *, parallel: bool = False) -> list[str]:
    """All edges of a model with two layers."""
    heads = [f"a{layer}.h{head}" for layer in range(2) for head in range(n_heads)]
    read = (
        heads if n_heads == n_kv_heads
        else [f"a{layer}.kv{group}" for layer in range(2) for group in range(n_kv_heads)]
    )  # fmt: skip
    receivers = [f"{head}<q>" for head in heads]
    receivers += [f"{one}<{port}>" for one in read for port in "kv"]
    edges = [
        f"{sender}->{receiver}"
        for sender in ("input", *heads, *MLPS)
        for receiver in (*receivers, *MLPS, "logits")
    ]
    return [edge for edge in edges if leads_forward(edge, parallel=parallel)]


def leads_forward(edge: str, *, parallel: bool) -> bool:
    named = parse_connection(f"m/{edge}")
    return can_feed(named.source, named.target, named.port, parallel_attn_mlp=parallel)


UNIVERSE = edges_of(N_HEADS, N_HEADS)
CIRCUITS = st.frozensets(st.sampled_from(UNIVERSE), max_size=12)


def alike(
    chosen: frozenset[str], universe: Collection[str], sort: Callable[[str], Hashable]
) -> list[frozenset[str]]:
    """All sets with as many members of each sort."""
    wanted = Counter(map(sort, chosen))
    of_sort = [
        itertools.combinations([name for name in universe if sort(name) == one], n)
        for one, n in wanted.items()
    ]
    return [frozenset(itertools.chain(*parts)) for parts in itertools.product(*of_sort)]


def layer_and_kind(name: str) -> Hashable:
    part = parse_local(name)
    return part.layer, part.kind


def layers_of_ends(edge: str) -> Hashable:
    named = parse_connection(f"m/{edge}")
    return layer_and_kind(str(named.source)), layer_and_kind(str(named.target)), named.port


def assert_is_distribution(found: Chance | None, n_shared: int, shared: Iterable[int]) -> None:
    """That exact figures are those of all the equally likely numbers."""
    values = numpy.array(list(shared))
    assert found is not None
    assert found.n_draws is None
    assert found.n_shared == n_shared
    assert found.expected == pytest.approx(values.mean())
    assert found.p == pytest.approx((values >= n_shared).mean())
    assert (found.z is None) == (len(set(values.tolist())) == 1)
    if found.z is not None:
        assert found.z == pytest.approx((n_shared - values.mean()) / values.std())
    assert ((values >= found.low) & (values <= found.high)).mean() >= 0.95
    assert (values < found.low).mean() <= 0.025 + 1e-9
    assert (values > found.high).mean() <= 0.025 + 1e-9


# -- brute force -----------------------------------------------------------------------------------


@given(PARTS, PARTS)
def test_parts_shared_by_chance_are_what_all_pairs_of_such_sets_share(
    a: frozenset[str], b: frozenset[str]
) -> None:
    everything = [*HEADS, *MLPS, "input", "logits"]
    pairs = itertools.product(*(alike(one, everything, layer_and_kind) for one in (a, b)))
    assert_is_distribution(
        parts_by_chance(a, b, TWO_LAYERS), len(a & b), (len(x & y) for x, y in pairs)
    )


@settings(max_examples=n_examples(50))
@given(st.data(), st.sampled_from([(2, 2, False), (2, 1, False), (2, 2, True)]))
def test_edges_shared_by_chance_are_what_all_pairs_of_such_circuits_share(
    data: st.DataObject, shape: tuple[int, int, bool]
) -> None:
    n_heads, n_kv_heads, parallel = shape
    universe = edges_of(n_heads, n_kv_heads, parallel=parallel)
    circuits = st.frozensets(st.sampled_from(universe), max_size=5)
    a, b = data.draw(circuits), data.draw(circuits)
    model = Model(
        slug="m", n_layers=2, n_heads=n_heads, n_kv_heads=n_kv_heads, parallel_attn_mlp=parallel
    )
    pairs = itertools.product(*(alike(one, universe, layers_of_ends) for one in (a, b)))
    assert_is_distribution(edges_by_layers(a, b, model), len(a & b), (len(x & y) for x, y in pairs))


def test_edges_between_layers_are_counted_as_the_model_has_them() -> None:
    all_of_a_sort = [f"a0.h{head}->a1.kv0<k>" for head in range(N_HEADS)]
    grouped = Model(slug="m", n_heads=N_HEADS, n_kv_heads=1)
    found = edges_by_layers(all_of_a_sort, all_of_a_sort, grouped)
    assert found is not None
    assert (found.expected, found.z, found.p) == (N_HEADS, None, 1.0)
    one = ["a0.h0->a1.h1<q>"]
    found = edges_by_layers(one, one, grouped)
    assert found is not None
    assert found.p == found.expected == pytest.approx(1 / N_HEADS**2)


def test_chance_is_unknown_where_it_is_unknown_what_there_is_to_choose_from() -> None:
    parts = ["m0.f3#dictionary", "input"]
    assert parts_by_chance(parts, parts, TWO_LAYERS) is None
    assert parts_by_chance(["a0.h1"], ["a0.h2"], Model(slug="m")) is None
    assert parts_by_chance(["input"], ["input"], Model(slug="m")) is not None
    assert edges_by_layers(["input->a0.h1<q>"], ["input->m0"], Model(slug="m")) is None
    assert edges_by_layers(["input->m0"], ["input->m0"], Model(slug="m")) is not None


def test_every_norm_is_a_kind_of_its_own() -> None:
    norms = ["l0.ln1", "l0.ln2", "ln_final", "unembed"]
    found = parts_by_chance(norms, norms, TWO_LAYERS)
    assert found is not None
    assert (found.n_shared, found.expected, found.p) == (4, 4.0, 1.0)
    found = parts_by_chance(["l0.ln1", "a0.h1"], ["l0.ln2", "a0.h1"], TWO_LAYERS)
    assert found is not None
    assert found.expected == pytest.approx(1 / N_HEADS)


def test_what_no_model_of_that_shape_could_have_is_unknown_too() -> None:
    heads = [f"a0.h{head}" for head in range(N_HEADS + 1)]
    assert parts_by_chance(heads, heads, TWO_LAYERS) is None


# -- many figures ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=8))
def test_p_values_are_corrected_as_benjamini_and_hochberg_do(p_values: list[float]) -> None:
    expected = false_discovery_control(p_values).tolist() if p_values else []
    assert corrected(p_values) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(-4, 4), st.floats(-9, 9)), min_size=3, max_size=9))
def test_the_rank_correlation_is_spearmans(pairs: list[tuple[float, float]]) -> None:
    if 1 in (len({one for one, _ in pairs}), len({other for _, other in pairs})):
        assert rank_correlation(pairs) is None
    else:
        expected = spearmanr([one for one, _ in pairs], [other for _, other in pairs])
        assert rank_correlation(pairs) == pytest.approx(float(expected.statistic))


# -- drawn -----------------------------------------------------------------------------------------


def test_of_draws_the_found_pair_counts_as_one() -> None:
    def draws(*circuits: list[int]) -> Draws:
        cells = numpy.array(circuits, dtype=numpy.int32)
        return Draws(("input", "m0"), ("m1", "m2"), cells)

    a = draws([0, 1], [0, 1], [0, 3], [2, 3])
    b = draws([0, 1], [0, 3], [1, 2], [2, 3])
    found = shared_by_draws(2, a, b)  # they share 2, 1, 0 and 2
    assert (found.n_draws, found.expected, found.p) == (4, 1.25, (2 + 1) / (4 + 1))
    assert found.z == pytest.approx((2 - 1.25) / numpy.std([2, 1, 0, 2]))
    assert shared_by_draws(3, a, b).p == 1 / 5


@given(CIRCUITS, CIRCUITS, st.integers(0, 2**32))
def test_chance_lies_between_nothing_and_everything(
    a: frozenset[str], b: frozenset[str], seed: int
) -> None:
    found = shared_by_chance(a, b, 20, seed)
    assert found.n_shared == len(a & b)
    assert 0 <= found.low <= found.expected <= found.high + 1e-9
    assert found.high <= min(len(a), len(b))
    assert 1 / 21 <= found.p <= 1


# -- relabelling -----------------------------------------------------------------------------------


@st.composite
def relabellings(draw: st.DrawFn) -> Mapping[str, str]:
    """New numbers for the heads of each layer, each model's own business."""
    named: dict[str, str] = {}
    for layer in range(2):
        order = draw(st.permutations(range(N_HEADS)))
        named |= {f"a{layer}.h{old}": f"a{layer}.h{new}" for old, new in enumerate(order)}
    return named


def relabelled(circuit: frozenset[str], names: Mapping[str, str]) -> frozenset[str]:
    def renamed(end: str) -> str:
        head, ported, port = end.partition("<")
        return names.get(head, head) + ported + port

    return frozenset("->".join(map(renamed, edge.split("->"))) for edge in circuit)


def as_circuit(edges: frozenset[str]) -> Circuit:
    ends = [(source, *target.rstrip(">").partition("<")) for source, target in
            (edge.split("->") for edge in edges)]  # fmt: skip
    return Circuit(
        model="m",
        task="ioi",
        method="by-hand",
        level=Level.EDGE,
        nodes=tuple(
            Node(component=name)
            for name in sorted({name for source, target, _, _ in ends for name in (source, target)})
        ),
        edges=tuple(
            Edge.model_validate({"source": source, "target": target, "port": port or None})
            for source, target, _, port in ends
        ),
    )


@given(CIRCUITS, CIRCUITS, relabellings())
def test_what_heads_are_called_changes_no_overlap_and_no_exact_null(
    a: frozenset[str], b: frozenset[str], names: Mapping[str, str]
) -> None:
    new_a, new_b = (relabelled(circuit, names) for circuit in (a, b))
    one = compare(as_circuit(a), as_circuit(b), TWO_LAYERS)
    other = compare(as_circuit(new_a), as_circuit(new_b), TWO_LAYERS)
    assert (one.components, one.edges, one.connections) == (
        other.components,
        other.edges,
        other.connections,
    )
    assert edges_by_layers(a, b, TWO_LAYERS) == edges_by_layers(new_a, new_b, TWO_LAYERS)
    parts = [found.folded_a.components for found in (one, other)]
    theirs = [found.folded_b.components for found in (one, other)]
    assert parts_by_chance(parts[0], theirs[0], TWO_LAYERS) == parts_by_chance(
        parts[1], theirs[1], TWO_LAYERS
    )
    assert saturation(a) == saturation(new_a)


@given(CIRCUITS, CIRCUITS)
def test_a_comparison_is_mirrored_where_the_circuits_change_places(
    a: frozenset[str], b: frozenset[str]
) -> None:
    one = compare(as_circuit(a), as_circuit(b), TWO_LAYERS)
    other = compare(as_circuit(b), as_circuit(a), TWO_LAYERS)
    for level in ("components", "edges", "connections"):
        ours, theirs = getattr(one, level), getattr(other, level)
        assert (ours.n_a, ours.n_b, ours.n_shared) == (theirs.n_b, theirs.n_a, theirs.n_shared)
        assert (ours.iou, ours.iom) == (theirs.iou, theirs.iom)
        assert (ours.share_of_a, ours.share_of_b) == (theirs.share_of_b, theirs.share_of_a)
    assert edges_by_layers(a, b, TWO_LAYERS) == edges_by_layers(b, a, TWO_LAYERS)


# -- saturation ------------------------------------------------------------------------------------


@given(CIRCUITS)
def test_saturation_is_a_share(circuit: frozenset[str]) -> None:
    found = saturation(circuit)
    assert found is None or 0 <= found <= 1


def test_hubs_that_all_feed_each_other_are_saturated_and_others_are_not() -> None:
    senders, receivers = ["input", "a0.h0"], ["m0", "m1", "logits"]
    together = {f"{sender}->{receiver}" for sender in senders for receiver in receivers}
    assert saturation(together) == 1
    # One hub that sends and one that receives, and half of all edges each.
    few = {f"input->{receiver}" for receiver in ("a0.h0<q>", "a0.h1<q>", "m0", "m1")}
    few |= {f"{sender}->logits" for sender in ("a1.h0", "a1.h1", "a1.h2", "m1")}
    assert saturation(few) == 0
    assert saturation(few | {"input->logits"}) == 1


def test_parts_as_busy_as_the_last_hub_are_hubs_too() -> None:
    spread = {"a0.h0->m0", "a0.h1->m1", "a0.h2->logits", "input->a1.h0<q>"}
    possible = [
        f"{source}->{target}"
        for source in ("a0.h0", "a0.h1", "a0.h2", "input")
        for target in ("m0", "m1", "logits", "a1.h0<q>")
        if leads_forward(f"{source}->{target}", parallel=False)
    ]
    assert saturation(spread) == 4 / len(possible)
    assert saturation(()) is None


def test_beside_attention_an_mlp_is_not_among_what_a_hub_can_feed() -> None:
    circuit = {"a0.h0->m1", "input->m0"}
    assert saturation(circuit) == pytest.approx(2 / 4)
    assert saturation(circuit, parallel_attn_mlp=True) == pytest.approx(2 / 3)
