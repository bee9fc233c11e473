from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingest.discovery import EdgeScores, PrunedCircuit
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace

MULTI_HEAD = EdgeSpace(n_layers=2, n_heads=2, n_kv_heads=2)
GROUPED = EdgeSpace(n_layers=2, n_heads=4, n_kv_heads=2)
NONE = torch.zeros(0)


def scores(space: EdgeSpace, **by_edge: float) -> EdgeScores:
    matrix = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    for edge, score in by_edge.items():
        matrix[space.locate(edge)] = score
    return EdgeScores(matrix, space, NONE, NONE)


def edges(circuit: PrunedCircuit) -> list[str]:
    return [edge.id for edge in circuit.edges]


def nodes(circuit: PrunedCircuit) -> list[str]:
    return [node.id for node in circuit.nodes]


def test_the_best_edges_come_first() -> None:
    found = scores(MULTI_HEAD, **{"input->logits": 1.0, "input->m0": -3.0, "m0->logits": 2.0})
    assert edges(found.top(3)) == ["input->m0", "m0->logits", "input->logits"]


def test_signed_takes_the_most_positive() -> None:
    found = scores(MULTI_HEAD, **{"input->logits": 1.0, "input->m0": -3.0, "m0->logits": 2.0})
    assert edges(found.top(2, by="signed")) == ["input->logits"]


def test_edges_on_no_path_are_pruned_and_counted() -> None:
    found = scores(
        MULTI_HEAD,
        **{
            "input->a0.h0<v>": 9.0,
            "a0.h0->logits": 8.0,
            "input->a0.h1<q>": 7.0,  # leads nowhere
            "a0.h1->a1.h0<k>": 6.0,  # so does this, one step on
            "m0->m1": 5.0,  # nothing reaches it
            "m1->logits": 4.0,
        },
    ).top(6)
    assert edges(found) == ["input->a0.h0<v>", "a0.h0->logits"]
    assert nodes(found) == ["input", "a0.h0", "logits"]
    assert (found.n_selected, found.n_pruned) == (6, 4)


def test_edges_that_form_no_path_leave_nothing() -> None:
    found = scores(MULTI_HEAD, **{"m0->m1": 1.0}).top(1)
    assert (found.edges, found.nodes, found.n_pruned) == ((), (), 1)


def test_a_path_leads_through_a_key_value_head_to_its_query_heads() -> None:
    found = scores(
        GROUPED, **{"input->a0.kv1<v>": 3.0, "a0.h2->logits": 2.0, "a0.h1->logits": 1.0}
    ).top(3)
    assert edges(found) == ["input->a0.kv1<v>", "a0.h2->logits"]
    assert nodes(found) == ["input", "a0.kv1", "a0.h2", "logits"]


def test_a_key_value_head_whose_query_heads_lead_nowhere_is_pruned() -> None:
    found = scores(GROUPED, **{"input->a0.kv0<k>": 3.0, "input->logits": 2.0}).top(2)
    assert edges(found) == ["input->logits"]
    assert found.n_pruned == 1


def test_an_edge_knows_its_ends() -> None:
    (edge, _) = scores(GROUPED, **{"input->a0.kv1<v>": 3.0, "a0.h2->logits": 2.0}).top(2).edges
    assert (edge.source, edge.target, edge.port, edge.score) == ("input", "a0.kv1", "v", 3.0)


def test_a_node_counts_its_edges_in_the_whole_model() -> None:
    found = scores(
        MULTI_HEAD, **{"input->m0": 5.0, "m0->logits": 4.0, "m0->m1": -1.0, "m0->a1.h0<q>": 0.5}
    ).top(2)
    assert {node.id: node.effect for node in found.nodes} == {
        "input": 5.0,
        "m0": 3.5,
        "logits": None,
    }


def test_a_key_value_head_counts_what_comes_in() -> None:
    found = scores(
        GROUPED, **{"input->a1.kv0<k>": 1.0, "m0->a1.kv0<v>": 2.0, "a0.h3->a1.kv0<v>": -0.5}
    )
    assert found.node_effects()["a1.kv0"] == 2.5


def test_equal_scores_are_taken_in_the_order_of_the_model() -> None:
    found = scores(MULTI_HEAD)
    assert found.top(5) == found.top(5)
    chosen = EdgeScores(torch.ones_like(found.matrix), MULTI_HEAD, NONE, NONE).top(1)
    assert chosen.n_selected == 1


def test_scores_are_listed_for_every_edge_and_only_there() -> None:
    found = scores(GROUPED, **{"input->logits": 2.0})
    listed = found.to_dict()
    assert len(listed) == GROUPED.n_edges == int(found.mask.sum())
    assert listed["input->logits"] == 2.0
    assert found.mask.shape == (len(found.senders), len(found.receivers))


@given(st.integers(1, GROUPED.n_edges), st.integers(0, 2**16), st.sampled_from(["q", "abs"]))
def test_every_node_of_a_circuit_lies_on_a_path(n: int, seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(GROUPED.senders), len(GROUPED.receivers))
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    circuit = EdgeScores(matrix, GROUPED, NONE, NONE).top(
        n, "absolute" if kind == "abs" else "signed"
    )
    into = {edge.target for edge in circuit.edges} | {
        head for edge in circuit.edges for head in GROUPED.query_heads_of(edge.target)
    }
    out_of = {edge.source for edge in circuit.edges}
    for node in nodes(circuit):
        assert node == "input" or node in into
        assert node == "logits" or out_of & {node, *GROUPED.query_heads_of(node)}
    assert {edge.source for edge in circuit.edges} <= set(nodes(circuit))
    assert {edge.target for edge in circuit.edges} <= set(nodes(circuit))
    assert len(circuit.edges) + circuit.n_pruned == circuit.n_selected == n


@pytest.mark.parametrize("n", [0, -1, MULTI_HEAD.n_edges + 1])
def test_a_number_of_edges_no_model_has_is_refused(n: int) -> None:
    with pytest.raises(BadInput, match=f"must be 1 to {MULTI_HEAD.n_edges}; got {n}"):
        scores(MULTI_HEAD).top(n)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(BadInput, match="'absolute' or 'signed'; got 'size'"):
        scores(MULTI_HEAD).top(1, by="size")  # type: ignore[arg-type]
