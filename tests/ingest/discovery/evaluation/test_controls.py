from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingest.discovery import (
    CircuitEvaluation,
    EdgeScores,
    RandomComparison,
    attribute_edges,
    compare_with_random,
    evaluate_circuits,
    prepare_setting,
    random_circuits,
)
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from tests.ingest.discovery.decoders import bridge, clean_ids, corrupt_ids, metric

SHAPES = st.builds(
    lambda layers, groups, size, parallel: EdgeSpace(layers, groups * size, groups, parallel),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
)
TINY = EdgeSpace(n_layers=2, n_heads=1, n_kv_heads=1)
GROUPED = EdgeSpace(n_layers=2, n_heads=2, n_kv_heads=1)
PARALLEL = EdgeSpace(n_layers=3, n_heads=1, n_kv_heads=1, parallel=True)
SMOLLM2 = EdgeSpace(n_layers=30, n_heads=9, n_kv_heads=3)
# Quantiles .999 of the chi-squared distribution by degrees of freedom; any table of it.
CHI_SQUARED_999 = {3: 16.27, 6: 22.46, 7: 24.32, 26: 54.05, 35: 66.62}


def every_edge(space: EdgeSpace) -> list[str]:
    return [space.edge_id(*cell) for cell in space.edges()]


def degrees(edges: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Edges out of each sender and into each receiver, ports told apart."""
    ends = [edge.split("->") for edge in edges]
    return Counter(sender for sender, _ in ends), Counter(receiver for _, receiver in ends)


def found_circuit(space: EdgeSpace, n: int, seed: int) -> list[str]:
    """The best edges where some nodes count for more than others, as they do in models."""
    generator = torch.Generator().manual_seed(seed)
    names = [*space.senders, *(receiver.node for receiver in space.receivers)]
    weight = {
        node: float(torch.randn((), generator=generator).exp()) for node in sorted(set(names))
    }
    weight |= {"input": 8.0, "logits": 8.0}
    senders = torch.tensor([weight[name] for name in space.senders])
    receivers = torch.tensor([weight[receiver.node] for receiver in space.receivers])
    noise = torch.randn(len(senders), len(receivers), generator=generator)
    matrix = (senders[:, None] * receivers * noise).double()
    scores = EdgeScores(matrix, space, torch.zeros(0), None)
    return [edge.id for edge in scores.top(n).edges]


def as_graph(edges: Iterable[str], space: EdgeSpace) -> networkx.DiGraph[str]:
    """Nodes joined by edges, and each key/value head to the query heads that read it."""
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(["input", "logits"])
    for edge in edges:
        sender, receiver = edge.split("->")
        node = receiver.partition("<")[0]
        graph.add_edge(sender, node)
        graph.add_edges_from((node, head) for head in space.query_heads_of(node))
    return graph


def on_no_path(edges: Iterable[str], space: EdgeSpace) -> list[str]:
    graph = as_graph(edges, space)
    after = {"input", *networkx.descendants(graph, "input")}
    before = {"logits", *networkx.ancestors(graph, "logits")}
    ends = {edge: edge.partition("<")[0].split("->") for edge in edges}
    return [
        edge for edge, (sender, node) in ends.items() if sender not in after or node not in before
    ]


def with_the_degrees_of(edges: list[str], space: EdgeSpace) -> set[frozenset[str]]:
    """All circuits with these degrees: senders for each receiver, in every way that adds up."""
    out_of, into = degrees(edges)
    choices = [
        [
            [f"{sender}->{receiver.name}" for sender in senders]
            for senders in itertools.combinations(
                space.senders[: receiver.n_sources], into[receiver.name]
            )
        ]
        for receiver in space.receivers
        if into[receiver.name]
    ]
    every = (list(itertools.chain(*parts)) for parts in itertools.product(*choices))
    return {frozenset(chosen) for chosen in every if degrees(chosen)[0] == out_of}


# -- what random circuits keep ---------------------------------------------------------------------


@given(SHAPES, st.integers(0, 2**16), st.data())
def test_degrees_are_kept_and_edges_are_edges_each_once(
    space: EdgeSpace, seed: int, data: st.DataObject
) -> None:
    every = every_edge(space)
    circuit = data.draw(st.lists(st.sampled_from(every), unique=True))
    for drawn in random_circuits(circuit, space, 3, seed):
        assert degrees(drawn) == degrees(circuit)
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(every)


@given(SHAPES, st.integers(0, 2**16), st.data())
def test_a_seed_draws_the_same_circuits_however_many_and_in_whatever_order_edges_come(
    space: EdgeSpace, seed: int, data: st.DataObject
) -> None:
    circuit = data.draw(st.lists(st.sampled_from(every_edge(space)), unique=True))
    drawn = random_circuits(circuit, space, 4, seed)
    assert random_circuits(data.draw(st.permutations(circuit)), space, 2, seed) == drawn[:2]
    assert random_circuits(circuit + circuit[:1], space, 1, seed) == drawn[:1]


@pytest.mark.parametrize(
    "space",
    [EdgeSpace(3, 4, 4), EdgeSpace(3, 4, 2), EdgeSpace(3, 6, 1), EdgeSpace(3, 4, 2, parallel=True)],
    ids=["multi-head", "grouped", "one-key-value-head", "parallel"],
)
@pytest.mark.parametrize("n", [40, 70, 100])
def test_every_edge_stays_on_a_path_from_input_to_logits(space: EdgeSpace, n: int) -> None:
    changed = 0
    for seed in range(20):
        circuit = found_circuit(space, n, seed)
        assert on_no_path(circuit, space) == []
        for drawn in random_circuits(circuit, space, 5, seed):
            assert on_no_path(drawn, space) == []
            assert set(as_graph(drawn, space)) == set(as_graph(circuit, space))
            changed += set(drawn) != set(circuit)
    assert changed > 50


def test_the_check_of_paths_sees_a_dangling_edge() -> None:
    space = EdgeSpace(2, 2, 1)
    whole = ["input->a0.kv0<v>", "a0.h1->logits", "input->a0.h1<q>"]
    assert on_no_path(whole, space) == []
    assert on_no_path([*whole, "m0->logits", "input->m1"], space) == ["m0->logits", "input->m1"]


# -- which ones are drawn --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "circuit", "n_possible"),
    [
        (TINY, "input->a0.h0<q> a0.h0->m0 m0->m1 m1->logits input->logits", 4),
        (
            TINY,
            "input->a0.h0<v> input->m0 a0.h0->m1 m0->a1.h0<v> a1.h0->logits m1->logits",
            8,
        ),
        (
            PARALLEL,
            "input->m0 input->a0.h0<v> m0->m1 a0.h0->m1 m1->m2 m0->m2 m2->logits input->logits",
            7,
        ),
        (
            GROUPED,
            "input->a0.kv0<v> input->a0.h1<q> a0.h0->a1.kv0<k> a0.h1->m1 m0->m1 input->m0 "
            "m1->logits a1.h0->logits",
            27,
        ),
        (
            GROUPED,
            "input->a0.kv0<v> a0.h0->a1.kv0<k> a0.h1->m1 m0->a1.h0<q> input->m0 m1->logits "
            "a1.h0->logits",
            36,
        ),
    ],
)
def test_all_circuits_with_these_degrees_are_drawn_equally_often(
    space: EdgeSpace, circuit: str, n_possible: int
) -> None:
    edges, n_each = circuit.split(), 100
    possible = with_the_degrees_of(edges, space)
    assert len(possible) == n_possible
    counts = Counter(map(frozenset, random_circuits(edges, space, n_each * n_possible, seed=1)))
    assert set(counts) == possible
    chi_squared = sum((count - n_each) ** 2 / n_each for count in counts.values())
    assert chi_squared < CHI_SQUARED_999[n_possible - 1]


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_random_circuits_have_as_much_of_the_found_one_as_of_each_other(share: float) -> None:
    circuit = found_circuit(SMOLLM2, int(share * SMOLLM2.n_edges), seed=3)
    drawn = [set(edges) for edges in random_circuits(circuit, SMOLLM2, 6, seed=0)]
    of_found = statistics.mean(len(edges & set(circuit)) for edges in drawn)
    of_each_other = statistics.mean(len(a & b) for a, b in itertools.combinations(drawn, 2))
    assert of_found < 0.8 * len(circuit)
    assert of_found == pytest.approx(of_each_other, abs=0.03 * len(circuit))


@pytest.mark.parametrize(
    "circuit",
    [
        [],
        ["input->logits"],
        ["input->m0", "m0->logits"],
        every_edge(TINY),
    ],
    ids=["none", "one edge", "one path", "the whole model"],
)
def test_a_circuit_without_alternatives_comes_back_as_it_is(circuit: list[str]) -> None:
    assert random_circuits(circuit, TINY, 2, seed=0) == [circuit, circuit]


def test_an_edge_of_another_model_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"'input->a7\.h0<q>' is not an edge of a model with 2 layers"
    ):
        random_circuits(["input->a7.h0<q>"], TINY, 1, seed=0)


@pytest.mark.parametrize("n", [0, -3])
def test_no_random_circuits_at_all_are_refused(n: int) -> None:
    with pytest.raises(BadInput, match=f"must be at least 1; got {n}"):
        random_circuits(["input->logits"], TINY, n, seed=0)


# -- beside the found circuit ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kv_heads"), [("gpt2", "grouped"), ("llama", "per-query-head")])
def test_a_circuit_and_its_random_ones_are_measured_as_they_are_alone(
    name: str, kv_heads: str
) -> None:
    model = bridge(name)
    prompts = (clean_ids(), corrupt_ids(), metric())
    scores = attribute_edges(prepare_setting(model, *prompts, kv_heads=kv_heads), method="eap")
    circuit = [edge.id for edge in scores.top(30).edges]
    found = compare_with_random(
        prepare_setting(model, *prompts, kv_heads=kv_heads), circuit, n=4, seed=2
    )
    controls = random_circuits(circuit, scores.space, 4, seed=2)
    alone = evaluate_circuits(
        prepare_setting(model, *prompts, kv_heads=kv_heads), [circuit, *controls]
    )
    for ours, expected in zip([found.found, *found.controls], alone, strict=True):
        torch.testing.assert_close(ours.circuit, expected.circuit, atol=1e-6, rtol=0)
    kept = [len(set(circuit) & set(control)) / len(circuit) for control in controls]
    assert found.shares_kept == pytest.approx(kept)
    assert max(kept) < 1
    assert [on_no_path(control, scores.space) for control in controls] == [[]] * 4


def test_clean_and_ablated_runs_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = bridge("gpt2")
    runs = 0

    def counted(*arguments: Any) -> None:
        nonlocal runs
        runs += 1

    model.original_model.register_forward_pre_hook(counted)
    prompts = (clean_ids(), corrupt_ids(), metric())
    n_runs = []
    for n in (1, 1, 6):  # the first proves the model at this length, once
        runs = 0
        compare_with_random(
            prepare_setting(model, *prompts), ["input->m0", "m0->logits", "input->logits"], n=n
        )
        n_runs.append(runs)
    assert n_runs[2] - n_runs[1] == 5


def test_deciles_are_interpolated_between_random_circuits() -> None:
    values = [0.3, -0.2, 0.1, 1.4, 0.0, 0.7]
    found = comparison(values, full=1.0)
    assert found.deciles == pytest.approx(statistics.quantiles(values, n=10, method="inclusive"))


def test_deciles_of_one_random_circuit_are_its_faithfulness() -> None:
    assert comparison([0.25], full=1.0).deciles == pytest.approx([0.25] * 9)


def test_deciles_are_unknown_where_faithfulness_is() -> None:
    assert comparison([0.3, 0.4], full=0.0).deciles is None


def comparison(values: list[float], full: float) -> RandomComparison:
    def one(value: float) -> CircuitEvaluation:
        circuit, empty, whole = (torch.tensor([mean]).double() for mean in (value, 0.0, full))
        return CircuitEvaluation(circuit, empty, whole)

    return RandomComparison(one(1.0), tuple(map(one, values)), (0.5,) * len(values))
