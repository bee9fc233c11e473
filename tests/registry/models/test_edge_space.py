from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadInput
from registry.identifiers import can_feed, parse_connection, parse_local
from registry.models.edge_space import EdgeSpace

SHAPES = st.builds(
    lambda layers, groups, size, parallel: EdgeSpace(layers, groups * size, groups, parallel),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)


@given(SHAPES, st.data())
def test_the_edges_from_senders_are_all_that_leave_them(
    space: EdgeSpace, data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.sampled_from(space.senders)))
    found = list(space.edges_from(chosen))
    every = {space.edge_id(row, column) for row, column in space.edges()}
    assert set(found) == {edge for edge in every if edge.partition("->")[0] in chosen}
    assert len(found) == len(set(found))


def test_what_sends_nothing_has_no_edges() -> None:
    with pytest.raises(BadInput, match=r"'a1\.kv0' does not write to the residual stream"):
        EdgeSpace(2, 4, 2).edges_from(["a1.kv0"])


def test_smollm2_has_70651_edges() -> None:
    assert EdgeSpace(n_layers=30, n_heads=9, n_kv_heads=3).n_edges == 70_651


def test_gpt2_small_has_32491_edges() -> None:
    assert EdgeSpace(n_layers=12, n_heads=12, n_kv_heads=12).n_edges == 32_491


@pytest.mark.parametrize(
    ("n_kv_heads", "parallel", "n_edges"), [(4, False, 262), (4, True, 250), (2, False, 190)]
)
def test_tiny_models_have_the_edges_of_the_reference(
    n_kv_heads: int, parallel: bool, n_edges: int
) -> None:
    assert EdgeSpace(3, 4, n_kv_heads, parallel).n_edges == n_edges


@given(SHAPES)
def test_edges_are_the_pairs_that_can_feed(space: EdgeSpace) -> None:
    found = set(space.edges())
    for row, sender in enumerate(space.senders):
        for column, receiver in enumerate(space.receivers):
            expected = can_feed(
                parse_local(sender),
                parse_local(receiver.node),
                receiver.port,
                parallel_attn_mlp=space.parallel,
            )
            assert ((row, column) in found) == expected
    assert len(found) == space.n_edges


@given(SHAPES)
def test_every_edge_is_found_by_its_id_and_is_a_connection(space: EdgeSpace) -> None:
    for row, column in space.edges():
        edge = space.edge_id(row, column)
        assert space.locate(edge) == (row, column)
        assert str(parse_connection(f"m/{edge}")) == f"m/{edge}"


@given(SHAPES)
def test_rows_and_columns_of_a_block_hold_its_names(space: EdgeSpace) -> None:
    names = [receiver.name for receiver in space.receivers]
    for layer in range(space.n_layers):
        heads = [f"a{layer}.h{head}" for head in range(space.n_heads)]
        assert list(space.senders[space.head_rows(layer)]) == heads
        assert space.senders[space.mlp_row(layer)] == f"m{layer}"
        assert names[space.mlp_column(layer)] == f"m{layer}"
        ports: list[str] = []
        for port in ("q", "k", "v"):
            nodes = space.nodes_with(layer, port)
            ports += [f"{node}<{port}>" for node in nodes]
            assert names[space.port_columns(layer, port)] == [f"{node}<{port}>" for node in nodes]
        assert names[space.attention_columns(layer)] == ports
    assert names[space.logits_column] == "logits"


@given(SHAPES)
def test_key_value_heads_serve_each_query_head_once(space: EdgeSpace) -> None:
    served = [
        head
        for node in space.nodes_with(0, "k")
        for head in space.query_heads_of(node)
    ]  # fmt: skip
    assert served == (space.nodes_with(0, "q") if space.grouped else [])


@pytest.mark.parametrize(
    "edge", ["a0.h0->a0.h1<q>", "m0->m0", "m1->a1.h0<v>", "input->a0.h0<k>", "x", "input->m9"]
)
def test_what_is_no_edge_is_refused_by_name(edge: str) -> None:
    with pytest.raises(BadInput, match="is not an edge"):
        EdgeSpace(2, 4, 2).locate(edge)


def test_query_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match="9 query heads cannot share 2"):
        EdgeSpace(1, 9, 2)


def test_a_decoder_without_layers_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one layer"):
        EdgeSpace(0, 1, 1)
