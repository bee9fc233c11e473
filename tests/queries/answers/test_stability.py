"""How much circuits of one task agree, counted again by hand."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy
import pytest

from queries.answers.overlap import compare
from queries.answers.stability import By, Stability, stability
from queries.circuits.replicates import group_alike
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Ablation, Circuit, Edge, Evaluation, Level, Node, PromptSet, Sign
from tests import examples
from tests.queries import small_registry

PROMPTS = [PromptSet(id=digit * 64, task="ioi", seed=int(digit), n_prompts=32) for digit in "1234"]


def found(number: int, prompts: int, **changes: Any) -> Circuit:
    """A circuit on the prompts of one seed."""
    fields = {
        "prompt_set": PROMPTS[prompts].id,
        "parameters": {"method": "eap"},
        "selection": {"top": 20, "dangling_removed": number},
        **changes,
    }
    return examples.circuit(number).model_copy(update=fields)


BY_INPUTS = {"method": "eap-ig-inputs", "steps": 5}
EAP = [found(n, n) for n in range(4)]
INPUTS = [found(10 + n, n, parameters=BY_INPUTS) for n in range(2)]
MEAN = [
    found(
        20 + n, n, ablation=Ablation.MEAN, parameters={"method": "eap", "reference": PROMPTS[n].id}
    )
    for n in range(2)
]
UNSIGNED = found(30, 0, sign=Sign.UNSIGNED)
REPEATED = found(31, 0)  # as EAP[0]: the same way, on the same prompts
CONSENSUS = found(
    32,
    0,
    prompt_set=None,
    method="edge-attribution-consensus",
    parameters={"circuits": 4},
    selection={"frequency": 0.5},
)
OVERLAP = Evaluation(circuit=CONSENSUS.id, task="ioi", measure="edge_overlap", value=0.25)
NODES = found(33, 0, level=Level.NODE, method="published", edges=(), selection=None)
MERGED = Circuit(
    model="gpt2",
    task="ioi",
    method="merged",
    level=Level.EDGE,
    nodes=(Node(component=EAP[0].edges[0].source), Node(component="a11.h0")),
    edges=(Edge(source=EAP[0].edges[0].source, target="a11.h0"),),
)
COMPARED = [*EAP, *INPUTS, *MEAN, UNSIGNED]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("stability") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *PROMPTS, *COMPARED, CONSENSUS, OVERLAP)
        # Measured, so that of two on the same prompts it is the one to keep.
        registry.record(NODES, REPEATED, examples.faithfulness(EAP[0], 0.9))
        yield registry


@pytest.fixture(scope="module")
def by_seeds(registry: Registry) -> Stability:
    return stability(registry, "ioi")


@pytest.fixture(scope="module")
def by_methods(registry: Registry) -> Stability:
    return stability(registry, "ioi", by="methods", share=0.3)


def connections(circuit: Circuit) -> set[str]:
    return {f"gpt2/{edge.connection}" for edge in circuit.edges}


def iou(a: Circuit, b: Circuit) -> float:
    value = compare(a, b, anyway=True).connections.iou
    assert value is not None
    return value


def test_groups_hold_what_was_found_the_same_way_on_other_prompts(by_seeds: Stability) -> None:
    expected = [{one.id for one in group} for group in (EAP, INPUTS, MEAN, [UNSIGNED])]
    members: dict[int, set[str]] = defaultdict(set)
    for one in by_seeds.circuits:
        members[one.group].add(one.circuit)
    assert sorted(members.values(), key=sorted) == sorted(expected, key=sorted)
    assert [group.n_circuits for group in by_seeds.groups] == [4, 2, 2, 1]
    ways = {(group.way.variant, group.way.ablation) for group in by_seeds.groups}
    assert ways == {
        ("eap, sign helps-positive", "resample"),
        ("eap, sign helps-positive", "mean"),
        ("eap-ig-inputs, sign helps-positive, steps 5", "resample"),
        ("eap, sign unsigned", "resample"),
    }
    assert {group.way.rule for group in by_seeds.groups} == {"top 20"}
    seeds = {one.circuit: one.prompt_seed for one in by_seeds.circuits}
    assert [seeds[one.id] for one in EAP] == [1, 2, 3, 4]


def test_overlaps_within_groups_are_those_of_their_pairs(by_seeds: Stability) -> None:
    for group, members in zip(by_seeds.groups, groups_of(by_seeds), strict=True):
        values = [iou(a, b) for a, b in itertools.combinations(members, 2)]
        if values:
            assert group.overlaps is not None
            assert group.overlaps.n_pairs == len(values)
            assert group.overlaps.mean == pytest.approx(fmean(values))
            assert (group.overlaps.smallest, group.overlaps.largest) == pytest.approx(
                (min(values), max(values))
            )
        else:
            assert group.overlaps is None
    within = [iou(a, b) for g in groups_of(by_seeds) for a, b in itertools.combinations(g, 2)]
    assert by_seeds.overlaps is not None
    assert by_seeds.overlaps.mean == pytest.approx(fmean(within))


def test_any_two_circuits_have_an_overlap(by_seeds: Stability) -> None:
    circuits = [one for group in groups_of(by_seeds) for one in group]
    for a, row in zip(circuits, by_seeds.iou, strict=True):
        assert row == pytest.approx([iou(a, b) for b in circuits])


def test_overlaps_between_groups_are_those_of_pairs_across(by_methods: Stability) -> None:
    groups = groups_of(by_methods)
    assert set(by_methods.between) == set(itertools.combinations(range(1, 5), 2))
    for (one, other), overlaps in by_methods.between.items():
        values = [iou(a, b) for a in groups[one - 1] for b in groups[other - 1]]
        assert overlaps.n_pairs == len(values)
        assert overlaps.mean == pytest.approx(fmean(values))
    across = [iou(a, b) for g, h in itertools.combinations(groups, 2) for a in g for b in h]
    assert by_methods.overlaps is not None
    assert by_methods.overlaps.n_pairs == len(across)
    assert by_methods.overlaps.mean == pytest.approx(fmean(across))


def test_by_seeds_connections_are_counted_within_each_group(by_seeds: Stability) -> None:
    groups = groups_of(by_seeds)
    assert {one.group for one in by_seeds.connections} == {1, 2, 3}  # the fourth has one circuit
    for number in (1, 2, 3):
        members = groups[number - 1]
        rows = {one.connection: one for one in by_seeds.connections if one.group == number}
        assert set(rows) == set().union(*map(connections, members))
        for name, row in rows.items():
            effects = [
                edge.effect
                for one in members
                for edge in one.edges
                if f"gpt2/{edge.connection}" == name
            ]
            assert (row.n_circuits, row.share) == (len(effects), len(effects) / len(members))
            known = [effect for effect in effects if effect is not None]
            assert row.effect == pytest.approx(fmean(known))
            assert (row.smallest, row.largest) == (min(known), max(known))
            assert (row.n_signed, row.n_positive) == (len(known), sum(e > 0 for e in known))
        group = by_seeds.groups[number - 1]
        assert group.n_parts == len(rows)
        assert group.n_in_all == sum(row.share == 1 for row in rows.values())
        assert group.n_consensus == sum(row.share >= 0.5 for row in rows.values())
    shares = [one.share for one in by_seeds.connections]
    assert shares == sorted(shares, reverse=True)
    assert by_seeds.consensus == tuple(o for o in by_seeds.connections if o.share >= 0.5)


def test_by_methods_every_group_weighs_the_same(by_methods: Stability) -> None:
    groups = groups_of(by_methods)
    everything = set().union(*(connections(one) for group in groups for one in group))
    assert {one.connection for one in by_methods.connections} == everything
    for row in by_methods.connections:
        shares = [fmean(row.connection in connections(one) for one in group) for group in groups]
        assert row.share == pytest.approx(fmean(shares))
        assert row.group is None
    # One of four circuits and the single one of its group: 1/16 and 1/4, where a count has 1/9.
    assert {round(row.share, 4) for row in by_methods.connections} >= {0.0625, 0.25}


def test_effects_without_a_sign_are_counted_and_not_averaged(by_methods: Stability) -> None:
    alone = connections(UNSIGNED) - set().union(*(connections(o) for o in COMPARED[:-1]))
    rows = [one for one in by_methods.connections if one.connection in alone]
    assert rows
    assert {(row.n_circuits, row.effect, row.n_signed) for row in rows} == {(1, None, 0)}


def test_a_share_that_is_the_bound_except_for_rounding_is_in_the_consensus(
    by_methods: Stability,
) -> None:
    share = float(numpy.mean([0.1, 0.7]))
    assert share < 0.4
    part = replace(by_methods.connections[0], share=share)
    assert replace(by_methods, frequent=(part,), share=0.4).consensus == (part,)


def test_a_recorded_consensus_stands_beside_and_not_among_them(by_seeds: Stability) -> None:
    (recorded,) = by_seeds.recorded
    assert recorded.circuit == CONSENSUS.id
    assert (recorded.n_circuits, recorded.share, recorded.mean_overlap) == (4, 0.5, 0.25)
    assert recorded.n_parts == len(connections(CONSENSUS))
    assert CONSENSUS.id not in {one.circuit for one in by_seeds.circuits}


def test_what_is_left_out_is_said(by_seeds: Stability) -> None:
    assert by_seeds.notes == (
        "circuits without edges are omitted: 1; --over components compares them too",
        "circuits found the same way on the same prompts are omitted: 1",
    )


def test_a_wanted_faithfulness_is_one_rule_whatever_size_it_led_to(registry: Registry) -> None:
    wanted = [
        found(40 + n, n, selection={"top": 30 + n, "faithfulness": 0.8, "rule": "smallest found"})
        for n in range(2)
    ]
    other = found(42, 2, selection={"top": 30, "faithfulness": 0.9, "rule": "smallest found"})
    with registry.projecting_later():
        registry.record(*wanted, other)
        groups = group_alike(registry, [one.id for one in (*wanted, other)])
        for one in (*wanted, other):
            registry.retract(one.id, reason="made for one test")
    assert [set(group.circuits) for group in groups] == [{one.id for one in wanted}, {other.id}]
    assert groups[0].rule == "faithfulness 0.8, rule smallest found"


def test_merged_ports_are_folded_in_all(tmp_path: Any) -> None:
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *PROMPTS, *EAP[:2], MERGED)
        merged = stability(registry, "ioi", by="methods")
        assert any("without ports in all" in note for note in merged.notes)
        assert not any("<" in one.connection for one in merged.connections)
        assert any("prompts are not recorded: 1" in note for note in merged.notes)
        circuits = {one.id: one for one in (*EAP[:2], MERGED)}
        ids = [one.circuit for one in merged.circuits]
        for a, row in zip(ids, merged.iou, strict=True):
            assert row == pytest.approx([folded(circuits[a], circuits[b]) for b in ids])


def folded(a: Circuit, b: Circuit) -> float:
    one, other = ({name.partition("<")[0] for name in connections(c)} for c in (a, b))
    return len(one & other) / len(one | other)


def test_fewer_than_two_circuits_are_not_compared(registry: Registry) -> None:
    with pytest.raises(BadInput, match="circuits, two or more; ioi has 1 of method published"):
        stability(registry, "ioi", method="published")
    with pytest.raises(BadInput, match="with edges, two or more; ioi has 0 of method published"):
        stability(registry, "ioi", method="published", over="connections")  # it has no edges
    with pytest.raises(BadInput, match="no active circuit"):
        stability(registry, "sequence/numerals")
    with pytest.raises(NotFound, match="no task 'iou'"):
        stability(registry, "iou")


@pytest.mark.parametrize("share", [0, -0.5, 1.1])
def test_a_share_that_is_none_is_refused(registry: Registry, share: float) -> None:
    with pytest.raises(BadInput, match=f"above 0 and at most 1; got {share}"):
        stability(registry, "ioi", share=share)


def test_circuits_of_two_models_are_not_mixed(tmp_path: Any) -> None:
    with Registry.init(tmp_path / "registry") as registry:
        small_registry.fill(registry)
        of_one = stability(registry, "ioi")  # the other model has a single circuit of it
        note = f"circuits of gpt2 are used: those of {small_registry.SMOLLM2.slug} cannot be"
        assert of_one.notes[0].startswith(note)
        named = stability(registry, "ioi", model="gpt2")
        assert (named.circuits, named.notes) == (of_one.circuits, of_one.notes[1:])
        assert len(of_one.groups) == 2
        assert of_one.connections == ()
        assert of_one.overlaps is None
        assert any("compare them by methods" in note for note in of_one.notes)


def test_the_model_in_which_circuits_were_found_again_is_taken_and_of_several_none(
    tmp_path: Any,
) -> None:
    # Built anew: a copy would keep the id of what it was copied from.
    again = [Circuit(**{**one.model_dump(), "model": "pythia-70m"}) for one in EAP[:2]]
    with Registry.init(tmp_path / "registry") as registry:
        small_registry.fill(registry)
        registry.record(*PROMPTS, *again)
        found = stability(registry, "ioi")
        assert found.model == "pythia-70m"
        assert f"those of gpt2, {small_registry.SMOLLM2.slug} cannot" in found.notes[0]
        with pytest.raises(BadInput, match=r"^ioi has circuits in 3 models \(gpt2, .*--model$"):
            stability(registry, "ioi", by="methods")  # any two circuits with edges would do
        registry.record(*EAP[:2])
        with pytest.raises(BadInput, match=r"circuits in 3 models .*--model"):
            stability(registry, "ioi")


def test_a_frame_has_a_row_for_each_connection_and_a_figure_shows_all_pairs(
    by_seeds: Stability,
) -> None:
    frame = by_seeds.to_frame()
    assert list(frame["connection"]) == [one.connection for one in by_seeds.connections]
    left, right = by_seeds.plot().axes[:2]
    assert numpy.array_equal(numpy.asarray(left.images[0].get_array()), by_seeds.iou)
    (bars,) = right.containers
    assert sum(bar.get_height() for bar in bars) == len(by_seeds.connections)


@pytest.mark.parametrize("ports", [True, False])
def test_the_query_counts_circuits_and_averages_effects(registry: Registry, ports: bool) -> None:
    ids = [one.id for one in COMPARED]
    rows = registry.query("connection-frequency", circuits=ids, ports=ports)
    effects: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in COMPARED:
        for edge in one.edges:
            name = f"gpt2/{edge.connection}"
            effects[name if ports else name.partition("<")[0]][one.id] += edge.effect or 0.0
    assert {row["connection"] for row in rows} == set(effects)
    for row in rows:
        known = effects[row["connection"]]
        signed = [effect for id, effect in known.items() if id != UNSIGNED.id]
        assert row["circuits"] == sorted(known)
        assert (row["n_circuits"], row["share"]) == (len(known), len(known) / len(ids))
        assert row["n_signed"] == len(signed)
        assert row["n_positive"] == sum(effect > 0 for effect in signed)
        if signed:
            assert row["effect"] == pytest.approx(fmean(signed))
            assert (row["smallest"], row["largest"]) == pytest.approx((min(signed), max(signed)))


def groups_of(of: Stability) -> Sequence[Sequence[Circuit]]:
    """The circuits of each group, in its order."""
    known = {one.id: one for one in COMPARED}
    return [
        [known[one.circuit] for one in of.circuits if one.group == group.number]
        for group in of.groups
    ]


# -- components ------------------------------------------------------------------------------------


HEADS = [
    Circuit(
        model="gpt2",
        task="ioi",
        method="head-functions",
        level=Level.NODE,
        sign=Sign.HELPS_POSITIVE,
        prompt_set=PROMPTS[place].id,
        nodes=tuple(Node(component=name, effect=effect) for name, effect in effects.items()),
    )
    for place, effects in enumerate(
        ({"a1.h1": 1.0, "a2.h2": 0.5}, {"a1.h1": 0.5, "a3.h3": -1.0}, {"a1.h1": -0.75})
    )
]
AT_POSITIONS = Circuit(
    model="gpt2",
    task="ioi",
    method="published",
    level=Level.NODE,
    nodes=(
        Node(component="a1.h1", position="END"),
        Node(component="a1.h1", position="S2"),
        Node(component="a3.h3"),
    ),
)


@pytest.fixture(scope="module")
def of_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("nodes") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *PROMPTS, *HEADS, AT_POSITIONS)
        yield registry


def test_circuits_without_edges_are_compared_over_components(of_nodes: Registry) -> None:
    found = stability(of_nodes, "ioi")
    assert (found.over, found.connections) == ("components", ())
    assert found.notes[0] == "no two circuits have edges; compared over components"
    same, *alone = found.groups
    assert (same.n_circuits, same.n_parts, same.n_in_all, same.n_consensus) == (2, 3, 1, 3)
    assert (same.way.rule, same.way.level) == ("nodes 2", "node")
    assert [one.n_circuits for one in alone] == [1, 1]  # of other sizes


def test_components_are_counted_and_overlap_as_they_do_by_hand(of_nodes: Registry) -> None:
    found = stability(of_nodes, "ioi", by="methods", over="components")
    circuits = {one.id: one for one in (*HEADS, AT_POSITIONS)}
    sets = [{n.component for n in circuits[one.circuit].nodes} for one in found.circuits]
    assert [one.n_parts for one in found.circuits] == list(map(len, sets))
    for a, row in zip(sets, found.iou, strict=True):
        assert row == pytest.approx([len(a & b) / len(a | b) for b in sets])
    (first, *_) = found.components
    assert (first.component, first.n_circuits, first.share) == ("gpt2/a1.h1", 4, 1)
    assert first.effect == pytest.approx((1.0 + 0.5 - 0.75) / 3)
    assert (first.smallest, first.largest, first.n_signed, first.n_positive) == (-0.75, 1.0, 3, 2)
    assert list(found.to_frame()["component"]) == [one.component for one in found.components]
    parts = found.parts()
    assert list(parts)[-1] == "components"
    assert "components of the consensus" in parts["agreement"]
    assert "shared components" in found.plot().axes[-1].get_ylabel()


def test_circuits_with_edges_and_without_are_compared_where_it_is_asked_for(
    registry: Registry,
) -> None:
    found = stability(registry, "ioi", over="components", by="methods")
    assert NODES.id in {one.circuit for one in found.circuits}
    assert any("differ in level: edge, node" in note for note in found.notes)
    assert not any("edges" in note for note in found.notes if "level" not in note)
    (recorded,) = found.recorded
    assert recorded.n_parts == len({node.component for node in CONSENSUS.nodes})


def test_what_is_not_recorded_of_a_way_is_called_unknown(of_nodes: Registry) -> None:
    measured = HEADS[0].model_copy(update={"metric": "logit_difference", "higher_is_better": True})
    with of_nodes.projecting_later():
        of_nodes.record(measured)
        ways = group_alike(of_nodes, [measured.id, HEADS[0].id])
        of_nodes.retract(measured.id, reason="made for one test")
    assert {way.variant for way in ways} == {"metric logit_difference", "metric unknown"}


# -- copies ----------------------------------------------------------------------------------------


def copied(circuit: Circuit, **lost: Any) -> Circuit:
    """What is read of a file that a circuit was exported to."""
    return Circuit(**{**circuit.model_dump(), "prompt_set": None, "scores": None, **lost})


def test_a_copy_without_prompts_is_no_replicate_and_said_to_be_left_out(tmp_path: Any) -> None:
    exact = copied(EAP[0])
    of_a_table = copied(
        EAP[0], nodes=[node.model_copy(update={"effect": None}) for node in EAP[0].nodes]
    )
    # Its parameter names prompts that the copy does not have, which would make it another way.
    of_mean = copied(MEAN[0])
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *PROMPTS, *EAP[:2], *MEAN)
        ways: tuple[By, ...] = ("seeds", "methods")
        before = {by: stability(registry, "ioi", by=by) for by in ways}
        registry.record(exact, of_a_table, of_mean)
        for by, expected in before.items():
            found = stability(registry, "ioi", by=by)
            assert (found.circuits, found.iou) == (expected.circuits, expected.iou)
            assert found.overlaps == expected.overlaps
            (note,) = set(found.notes) - set(expected.notes)
            assert "prompts are not recorded and that otherwise equal another one" in note
            for copy, of in ((exact, EAP[0]), (of_a_table, EAP[0]), (of_mean, MEAN[0])):
                assert f"{copy.id[:12]} of {of.id[:12]}" in note


def test_a_circuit_and_its_copy_are_not_two_to_compare(tmp_path: Any) -> None:
    copy = copied(EAP[0])
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *PROMPTS, EAP[0], copy)
        with pytest.raises(BadInput, match=f"ioi has 1; .*: {copy.id[:12]} of {EAP[0].id[:12]}"):
            stability(registry, "ioi")


def test_equal_circuits_of_prompts_that_are_known_are_replicates(tmp_path: Any) -> None:
    again = Circuit(**{**EAP[0].model_dump(), "prompt_set": PROMPTS[1].id})
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *PROMPTS, EAP[0], again)
        found = stability(registry, "ioi")
        assert found.overlaps is not None
        assert (found.overlaps.n_pairs, found.overlaps.mean) == (1, 1.0)
