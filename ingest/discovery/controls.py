"""Random circuits as like a found one as can be, and how faithful they are beside it.

A circuit of randomly chosen edges mostly leaves no path from input to logits, so to beat it means
nothing. A control here has the found circuit's nodes, and every sender and every input port keeps
its number of edges; only who feeds whom is drawn anew. Two edges swap their targets, over and over
(Maslov & Sneppen 2002; Milo et al. 2003, arXiv cond-mat/0312028), where the model has both new
edges and the circuit has neither yet. What cannot be is proposed, refused and counted as a step:
this makes every circuit with these degrees equally likely in the end.

All of them can be reached. A receiver reads the senders before it, a first part of one order, so
where an exchange takes a longer round of edges, its earliest sender may feed every receiver of the
round, and that edge cuts the round into shorter ones, down to single swaps.

Every edge stays on a path from input to logits if it was on one. For that it is enough that
whatever sends, except the input, is fed (at a port of its own or of the key/value head it reads),
and that whatever is fed, except the logits, sends (a key/value head: a query head of it). Swaps
keep both, as they keep all degrees; and since edges lead forward, going on from sender to sender
ends at the logits, and going back at the input.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import torch

from ingest.discovery.anatomy import read_anatomy
from ingest.discovery.edge_space import EdgeSpace
from ingest.discovery.evaluation import CircuitEvaluation, as_text, evaluate_circuits
from ingest.discovery.metrics import Metric
from ingest.discovery.options import EvaluationOptions
from ingest.discovery.texts import Prompts
from registry.errors import BadInput

__all__ = [
    "RandomComparison",
    "compare_each_with_random",
    "compare_with_random",
    "random_circuits",
]

# In circuits of .5 to 10 % of SmolLM2's edges (IOI) random ones share as much with the found one as
# with each other from 20 on: a third to three fifths of the edges, for hubs leave little choice.
_SWAPS_PER_EDGE = 50
_N_CONTROLS = 50

Cells = list[tuple[int, int]]


@dataclass(frozen=True, eq=False, repr=False)
class RandomComparison:
    """A circuit beside random ones with its nodes and degrees, on the same prompts.

    Attributes:
        found: The circuit.
        controls: The random ones.
        shares_kept: Of each random one, which part of its edges is the found circuit's too, 0 to 1.
            1 where degrees leave no other circuit; the comparison is empty then.
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
        """Faithfulness that 10, 20, ... 90 % of the random circuits stay below, interpolated.

        None where faithfulness is unknown, as corruption costs the model nothing.
        """
        values = [control.faithfulness for control in self.controls]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        tenths = torch.arange(1, 10, dtype=torch.float64) / 10
        found: list[float] = torch.tensor(known, dtype=torch.float64).quantile(tenths).tolist()
        return tuple(found)


def compare_with_random(
    model: Any,
    edges: Iterable[str],
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    n: int = _N_CONTROLS,
    seed: int = 0,
    **options: Unpack[EvaluationOptions],
) -> RandomComparison:
    """Measure a circuit and ``n`` random ones with its degrees; clean and ablated runs are shared.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        edges: The circuit, as ids like ``input->a0.h0<q>``.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each pair's counterpart; None where the ablation is not ``resample``.
        metric: One number per prompt from the logits at its last real position.
        n: How many random circuits; see :func:`random_circuits`.
        seed: Decides which.
        options: As for :func:`evaluate_circuit`.

    Raises:
        BadInput, UnsupportedModel, NonFiniteScores: As from :func:`evaluate_circuit`; and ``n`` is
            less than 1.
    """
    (found,) = compare_each_with_random(
        model, [edges], clean, corrupt, metric, n=n, seed=seed, **options
    )
    return found


def compare_each_with_random(
    model: Any,
    circuits: Sequence[Iterable[str]],
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    n: int = _N_CONTROLS,
    seed: int = 0,
    **options: Unpack[EvaluationOptions],
) -> list[RandomComparison]:
    """Measure several circuits on the same prompts, each with ``n`` random ones of its degrees.

    Clean and ablated runs are shared by all; else as :func:`compare_with_random`.
    """
    space = read_anatomy(model, options.get("kv_heads", "grouped")).space
    found = [set(edges) for edges in circuits]
    drawn = [random_circuits(own, space, n, seed) for own in found]
    every = [
        edges for own, controls in zip(found, drawn, strict=True) for edges in (own, *controls)
    ]
    measured = evaluate_circuits(model, every, clean, corrupt, metric, **options)
    return [
        RandomComparison(
            found=measured[first],
            controls=tuple(measured[first + 1 : first + 1 + n]),
            shares_kept=tuple(_share_shared(own, control) for control in controls),
        )
        for first, own, controls in zip(range(0, len(measured), n + 1), found, drawn, strict=True)
    ]


def random_circuits(edges: Iterable[str], space: EdgeSpace, n: int, seed: int) -> list[list[str]]:
    """Draw circuits in which every sender and every receiver has as many edges as in this one.

    Each is drawn on its own, with 50 proposed swaps per edge from the given circuit on. A circuit
    so small or so full that degrees leave no other one comes back as it is, as does an empty one.

    Args:
        edges: The circuit; the order does not matter, and an edge named twice is one.
        space: Of the model, with key/value heads as the edges name them.
        n: How many circuits. The first ones are the same for any ``n``.
        seed: Equal seeds draw equal circuits.

    Returns:
        Edge ids, receiver by receiver; each edge once.

    Raises:
        BadInput: An edge is none of this model's, or ``n`` is less than 1.
    """
    if n < 1:
        raise BadInput(f"the number of random circuits must be at least 1; got {n}")
    cells = _in_order({space.locate(edge) for edge in edges})
    n_sources = [receiver.n_sources for receiver in space.receivers]
    drawn = []
    for number in range(n):
        # A string seeds the generator the same way in every process and version of Python.
        generator = random.Random(f"{seed}:{number}")
        swapped = _swap(cells, n_sources, generator, _SWAPS_PER_EDGE * len(cells))
        drawn.append([space.edge_id(row, column) for row, column in _in_order(swapped)])
    return drawn


def _swap(cells: Cells, n_sources: list[int], generator: random.Random, n_steps: int) -> Cells:
    """Let two edges swap targets, so many times that it is proposed.

    Args:
        cells: Rows and columns of the edges, each once.
        n_sources: How many rows feed each column, the first ones.
        generator: Decides which.
        n_steps: Proposals, those refused included: to count only those that succeed would favour
            circuits that few swaps lead away from.
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
        if crossed[0] in present or crossed[1] in present:  # so too where they share an end
            continue
        present -= {(row_a, column_a), (row_b, column_b)}
        present.update(crossed)
        columns[a], columns[b] = column_b, column_a
    return list(zip(rows, columns, strict=True))


def _in_order(cells: Iterable[tuple[int, int]]) -> Cells:
    """Receiver by receiver, as the space lists its edges."""
    return sorted(cells, key=lambda cell: (cell[1], cell[0]))


def _share_shared(own: set[str], control: list[str]) -> float:
    return len(own.intersection(control)) / len(own) if own else 1.0
