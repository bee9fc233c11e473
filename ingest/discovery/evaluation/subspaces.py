"""How faithful circuits of subspaces are: chosen directions at chosen sites.

A circuit names subspaces at some sites. At each of these sites, everything orthogonal to the
circuit's subspaces is ablated, at every position. The component in the subspaces stays as the model
computes it. Other sites are not changed. Faithfulness is normalised by the run in which these sites
are ablated completely.

A random circuit has a subspace of the same dimension at each site; all are equally likely.
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
    """A circuit of subspaces: the directions that are kept at each of its sites.

    Attributes:
        kept: By site, orthonormal directions ``[width, direction]``, float64, on the CPU.
    """

    kept: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"<SubspaceCircuit of {self.n_directions} directions at {', '.join(self.kept)}>"

    @property
    def n_directions(self) -> int:
        """Number of directions that are kept, at all sites together."""
        return sum(basis.shape[1] for basis in self.kept.values())

    @cached_property
    def outside(self) -> tuple[Part, ...]:
        """The parts that are ablated: at each site the orthogonal complement of the circuit."""
        rest = {site: _complement(basis) for site, basis in self.kept.items()}
        return tuple(Part(site, None, basis) for site, basis in rest.items() if basis.shape[1])

    @property
    def universe(self) -> tuple[str, ...]:
        """The sites of the circuit, each completely."""
        return tuple(self.kept)

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of all directions at each site, kept or not."""
        return {f"directions of {site}": len(basis) for site, basis in self.kept.items()}


@in_a_setting
def subspace_circuit(setting: Setting, bases: Mapping[str, Sequence[Any]]) -> SubspaceCircuit:
    """Join the subspaces that a circuit names at each site.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        bases: By site, such as ``l3.resid_post``, one or several matrices ``[width, direction]``
            of orthonormal columns, tensors or arrays. Subspaces may overlap.

    Raises:
        BadInput: The model has no such site, or a matrix has another width or is not orthonormal.
        SettingNeeded: The first argument is not a setting.
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
    """Measure circuits like ``evaluate_parts``, each together with ``n`` random circuits.

    Args:
        setting: See :func:`ingest.discovery.evaluate_parts`.
        circuits: From :func:`subspace_circuit`.
        n: Number of random circuits for each circuit; see :func:`random_subspaces`.
        seed: Seed of the random circuits.
        progress: Called with the number of finished runs of a prompt and the total.

    Raises:
        UnsupportedModel, BadInput, NonFiniteScores, SettingNeeded: See
            :func:`ingest.discovery.evaluate_parts`; or ``n`` is less than 1.
    """
    drawn = [random_subspaces(circuit, n, seed) for circuit in circuits]
    every = [each for own, some in zip(circuits, drawn, strict=True) for each in (own, *some)]
    measured = evaluate_parts(setting, every, progress=progress)
    shares = [
        [_share(own, each) for each in some] for own, some in zip(circuits, drawn, strict=True)
    ]
    return compare_with_drawn(measured, shares)


def random_subspaces(circuit: SubspaceCircuit, n: int, seed: int) -> list[SubspaceCircuit]:
    """Draw circuits with a random subspace of the same dimension at each site, uniformly.

    Args:
        circuit: From :func:`subspace_circuit`.
        n: Number of circuits. The first ones are the same for any ``n``.
        seed: Equal seeds draw equal circuits.

    Raises:
        BadInput: ``n`` is less than 1.
    """
    drawn = []
    for one in generators(n, seed):
        generator = torch.Generator().manual_seed(one.getrandbits(63))
        kept = {}
        for site, basis in circuit.kept.items():
            # The span of independent normal columns is uniformly distributed.
            normal = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
            kept[site] = torch.linalg.qr(normal).Q
        drawn.append(SubspaceCircuit(kept))
    return drawn


def _complement(basis: Tensor) -> Tensor:
    """Return an orthonormal basis of the orthogonal complement, ``[width, direction]``."""
    whole: Tensor = torch.linalg.qr(basis, mode="complete").Q
    return whole[:, basis.shape[1] :]


def _share(own: SubspaceCircuit, other: SubspaceCircuit) -> float:
    """Return the mean squared cosine: 1 for the same subspaces, 0 for orthogonal ones."""
    same = sum(
        float((basis.mT @ other.kept[site]).square().sum()) for site, basis in own.kept.items()
    )
    return min(1.0, same / own.n_directions)
