"""Random circuits that are similar to a found one, and their faithfulness for comparison.

Randomly chosen edges mostly have no path from input to logits, so they are not a useful baseline. A
control here has the found circuit's nodes. Every sender and every input port keeps its number of
edges; only the pairing of senders and ports is random. Two edges exchange their targets, many times
(Maslov & Sneppen 2002; Milo et al. 2003, arXiv cond-mat/0312028), if the model has both new edges
and the circuit does not have them yet. Impossible exchanges are proposed, refused and counted as a
step. This makes every circuit with these degrees equally likely in the limit of many steps.

All of these circuits can be reached. A receiver reads all senders before it in one fixed order. So
if an exchange needs a longer cycle of edges, the earliest sender of the cycle may feed every
receiver of the cycle. That edge splits the cycle into shorter ones, down to single exchanges.

Every edge stays on a path from input to logits if it was on one. It is enough that every sender,
except the input, is fed (at one of its ports or those of its key/value head), and that every fed
part, except the logits, sends (for a key/value head: one of its query heads). Exchanges preserve
both, because they preserve all degrees. Since edges lead forward, following senders forward ends at
the logits, and following them backward ends at the input.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ingest.discovery.ablation.setting import Setting, in_a_setting
from ingest.discovery.evaluation.faithfulness import CircuitEvaluation, as_text, evaluate_circuits
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from registry.progress import OnProgress

__all__ = [
    "RandomComparison",
    "compare_each_with_random",
    "compare_with_drawn",
    "compare_with_random",
    "generators",
    "random_circuits",
    "shares_shared",
]

# Measured on circuits of .5 to 10 % of SmolLM2's edges (IOI): with 20 or more swaps per edge,
# random circuits share as many edges with the found circuit as with each other. This is a third to
# three fifths of the edges, because hubs leave little choice.
_SWAPS_PER_EDGE = 50
_N_CONTROLS = 50

Cells = list[tuple[int, int]]


@dataclass(frozen=True, eq=False, repr=False)
class RandomComparison:
    """A circuit compared with random ones like it, on the same prompts.

    Attributes:
        found: The circuit.
        controls: The random circuits: with its nodes and degrees; without edges, with the same
            number of parts of each kind.
        shares_kept: For each random circuit, the share of its edges, or of its parts, that are in
            the found circuit, 0 to 1. 1 if no other circuit is possible; then the comparison is
            empty.
    """

    found: CircuitEvaluation
    controls: tuple[CircuitEvaluation, ...]
    shares_kept: tuple[float, ...]

    def __repr__(self) -> str:
        median = None if self.deciles is None else self.deciles[4]
        return (
            f"<RandomComparison: faithfulness {as_text(self.found.faithfulness)}, of "
            f"{len(self.controls)} random circuits {as_text(median)} in the median>"
        )

    @cached_property
    def deciles(self) -> tuple[float, ...] | None:
        """Faithfulness below which 10, 20, ... 90 % of the random circuits are, interpolated.

        None if faithfulness is unknown, because corruption does not change the metric.
        """
        values = [control.faithfulness for control in self.controls]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        tenths = torch.arange(1, 10, dtype=torch.float64) / 10
        found: list[float] = torch.tensor(known, dtype=torch.float64).quantile(tenths).tolist()
        return tuple(found)


@in_a_setting
def compare_with_random(
    setting: Setting,
    edges: Iterable[str],
    *,
    n: int = _N_CONTROLS,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> RandomComparison:
    """Measure a circuit and ``n`` random ones with its degrees; clean and ablated runs are shared.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        edges: The circuit, as ids like ``input->a0.h0<q>``.
        n: Number of random circuits; see :func:`random_circuits`.
        seed: Seed of the random circuits.
        progress: Called with the finished number of prompts times circuits, and the total.

    Raises:
        BadInput, UnsupportedModel, NonFiniteScores, SettingNeeded: See :func:`evaluate_circuit`;
            or ``n`` is less than 1.
    """
    (found,) = compare_each_with_random(setting, [edges], n=n, seed=seed, progress=progress)
    return found


@in_a_setting
def compare_each_with_random(
    setting: Setting,
    circuits: Sequence[Iterable[str]],
    *,
    n: int = _N_CONTROLS,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> list[RandomComparison]:
    """Measure several circuits on the same prompts, each with ``n`` random ones of its degrees.

    Clean and ablated runs are shared by all; otherwise like :func:`compare_with_random`.
    """
    found = [set(edges) for edges in circuits]
    drawn = [random_circuits(own, setting.space, n, seed) for own in found]
    every = [
        edges for own, controls in zip(found, drawn, strict=True) for edges in (own, *controls)
    ]
    measured = evaluate_circuits(setting, every, progress=progress)
    return compare_with_drawn(measured, shares_shared(found, drawn))


def compare_with_drawn(
    measured: Sequence[CircuitEvaluation], shares: Sequence[Sequence[float]]
) -> list[RandomComparison]:
    """Join circuits with the random ones that were measured with them.

    Args:
        measured: Each circuit, followed by its random ones.
        shares: The share of each circuit that each of its random ones keeps, 0 to 1; the same
            number for each circuit.
    """
    step = 1 + len(shares[0]) if shares else 1
    return [
        RandomComparison(
            found=measured[first],
            controls=tuple(measured[first + 1 : first + step]),
            shares_kept=tuple(kept),
        )
        for first, kept in zip(range(0, len(measured), step), shares, strict=True)
    ]


def shares_shared(
    circuits: Sequence[Collection[str]], drawn: Sequence[Sequence[Collection[str]]]
) -> list[list[float]]:
    """Return for each circuit the share of it that each of its random circuits also has, 0 to 1.

    Args:
        circuits: Ids of edges or names of parts.
        drawn: The same for the random circuits of each.
    """
    return [
        [_share_shared(own, control) for control in controls]
        for own, controls in zip(circuits, drawn, strict=True)
    ]


def generators(n: int, seed: int) -> Iterator[random.Random]:
    """Yield a generator for each random circuit; the first ones are the same for any ``n``.

    Raises:
        BadInput: ``n`` is less than 1.
    """
    if n < 1:
        raise BadInput(f"the number of random circuits must be at least 1; got {n}")
    # A string seeds the generator the same way in every process and version of Python.
    return (random.Random(f"{seed}:{number}") for number in range(n))


def random_circuits(edges: Iterable[str], space: EdgeSpace, n: int, seed: int) -> list[list[str]]:
    """Draw circuits in which every sender and every receiver has as many edges as in this one.

    Each is drawn independently: 50 exchanges per edge are proposed, beginning with the given
    circuit. If no other circuit has these degrees, the circuit is returned unchanged. An empty
    circuit is also returned unchanged.

    Args:
        edges: The circuit; the order does not matter, and a repeated edge counts once.
        space: Edges of the model, with key/value heads as the edges name them.
        n: Number of circuits. The first ones are the same for any ``n``.
        seed: Equal seeds draw equal circuits.

    Returns:
        Edge ids, receiver by receiver; each edge once.

    Raises:
        BadInput: The model does not have an edge, or ``n`` is less than 1.
    """
    by_circuit = generators(n, seed)
    cells = _in_order({space.locate(edge) for edge in edges})
    n_sources = [receiver.n_sources for receiver in space.receivers]
    drawn = []
    for generator in by_circuit:
        swapped = _swap(cells, n_sources, generator, _SWAPS_PER_EDGE * len(cells))
        drawn.append([space.edge_id(row, column) for row, column in _in_order(swapped)])
    return drawn


def _swap(cells: Cells, n_sources: list[int], generator: random.Random, n_steps: int) -> Cells:
    """Exchange the targets of two edges; the number of proposals is given.

    Args:
        cells: Rows and columns of the edges, each once.
        n_sources: Number of rows that feed each column; they are the first ones.
        generator: Source of randomness.
        n_steps: Number of proposals, including refused ones. Counting only successful ones would
            favour circuits that have few possible exchanges.
    """
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    present, size, draw = set(cells), len(cells), generator.random
    for _ in range(n_steps):
        # Not randrange, whose numbers may change with the version of Python.
        a, b = int(draw() * size), int(draw() * size)
        row_a, row_b, column_a, column_b = rows[a], rows[b], columns[a], columns[b]
        if row_a >= n_sources[column_b] or row_b >= n_sources[column_a]:
            continue
        crossed = ((row_a, column_b), (row_b, column_a))
        if crossed[0] in present or crossed[1] in present:  # also true if they share an end
            continue
        present -= {(row_a, column_a), (row_b, column_b)}
        present.update(crossed)
        columns[a], columns[b] = column_b, column_a
    return list(zip(rows, columns, strict=True))


def _in_order(cells: Iterable[tuple[int, int]]) -> Cells:
    """Return the edges receiver by receiver, as the space lists them."""
    return sorted(cells, key=lambda cell: (cell[1], cell[0]))


def _share_shared(own: Collection[str], control: Collection[str]) -> float:
    return len(set(own).intersection(control)) / len(own) if own else 1.0
