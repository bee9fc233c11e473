"""How faithful circuits of subspaces are: chosen directions at chosen places.

At each place that a circuit names a subspace of, everything orthogonal to its subspaces there is
ablated, at every position, and what lies in them is what the model computes; no other place is
touched. Faithfulness is normalised by the run with these places ablated as a whole.

A random circuit has a subspace of as many dimensions at each place, any as likely as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.part_changes import Part, read_part
from ingest.discovery.ablation.setting import Setting, in_a_setting
from ingest.discovery.evaluation.controls import RandomComparison, compare_with_drawn, generators
from ingest.discovery.evaluation.parts import evaluate_parts
from registry.progress import OnProgress

__all__ = [
    "SubspaceCircuit",
    "compare_subspaces_with_random",
    "random_subspaces",
    "subspace_circuit",
]

_SAME_SPAN = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class SubspaceCircuit:
    """Directions that are kept, of all at the places that are named.

    Attributes:
        kept: By site, orthonormal directions ``[width, direction]``, float64, on the CPU.
    """

    kept: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"<SubspaceCircuit of {self.n_directions} directions at {', '.join(self.kept)}>"

    @property
    def n_directions(self) -> int:
        """How many are kept, at all places together."""
        return sum(basis.shape[1] for basis in self.kept.values())

    @cached_property
    def outside(self) -> tuple[Part, ...]:
        """What is ablated where the circuit runs: at each place what is orthogonal to it."""
        rest = {site: _complement(basis) for site, basis in self.kept.items()}
        return tuple(Part(site, None, basis) for site, basis in rest.items() if basis.shape[1])

    @property
    def universe(self) -> tuple[str, ...]:
        """The places, each as a whole."""
        return tuple(self.kept)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many directions each place has."""
        return {f"directions of {site}": len(basis) for site, basis in self.kept.items()}


@in_a_setting
def subspace_circuit(setting: Setting, bases: Mapping[str, Sequence[Any]]) -> SubspaceCircuit:
    """Join the subspaces that a circuit names at each place.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        bases: By site, such as ``l3.resid_post``, one or several matrices ``[width, direction]``
            of orthonormal columns, tensors or arrays. Subspaces may overlap.

    Raises:
        BadInput: The model has no such place, or a matrix is of another width or not orthonormal.
    """
    anatomy = setting.with_own_heads().inputs.anatomy
    kept = {}
    for site, matrices in bases.items():
        found = [torch.as_tensor(matrix).detach().double().cpu() for matrix in matrices]
        for basis in found:
            read_part(setting.model, anatomy, Part(site, None, basis), {})
        directions, sizes, _ = torch.linalg.svd(torch.cat(found, 1), full_matrices=False)
        kept[site] = directions[:, sizes > _SAME_SPAN]
    return SubspaceCircuit(kept)


@in_a_setting
def compare_subspaces_with_random(
    setting: Setting,
    circuits: Sequence[SubspaceCircuit],
    *,
    n: int,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> list[RandomComparison]:
    """Measure circuits as :func:`..parts.evaluate_parts` does, each with ``n`` random ones.

    Args:
        setting: As there.
        circuits: From :func:`subspace_circuit`.
        n: How many random circuits; see :func:`random_subspaces`.
        seed: Decides which.
        progress: Called with runs of a prompt done and in all.

    Raises:
        UnsupportedModel, BadInput, NonFiniteScores, SettingNeeded: As there; and ``n`` is less than
            1.
    """
    drawn = [random_subspaces(circuit, n, seed) for circuit in circuits]
    every = [each for own, some in zip(circuits, drawn, strict=True) for each in (own, *some)]
    measured = evaluate_parts(setting, every, progress=progress)
    shares = [
        [_share(own, each) for each in some] for own, some in zip(circuits, drawn, strict=True)
    ]
    return compare_with_drawn(measured, shares)


def random_subspaces(circuit: SubspaceCircuit, n: int, seed: int) -> list[SubspaceCircuit]:
    """Draw circuits with a subspace of as many dimensions at each place, uniformly.

    Args:
        circuit: From :func:`subspace_circuit`.
        n: How many circuits. The first ones are the same for any ``n``.
        seed: Equal seeds draw equal circuits.

    Raises:
        BadInput: ``n`` is less than 1.
    """
    drawn = []
    for one in generators(n, seed):
        generator = torch.Generator().manual_seed(one.getrandbits(63))
        kept = {}
        for site, basis in circuit.kept.items():
            # The span of independent normal columns is as likely as any of its dimension.
            normal = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
            kept[site] = torch.linalg.qr(normal).Q
        drawn.append(SubspaceCircuit(kept))
    return drawn


def _complement(basis: Tensor) -> Tensor:
    """Orthonormal directions of all that is orthogonal to these, ``[width, direction]``."""
    whole: Tensor = torch.linalg.qr(basis, mode="complete").Q
    return whole[:, basis.shape[1] :]


def _share(own: SubspaceCircuit, other: SubspaceCircuit) -> float:
    """Mean squared cosine of what is kept: 1 for the same subspaces, 0 for orthogonal ones."""
    same = sum(
        float((basis.mT @ other.kept[site]).square().sum()) for site, basis in own.kept.items()
    )
    return min(1.0, same / own.n_directions)
