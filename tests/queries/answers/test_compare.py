"""Overlap of circuits: properties that hold for any two."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.answers.overlap import compare, overlap
from registry.errors import BadInput
from registry.records import Ablation, Circuit, Edge, Level, Model, Node, Sign
from tests import examples

NAMES = st.frozensets(st.text(min_size=1, max_size=3), max_size=8)
CIRCUITS = st.builds(
    examples.circuit,
    st.integers(0, 200),
    task=st.sampled_from(["ioi", "sequence/months"]),
    n_heads=st.integers(0, 10),
)
EMPTY = Circuit(model="gpt2", task="ioi", method="published", level=Level.EDGE)


@given(NAMES, NAMES)
def test_overlap_is_symmetric(a: frozenset[str], b: frozenset[str]) -> None:
    one, other = overlap(a, b), overlap(b, a)
    assert (one.n_shared, one.iou, one.iom) == (other.n_shared, other.iou, other.iom)
    assert (one.share_of_a, one.share_of_b) == (other.share_of_b, other.share_of_a)


@given(NAMES)
def test_a_set_overlaps_itself_wholly_and_an_empty_one_not_at_all(a: frozenset[str]) -> None:
    expected = 1.0 if a else None
    found = overlap(a, a)
    assert (found.iou, found.iom, found.share_of_a, found.share_of_b) == (expected,) * 4


@given(NAMES, NAMES)
def test_relabelling_changes_nothing(a: frozenset[str], b: frozenset[str]) -> None:
    def relabelled(names: frozenset[str]) -> frozenset[str]:
        return frozenset(f"<{name}>" for name in names)

    assert overlap(relabelled(a), relabelled(b)) == overlap(a, b)


@settings(deadline=None)  # the first comparison loads scipy
@given(CIRCUITS, CIRCUITS)
def test_comparing_circuits_is_symmetric(a: Circuit, b: Circuit) -> None:
    one, other = compare(a, b), compare(b, a)
    assert (one.connections.iou, one.edges.iou, one.components.iou) == (
        other.connections.iou,
        other.edges.iou,
        other.components.iou,
    )
    assert one.shared_connections == other.shared_connections
    assert one.sign_agreement == other.sign_agreement
    assert len(one.differences) == len(other.differences)


@settings(deadline=None)  # as above
@given(CIRCUITS)
def test_a_circuit_equals_itself(a: Circuit) -> None:
    found = compare(a, a)
    assert found.components.iou == 1
    assert found.connections.iou == (1 if a.edges else None)
    assert found.sign_agreement == (1 if a.edges else None)
    assert found.differences == ()


def test_how_keys_are_counted_matters_only_where_heads_share_them() -> None:
    a, b = (EMPTY.model_copy(update={"kv_heads": one}) for one in ("grouped", "per-query-head"))
    differs = "kv heads: grouped in a, per-query-head in b"
    shared = Model(slug="gpt2", n_heads=12, n_kv_heads=4)
    assert compare(a, b, shared).differences[0] == f"{differs}; folded onto the model's own"
    alone = compare(a, b, Model(slug="gpt2", n_heads=12, n_kv_heads=12))
    assert not any(one.startswith("kv heads") for one in alone.differences)
    for unknown in (None, Model(slug="gpt2", n_heads=12)):
        with pytest.raises(BadInput, match="how heads of gpt2 share keys and values is unknown"):
            compare(a, b, unknown)
        assert compare(a, b, unknown, anyway=True).differences[0].startswith(differs)


def test_copies_of_keys_and_values_are_folded_onto_the_models_own() -> None:
    copies = _circuit({"m0->a1.h0<k>": 1.0, "m0->a1.h1<k>": 2.0, "m0->a1.h1<q>": 4.0})
    grouped = _circuit({"m0->a1.kv0<k>": 5.0, "m0->a1.h1<q>": 4.0})
    model = Model(slug="gpt2", n_heads=4, n_kv_heads=2)
    given = {"kv_heads": "per-query-head"}
    found = compare(
        copies.model_copy(update=given), grouped.model_copy(update={"kv_heads": "grouped"}), model
    )
    assert found.connections.iou == found.edges.iou == 1
    assert found.shared_components == {"m0", "a1.h1", "a1.kv0"}
    assert found.folded_a.effects == {"m0->a1.kv0<k>": 3.0, "m0->a1.h1<q>": 4.0}
    exact = copies.model_copy(update={**given, "parameters": {"method": "exact"}})
    found = compare(exact, grouped.model_copy(update={"kv_heads": "grouped"}), model)
    assert found.folded_a.effects == {"m0->a1.kv0<k>": None, "m0->a1.h1<q>": 4.0}


def test_ports_are_folded_in_edges_and_told_in_connections() -> None:
    a = _circuit({"m0->a1.h0<k>": 1.0, "m0->a1.h0<q>": 1.0})
    b = _circuit({"m0->a1.h0<v>": 1.0})
    found = compare(a, b)
    assert (found.edges.iou, found.connections.iou) == (1, 0)


def test_token_and_position_embeddings_count_as_input_beside_one() -> None:
    found = compare(_circuit({"embed->m0": 1.0, "pos_embed->m0": 2.0}), _circuit({"input->m0": 1}))
    assert found.connections.iou == 1
    assert found.differences == (
        "input: embed and pos_embed in a, input in b; embed and pos_embed count as input",
    )


def test_effects_are_correlated_by_rank() -> None:
    a = _circuit({"m0->m1": 1.0, "m0->m2": 2.0, "m0->m3": 30.0})
    b = _circuit({"m0->m1": -3.0, "m0->m2": -2.0, "m0->m3": -1.0})
    assert compare(a, b).rank_correlation == pytest.approx(1)
    unsigned = b.model_copy(update={"sign": Sign.UNSIGNED})
    assert compare(a, unsigned).rank_correlation == pytest.approx(-1)  # of the sizes


def test_empty_circuits_have_no_overlap_rather_than_a_division_by_zero() -> None:
    found = compare(EMPTY, EMPTY)
    assert (found.connections.n_shared, found.connections.iou, found.connections.iom) == (
        0,
        None,
        None,
    )
    assert found.sign_agreement is None


def test_known_circuits_overlap_as_counted_by_hand() -> None:
    a = _circuit({"input->a0.h1<v>": 1.0, "a0.h1->m2": 0.5, "m2->logits": -0.5})
    b = _circuit({"input->a0.h1<v>": 2.0, "a0.h1->m2": -0.5, "input->a0.h1<k>": 1.0, "m2->m3": 1})
    found = compare(a, b)
    assert (found.connections.n_a, found.connections.n_b, found.connections.n_shared) == (3, 4, 2)
    assert (found.connections.iou, found.connections.iom) == (2 / 5, 2 / 3)
    assert (found.connections.share_of_a, found.connections.share_of_b) == (2 / 3, 2 / 4)
    assert (found.components.n_a, found.components.n_b, found.components.n_shared) == (4, 4, 3)
    assert (found.n_signed, found.n_same_sign, found.sign_agreement) == (2, 1, 0.5)
    assert found.shared_connections == {"input->a0.h1<v>", "a0.h1->m2"}


def test_positions_are_folded_before_comparing() -> None:
    a = _circuit({"a0.h1@S1->m2": 1.0, "a0.h1@S2->m2": -3.0})
    b = _circuit({"a0.h1->m2": -1.0})
    found = compare(a, b)
    assert (found.connections.iou, found.components.iou) == (1, 1)
    assert found.sign_agreement == 1


def test_merged_ports_are_compared_without_ports_and_said_so() -> None:
    a = _circuit({"input->a0.h1": 3.0, "a0.h1->m2": 0.5})
    b = _circuit({"input->a0.h1<v>": 2.0, "input->a0.h1<k>": -1.0, "a0.h1->m2": 0.5})
    found = compare(a, b)
    assert (found.connections.n_a, found.connections.n_b, found.connections.n_shared) == (2, 2, 2)
    assert found.shared_connections == {"input->a0.h1", "a0.h1->m2"}
    assert (found.n_signed, found.n_same_sign) == (2, 2)
    assert found.differences == (
        "ports of heads: merged in a, separate in b; connections are compared without them",
    )
    some = _circuit({"input->a0.h1": 3.0, "input->a0.h1<k>": -1.0})
    assert compare(some, some).differences == (
        "ports of heads: merged for some edges in a, merged for some edges in b;"
        " connections are compared without them",
    )


def test_ports_do_not_differ_where_they_are_merged_in_both_or_one_enters_no_head() -> None:
    merged = _circuit({"input->a0.h1": 3.0, "a0.h1->m2": 0.5})
    headless = _circuit({"input->m2": 3.0})
    assert compare(merged, merged).differences == compare(merged, headless).differences == ()
    assert compare(merged, merged).connections.iou == 1


def test_circuits_of_different_models_are_refused() -> None:
    with pytest.raises(BadInput, match=r"is of gpt2, .* of pythia"):
        compare(examples.circuit(1), examples.circuit(1, model="pythia"))


def test_what_makes_a_comparison_unsound_is_refused_or_named() -> None:
    a = examples.circuit(1)
    other = a.model_copy(update={"ablation": Ablation.ZERO, "level": Level.FEATURE})
    with pytest.raises(BadInput, match=r"level: edge in a, feature in b; ablation: resample in a"):
        compare(a, other)
    assert compare(a, other, anyway=True).differences == (
        "level: edge in a, feature in b",
        "ablation: resample in a, zero in b",
    )
    unknown = a.model_copy(update={"ablation": None})
    assert compare(a, unknown).differences == ("ablation: resample in a, unknown in b",)


def test_nodes_beside_edges_compare_by_components() -> None:
    a = examples.circuit(1)
    nodes = a.model_copy(update={"level": Level.NODE, "edges": ()})
    found = compare(a, nodes)
    assert (found.components.iou, found.connections.n_shared) == (1, 0)
    assert found.differences == ("level: edge in a, node in b; only components are compared",)


def test_signs_are_not_compared_where_effects_have_none() -> None:
    a = examples.circuit(1)
    unsigned = a.model_copy(update={"sign": Sign.UNSIGNED})
    assert compare(a, unsigned).sign_agreement is None
    assert compare(a, unsigned).differences == ("sign: helps-positive in a, unsigned in b",)
    assert compare(unsigned, unsigned).differences == (
        "sign: unsigned in both, so the agreement of signs is unknown",
    )


def _circuit(effects: dict[str, float]) -> Circuit:
    edges = []
    for text, effect in effects.items():
        source, _, target = text.partition("->")
        target, _, port = target.rstrip(">").partition("<")
        edges.append(
            Edge.model_validate(
                {"source": source, "target": target, "port": port or None, "effect": effect}
            )
        )
    keys = {key for edge in edges for key in (edge.source, edge.target)}
    nodes = []
    for key in sorted(keys):
        component, _, position = key.partition("@")
        nodes.append(Node(component=component, position=position or None))
    return Circuit(
        model="gpt2",
        task="ioi",
        method="by-hand",
        level=Level.EDGE,
        sign=Sign.HELPS_POSITIVE,
        nodes=tuple(nodes),
        edges=tuple(edges),
    )
