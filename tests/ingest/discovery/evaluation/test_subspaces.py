"""Circuits of subspaces against plain hooks on a plain model of transformers, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import Setting, prepare_setting
from ingest.discovery.evaluation.parts import evaluate_parts
from ingest.discovery.evaluation.subspaces import (
    SubspaceCircuit,
    compare_subspaces_with_random,
    random_subspaces,
    subspace_circuit,
)
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, build
from tests.ingest.discovery.plain_parts import PlainPart, PlainParts


def ids(seed: int, n_words: int = 40) -> Tensor:
    return torch.randint(2, n_words, (3, 6), generator=torch.Generator().manual_seed(seed))


def metric(logits: Tensor, index: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 10]


def basis(width: int, n_directions: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(width, n_directions, generator=generator, dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(found).Q
    return orthonormal


def tiny() -> Setting:
    model = wrap(tiny_models.ALL["llama"]().double())
    return prepare_setting(model, ids(7, 24), ids(8, 24), metric)


def faithfulness(plain: PlainParts, ablation: str, kept: dict[str, Tensor]) -> float:
    """What is left where all but these directions is replaced, by plain hooks."""
    places = {site: plain.find(site)[0] for site in kept}

    def instead(place: PlainPart) -> Tensor:
        if ablation == "zero":
            return torch.zeros((), dtype=torch.float64)
        tokens = ids(9 if ablation == "mean" else 8)
        value = plain.values(place, tokens).reshape(*tokens.shape, -1)
        return value.mean((0, 1)) if ablation == "mean" else value

    def run(keep: dict[str, Tensor]) -> float:
        def change(place: PlainPart, directions: Tensor) -> Any:
            other = instead(place)
            return lambda value: other + (value - other) @ directions @ directions.mT

        changes = [(place, change(place, keep[site])) for site, place in places.items()]
        return float(metric(plain.run(changes, ids(7)), torch.arange(3)).mean())

    full = float(metric(plain.run([], ids(7)), torch.arange(3)).mean())
    empty = run({site: torch.zeros_like(directions) for site, directions in kept.items()})
    return (run(kept) - empty) / (full - empty)


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_faithfulness_is_that_of_plain_hooks_on_the_plain_model(name: str, ablation: Any) -> None:
    family = FAMILIES[name]
    plain = PlainParts(build(family, torch.float64), family.names, 4, 4, 8)
    setting = prepare_setting(
        wrap(build(family, torch.float64)), ids(7), ids(8), metric, ablation=ablation,
        reference=ids(9) if ablation == "mean" else None,
    )  # fmt: skip
    asked = [
        {"l0.resid_post": basis(32, 12)},
        {"l1.mlp_out": basis(32, 3)},
        {"a1.h1.z": basis(8, 2), "l0.attn_out": basis(32, 20)},
    ]
    circuits = [subspace_circuit(setting, {s: [b] for s, b in kept.items()}) for kept in asked]
    for kept, found in zip(asked, evaluate_parts(setting, circuits), strict=True):
        expected = faithfulness(plain, ablation, kept)
        assert found.faithfulness == pytest.approx(expected, rel=1e-4, abs=1e-4), list(kept)
        assert abs(expected - 1) > 1e-3


def test_all_directions_keep_everything_and_none_nothing() -> None:
    every = subspace_circuit(tiny(), {"l0.resid_post": [basis(32, 32)]})
    assert every.outside == ()
    none = SubspaceCircuit({"l0.resid_post": torch.zeros(32, 0, dtype=torch.float64)})
    whole, empty = evaluate_parts(tiny(), [every, none])
    assert whole.faithfulness == 1
    assert empty.faithfulness == pytest.approx(0, abs=1e-9)


def test_subspaces_of_one_place_are_joined_and_may_overlap() -> None:
    whole = basis(32, 6)
    setting = tiny()
    halves = {"l0.resid_post": [whole[:, :4], whole[:, 2:]]}
    together = subspace_circuit(setting, halves)
    assert together.counts == {"directions of l0.resid_post": 32}
    assert together.n_directions == 6
    one = subspace_circuit(setting, {"l0.resid_post": [whole.float().numpy()]})
    found = evaluate_parts(setting, [together, one])
    assert found[0].faithfulness == pytest.approx(found[1].faithfulness, abs=1e-5)


def test_random_subspaces_have_as_many_dimensions_and_any_is_as_likely() -> None:
    circuit = subspace_circuit(tiny(), {"l0.resid_post": [basis(32, 8)], "a1.h1.z": [basis(8, 2)]})
    drawn = random_subspaces(circuit, 300, seed=1)
    mean = {
        site: torch.zeros(len(b), len(b), dtype=torch.float64) for site, b in circuit.kept.items()
    }
    for one in drawn:
        for site, directions in one.kept.items():
            assert directions.shape == circuit.kept[site].shape
            gram = directions.mT @ directions
            torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64))
            mean[site] += directions @ directions.mT / len(drawn)
    for whole in mean.values():  # no direction is preferred
        torch.testing.assert_close(
            whole, 0.25 * torch.eye(len(whole), dtype=torch.float64), atol=0.08, rtol=0
        )
    again, other = random_subspaces(circuit, 2, seed=1), random_subspaces(circuit, 2, seed=2)
    assert all(torch.equal(again[1].kept[s], drawn[1].kept[s]) for s in circuit.kept)
    assert not any(torch.equal(other[1].kept[s], drawn[1].kept[s]) for s in circuit.kept)


def test_controls_are_measured_as_circuits_are() -> None:
    setting = tiny()
    circuit = subspace_circuit(setting, {"l0.resid_post": [basis(32, 8)]})
    (found,) = compare_subspaces_with_random(setting, [circuit], n=3, seed=5)
    drawn = random_subspaces(circuit, 3, 5)
    own, *others = evaluate_parts(setting, [circuit, *drawn])
    assert found.found.faithfulness == pytest.approx(own.faithfulness, abs=1e-9)
    assert [one.faithfulness for one in found.controls] == pytest.approx(
        [one.faithfulness for one in others], abs=1e-9
    )
    kept = circuit.kept["l0.resid_post"]
    for share, one in zip(found.shares_kept, drawn, strict=True):
        overlap = torch.linalg.svdvals(kept.mT @ one.kept["l0.resid_post"]).square().mean()
        assert share == pytest.approx(float(overlap))
        assert 0 < share < 1


@pytest.mark.parametrize(
    ("site", "given", "reason"),
    [
        ("l0.resid_post", torch.ones(32, 2), "is not orthonormal"),
        ("l0.resid_post", torch.eye(8), r"must be \[32, direction\]"),
        ("l9.resid_post", torch.eye(32), "there are 2 layers"),
    ],
)
def test_directions_that_do_not_fit_their_place_are_refused(
    site: str, given: Tensor, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        subspace_circuit(tiny(), {site: [given]})
