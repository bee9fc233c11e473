"""Circuits of parts against plain hooks on a plain model of transformers, in float64."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import Setting, evaluate_circuit, prepare_setting
from ingest.discovery.evaluation.parts import (
    PartCircuit,
    compare_parts_with_random,
    evaluate_parts,
    part_circuit,
    random_parts,
)
from ingest.discovery.model.anatomy import read_anatomy
from ingest.models import wrap
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, build
from tests.ingest.discovery.plain_parts import PlainPart, PlainParts

HEADS = [f"a{layer}.h{head}" for layer in range(2) for head in range(4)]
MLPS = ["m0", "m1"]
KV_HEADS = [f"a{layer}.kv{head}" for layer in range(2) for head in range(2)]
BOTH = (Kind.HEAD, Kind.MLP)


def ids(seed: int) -> Tensor:
    return torch.randint(2, 40, (3, 6), generator=torch.Generator().manual_seed(seed))


def metric(logits: Tensor, index: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 10]


def setting_of(model: Any, ablation: Any) -> Setting:
    return prepare_setting(
        model, ids(7), ids(8), metric, ablation=ablation,
        reference=ids(9) if ablation == "mean" else None,
    )  # fmt: skip


def tiny(kind: str = "llama", **told: Any) -> Setting:
    model = wrap(tiny_models.ALL[kind]().double())
    clean, corrupt = (ids(seed) % 22 + 2 for seed in (7, 8))
    return prepare_setting(model, clean, corrupt, metric, **told)


class Plain:
    """The plain model with parts replaced."""

    def __init__(self, name: str, ablation: str) -> None:
        family = FAMILIES[name]
        n_kv = 2 if name == "qwen3" else 4
        self._parts = PlainParts(build(family, torch.float64), family.names, 4, n_kv, 8)
        self._ablation = ablation

    def metric(self, ablated: list[str]) -> float:
        places = [place for name in ablated for place in self._parts.find(name)]
        changes = [(place, self._change(place)) for place in places]
        return float(metric(self._parts.run(changes, ids(7)), torch.arange(3)).mean())

    def faithfulness(self, kept: list[str], universe: list[str]) -> float:
        full, empty = self.metric([]), self.metric(universe)
        circuit = self.metric([part for part in universe if part not in kept])
        return (circuit - empty) / (full - empty)

    def _change(self, place: PlainPart) -> Any:
        match self._ablation:
            case "zero":
                other = torch.zeros((), dtype=torch.float64)
            case "mean":
                other = self._values(place, ids(9)).mean((0, 1))
            case _:
                other = self._values(place, ids(8))
        return lambda value: other.to(value.dtype).expand_as(value)

    def _values(self, place: PlainPart, tokens: Tensor) -> Tensor:
        return self._parts.values(place, tokens).reshape(*tokens.shape, -1)


def cases(name: str, n_neurons: int) -> list[tuple[list[str], tuple[Kind, ...], list[str]]]:
    """Circuits, the kinds that are always in the universe, and the universe that is meant."""
    neurons = [f"m1.n{index}" for index in range(n_neurons)]
    found = [
        (["a0.h1", "m0", "a1.h3"], BOTH, HEADS + MLPS),
        (["a0.h0", "a0.h2", "m1"], BOTH, HEADS + MLPS),
        (["m1.n3", "m1.n5", "m1.n11"], (), neurons),
        (["m1.n3", "m0", "a1.h2"], (), [*HEADS, "m0", *neurons]),
        (["l0.ln1", "l1.ln2"], (), ["l0.ln1", "l1.ln1", "l0.ln2", "l1.ln2"]),
        (["l0.ln2", "ln_final"], (), ["l0.ln2", "l1.ln2", "ln_final"]),
    ]
    if name == "qwen3":
        found += [
            (["a0.kv1", "a1.kv0", "a0.h2", "a1.h0", "m0"], BOTH, HEADS + KV_HEADS + MLPS),
            (["l1.q_norm"], (), ["l0.q_norm", "l1.q_norm"]),
        ]
    return found


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_faithfulness_is_that_of_plain_hooks_on_the_plain_model(name: str, ablation: str) -> None:
    model = wrap(build(FAMILIES[name], torch.float64))
    setting, plain = setting_of(model, ablation), Plain(name, ablation)
    out = model.blocks[1].mlp.submodules["out"].original_component
    n_neurons = int(getattr(out, "in_features", out.weight.shape[0]))
    asked = cases(name, n_neurons)
    circuits = [part_circuit(setting, kept, kinds=kinds) for kept, kinds, _ in asked]
    found = evaluate_parts(setting, circuits)
    for circuit, measured, (kept, _, universe) in zip(circuits, found, asked, strict=True):
        assert sorted(circuit.universe) == sorted(universe)
        assert sorted(circuit.kept) == sorted(kept)
        expected = plain.faithfulness(kept, universe)
        assert measured.faithfulness == pytest.approx(expected, rel=1e-4, abs=1e-4), kept
        assert float(measured.full.mean()) == pytest.approx(plain.metric([]), abs=1e-5)
        assert float(measured.empty.mean()) == pytest.approx(plain.metric(universe), abs=1e-5)
    values = [one.faithfulness or 0.0 for one in found]
    assert len({round(value, 3) for value in values}) > 4


@pytest.mark.parametrize("names", [["a0.h1", "m0"], ["m1.n4"], ["l0.ln1", "ln_final"], ["a0.kv1"]])
def test_the_whole_universe_keeps_everything_and_no_part_nothing(names: list[str]) -> None:
    setting = tiny()
    universe = part_circuit(setting, names).universe
    every, none = PartCircuit(universe, universe), PartCircuit((), universe)
    whole, empty = evaluate_parts(setting, [every, none])
    assert whole.faithfulness == pytest.approx(1, abs=1e-9)
    assert empty.faithfulness == 0


@pytest.mark.parametrize("kind", sorted(tiny_models.ALL))
def test_between_the_ends_of_edges_a_circuit_of_nodes_is_that_of_all_that_it_sends(
    kind: str,
) -> None:
    setting = tiny(kind)
    kept = ["a0.h1", "m0", "a1.h3"]
    circuit = part_circuit(setting, kept, kinds=BOTH)
    (found,) = evaluate_parts(setting, [circuit], ends=setting.ends)
    space = read_anatomy(setting.model, "grouped").space
    expected = evaluate_circuit(setting, space.edges_from(["input", *kept]))
    torch.testing.assert_close(found.circuit, expected.circuit, atol=2e-6, rtol=0)
    assert (found.full, found.empty) == (expected.full, expected.empty)


def test_circuits_measured_together_have_the_figures_that_each_has_alone() -> None:
    setting = tiny()
    many = [["a0.h1", "m0"], ["m1.n4", "m1.n7"], ["l0.ln1"], ["a0.kv1", "a1.h0"]]
    circuits = [part_circuit(setting, names) for names in many]
    together = evaluate_parts(setting, circuits)
    for circuit, found in zip(circuits, together, strict=True):
        (alone,) = evaluate_parts(setting, [circuit])
        assert found.faithfulness == pytest.approx(alone.faithfulness, abs=1e-9)


def groups(names: Any) -> Counter[tuple[Any, ...]]:
    """How many of each kind; of heads, key/value heads and neurons also of each layer."""
    found: Counter[tuple[Any, ...]] = Counter()
    for name in names:
        local = parse_local(name)
        layered = local.kind in {Kind.HEAD, Kind.KV_HEAD, Kind.NEURON}
        found[local.kind, local.norm, local.layer if layered else None] += 1
    return found


@pytest.mark.parametrize(
    "names",
    [
        ["a0.h1", "a0.h2", "a1.h0", "m1"],
        ["a0.h1", "a1.kv0", "m0"],
        ["m0.n3", "m0.n9", "m1.n1", "a1.h2"],
        ["l0.ln1", "l1.ln2", "ln_final"],
    ],
)
def test_a_random_circuit_has_as_many_parts_of_each_kind(names: list[str]) -> None:
    circuit = part_circuit(tiny(), names)
    drawn = random_parts(circuit, 40, seed=3)
    for kept in drawn:
        assert groups(kept) == groups(names)
        assert set(kept) <= set(circuit.universe)
        assert len(set(kept)) == len(kept)
    assert len({tuple(kept) for kept in drawn}) > 1
    assert random_parts(circuit, 5, seed=3) == drawn[:5]
    assert random_parts(circuit, 40, seed=4) != drawn


def test_every_part_of_a_kind_and_layer_is_drawn_equally_often() -> None:
    circuit = part_circuit(tiny(), ["a0.h1", "m1"], kinds=BOTH)
    drawn = Counter(name for kept in random_parts(circuit, 4000, seed=0) for name in kept)
    assert set(drawn) == {*HEADS[:4], *MLPS}
    assert all(900 < drawn[head] < 1100 for head in HEADS[:4])
    assert all(1900 < drawn[mlp] < 2100 for mlp in MLPS)


def test_controls_are_measured_as_circuits_are() -> None:
    setting = tiny()
    circuits = [part_circuit(setting, names) for names in (["a0.h1", "m0"], ["m1.n4", "m1.n5"])]
    compared = compare_parts_with_random(setting, circuits, n=3, seed=2)
    for circuit, found in zip(circuits, compared, strict=True):
        drawn = random_parts(circuit, 3, 2)
        alone = evaluate_parts(setting, [PartCircuit(tuple(k), circuit.universe) for k in drawn])
        assert [one.faithfulness for one in found.controls] == pytest.approx(
            [one.faithfulness for one in alone], abs=1e-9
        )
        assert found.shares_kept == tuple(
            len(set(kept) & set(circuit.kept)) / len(circuit.kept) for kept in drawn
        )
        (own,) = evaluate_parts(setting, [circuit])
        assert found.found.faithfulness == pytest.approx(own.faithfulness, abs=1e-9)


def test_neurons_of_an_mlp_that_is_kept_whole_are_its_own() -> None:
    circuit = part_circuit(tiny(), ["m0", "m0.n3", "m1.n2"])
    assert circuit.kept == ("m0", "m1.n2")
    assert circuit.counts == {"mlps": 1, "neurons of m1": 48}


def test_key_value_heads_of_a_setting_by_query_head_are_the_models_own() -> None:
    names = ["a0.kv1", "a0.h2", "a1.h0"]
    own, copied = tiny(), tiny(kv_heads="per-query-head")
    found = [evaluate_parts(each, [part_circuit(each, names)])[0] for each in (own, copied)]
    assert found[0].faithfulness == pytest.approx(found[1].faithfulness, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a0.h9", "there are 4 heads in each block"),
        ("m0.n48", "there are 48 neurons"),
        ("l0.q_norm", "its attention has no such norm"),
        ("input", "input is no part that is kept or ablated as a whole"),
        ("l0.resid_post#das[0]", "is no part"),
    ],
)
def test_what_is_no_part_of_the_model_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        part_circuit(tiny(), ["a0.h1", name])


def test_at_least_one_random_circuit_is_drawn() -> None:
    with pytest.raises(BadInput, match="must be at least 1; got 0"):
        random_parts(part_circuit(tiny(), ["a0.h1"]), 0, 0)
