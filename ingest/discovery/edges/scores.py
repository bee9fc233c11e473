"""Scores of all edges of a model, and the circuits selected from them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ingest.discovery.edges.origin import Origin
from registry.errors import BadInput
from registry.identifiers import Port
from registry.models.edge_space import EdgeSpace

__all__ = ["By", "EdgeScores", "PrunedCircuit", "Rule", "ScoredEdge", "ScoredNode", "edge_mask"]

By = Literal["absolute", "signed"]
Rule = Literal["top", "greedy"]
_INPUT, _LOGITS = "input", "logits"


@dataclass(frozen=True, slots=True)
class ScoredEdge:
    """An edge of a circuit.

    Attributes:
        id: ``a0.h1->a2.h3<q>``.
        source: Name of the part that writes.
        target: Name of the part that reads, without its port.
        port: Input of a head; None for MLPs and logits.
        score: In units of the metric; positive: the edge helps.
    """

    id: str
    source: str
    target: str
    port: Port | None
    score: float


@dataclass(frozen=True, slots=True)
class ScoredNode:
    """A node of a circuit.

    Attributes:
        id: Name of the part.
        effect: Its own attribution: the sum over its outgoing edges in the whole model, or over the
            incoming edges of a key/value head, which has no outgoing ones. None for ``logits``,
            which only reads.
    """

    id: str
    effect: float | None


@dataclass(frozen=True, slots=True, repr=False)
class PrunedCircuit:
    """Edges selected by score, without edges on no path from ``input`` to ``logits``.

    ``Registry.record(circuit, task=..., title=...)`` records it, with its scores.

    Attributes:
        edges: In the order of selection; with a greedy selection the best need not be first.
        nodes: In the order of the forward pass.
        by: Whether absolute or signed value decided.
        n_selected: Number of edges selected by score.
        n_pruned: Number of these that were on no path and were removed.
        rule: The rule of selection.
        threshold: Smallest score, in units of the metric; None if a number of edges decided.
        scores: The scores for the selection, if they are known.
    """

    edges: tuple[ScoredEdge, ...]
    nodes: tuple[ScoredNode, ...]
    by: By
    n_selected: int
    n_pruned: int
    rule: Rule = "top"
    threshold: float | None = None
    scores: EdgeScores | None = field(default=None, compare=False)

    @property
    def selection(self) -> Mapping[str, Any]:
        """Return the rule of selection as a record keeps it."""
        found = {"by": self.by, "dangling_removed": self.n_pruned}
        if self.threshold is not None:
            return {"threshold": self.threshold, "selected": self.n_selected, **found}
        return {self.rule: self.n_selected, **found}

    def __repr__(self) -> str:
        return (
            f"<PrunedCircuit of {len(self.edges)} edges and {len(self.nodes)} nodes, {self.rule} "
            f"{self.n_selected} by {self.by} score>"
        )


@dataclass(frozen=True, eq=False, repr=False)
class EdgeScores:
    """A score for every edge of a model.

    Attributes:
        matrix: ``[sender, receiver]``, float64, in units of the metric; positive: the edge helps
            it. Finite; 0 for impossible edges.
        space: Names of rows and columns, and the cells that are edges.
        clean_metric: The metric of each clean prompt, ``[prompt]``.
        corrupt_metric: The metric of each corrupt prompt, ``[prompt]``; None if none were run.
        origin: Their origin; None if it is unknown, as for a mean of several.
    """

    matrix: Tensor
    space: EdgeSpace
    clean_metric: Tensor
    corrupt_metric: Tensor | None
    origin: Origin | None = None

    def __repr__(self) -> str:
        how = "" if self.origin is None else f" by {self.origin}"
        return (
            f"<EdgeScores of {self.space.n_edges} edges on {len(self.clean_metric)} prompts{how}>"
        )

    @property
    def senders(self) -> tuple[str, ...]:
        """Names of rows."""
        return self.space.senders

    @property
    def receivers(self) -> tuple[str, ...]:
        """Names of columns: ``a0.h0<q>``, ``a0.kv0<k>``, ``m0``, ``logits``."""
        return tuple(receiver.name for receiver in self.space.receivers)

    @cached_property
    def mask(self) -> Tensor:
        """Mask of the cells that are edges, ``[sender, receiver]``."""
        return edge_mask(self.space)

    def to_safetensors(self, unit: str | None, **others: Tensor) -> bytes:
        """Return the whole matrix as the registry keeps it, with names of its rows and columns.

        Args:
            unit: The metric's name, if it has one.
            others: Further matrices over the same senders and receivers, by name.
        """
        from safetensors.torch import save

        from registry.files.score_files import score_metadata

        matrices = {"scores": self.matrix, **others}
        tensors = {name: each.to(torch.float32).contiguous() for name, each in matrices.items()}
        metadata = score_metadata(self.senders, self.receivers, unit)
        data: bytes = save(tensors, metadata)
        return data

    def to_dict(self) -> dict[str, float]:
        """Return scores by edge: ``{"input->a0.h0<q>": 0.12, ...}``, receiver by receiver."""
        values = self.matrix.tolist()
        return {self.space.edge_id(i, j): values[i][j] for i, j in self.space.edges()}

    def node_effects(self) -> dict[str, float | None]:
        """Return the attribution of every node, in the order of the forward pass."""
        sent = self.matrix.sum(1).tolist()
        received = self.matrix.sum(0).tolist()
        effects: dict[str, float | None] = dict(zip(self.space.senders, sent, strict=True))
        if self.space.grouped:
            for receiver, value in zip(self.space.receivers, received, strict=True):
                if receiver.port in ("k", "v"):
                    effects[receiver.node] = (effects.get(receiver.node) or 0.0) + value
        effects[_LOGITS] = None
        return effects

    def top(self, n: int, by: By = "absolute") -> PrunedCircuit:
        """Return the ``n`` best edges of the whole model, without dangling ones.

        Args:
            n: Number of edges to select before pruning.
            by: ``absolute`` selects the largest absolute values, ``signed`` the most positive.

        Raises:
            BadInput: There are fewer edges, or ``by`` is something else.
        """
        self._check_size(n)
        keys = self._keys(by)[self.mask]
        order = torch.argsort(keys, descending=True, stable=True)[:n]
        return self._pruned(self.mask.nonzero()[order].tolist(), by)

    def greedy(self, n: int, by: By = "absolute") -> PrunedCircuit:
        """Return ``n`` edges grown from ``logits``: always the best edge into a reached node.

        A reached head also reaches its key/value head. There are fewer edges if all reachable nodes
        are used up.
        can be reached are used up.

        Args:
            n: Number of edges to select before pruning.
            by: See :meth:`top`.

        Raises:
            BadInput: There are fewer edges, or ``by`` is something else.
        """
        self._check_size(n)
        keys = self._keys(by).tolist()
        incoming = self._incoming()
        chosen: list[tuple[int, int]] = []
        open_edges: list[tuple[float, int, int]] = []
        reached: set[str] = set()
        waiting = [_LOGITS]
        while len(chosen) < n:
            for node in waiting:
                for row, column in incoming.get(node, ()):
                    heapq.heappush(open_edges, (-keys[row][column], row, column))
            reached.update(waiting)
            if not open_edges:
                break
            _, row, column = heapq.heappop(open_edges)
            chosen.append((row, column))
            waiting = [node for node in self._reached_with(row) if node not in reached]
        return self._pruned(chosen, by, "greedy")

    def threshold(self, x: float, by: By = "absolute") -> PrunedCircuit:
        """Return all edges with a score of at least ``x``, by either value, without dangling ones.

        Args:
            x: In units of the metric.
            by: See :meth:`top`.

        Raises:
            BadInput: No edge has such a score, ``x`` is not finite, or ``by`` is something else.
        """
        if not math.isfinite(x):
            raise BadInput(f"a threshold is a finite number; got {x}")
        keys = self._keys(by)[self.mask]
        n = int((keys >= x).sum())
        if not n:
            raise BadInput(
                f"no edge scores {x:g} or more ({by}); the best scores {float(keys.max()):.4g}"
            )
        return replace(self.top(n, by), threshold=x)

    def _check_size(self, n: int) -> None:
        if not isinstance(n, int) or not 1 <= n <= self.space.n_edges:
            raise BadInput(f"the number of edges must be 1 to {self.space.n_edges}; got {n}")

    def _keys(self, by: By) -> Tensor:
        if by not in ("absolute", "signed"):
            raise BadInput(f"by must be 'absolute' or 'signed'; got {by!r}")
        return self.matrix.abs() if by == "absolute" else self.matrix

    def _incoming(self) -> dict[str, list[tuple[int, int]]]:
        """Return cells of the edges into each node."""
        found: dict[str, list[tuple[int, int]]] = {}
        for column, receiver in enumerate(self.space.receivers):
            cells = [(row, column) for row in range(receiver.n_sources)]
            found.setdefault(receiver.node, []).extend(cells)
        return found

    def _reached_with(self, row: int) -> list[str]:
        """Return a sender, and its key/value head if it is a head that shares one."""
        name = self.space.senders[row]
        shared = self.space.kv_head_of(name)
        return [name] if shared is None else [name, shared]

    def _edge(self, row: int, column: int) -> ScoredEdge:
        receiver = self.space.receivers[column]
        return ScoredEdge(
            id=self.space.edge_id(row, column),
            source=self.space.senders[row],
            target=receiver.node,
            port=receiver.port,
            score=float(self.matrix[row, column]),
        )

    def _pruned(
        self, cells: Iterable[tuple[int, int]], by: By, rule: Rule = "top"
    ) -> PrunedCircuit:
        chosen = [self._edge(row, column) for row, column in cells]
        kept = _on_a_path(chosen, self.space)
        edges = tuple(edge for edge in chosen if edge.source in kept and edge.target in kept)
        effects = self.node_effects()
        nodes = tuple(ScoredNode(name, effects[name]) for name in _forward_order(self.space, kept))
        n_pruned = len(chosen) - len(edges)
        return PrunedCircuit(edges, nodes, by, len(chosen), n_pruned, rule, scores=self)


def edge_mask(space: EdgeSpace) -> Tensor:
    """Return the mask of the cells that are edges, ``[sender, receiver]``."""
    n_sources = torch.tensor([receiver.n_sources for receiver in space.receivers])
    return torch.arange(len(space.senders))[:, None] < n_sources


def _on_a_path(edges: Iterable[ScoredEdge], space: EdgeSpace) -> set[str]:
    """Return nodes on paths from ``input`` to ``logits``, through key/value heads too."""
    onward: dict[str, set[str]] = {}
    for edge in edges:
        onward.setdefault(edge.source, set()).add(edge.target)
        heads = space.query_heads_of(edge.target)
        if heads:
            onward.setdefault(edge.target, set()).update(heads)
    backward: dict[str, set[str]] = {}
    for source, targets in onward.items():
        for target in targets:
            backward.setdefault(target, set()).add(source)
    return _reach(_INPUT, onward) & _reach(_LOGITS, backward)


def _reach(start: str, steps: dict[str, set[str]]) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        new = steps.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def _forward_order(space: EdgeSpace, nodes: set[str]) -> list[str]:
    order: list[str] = [_INPUT]
    for layer in range(space.n_layers):
        if space.grouped:
            order += space.nodes_with(layer, "k")
        order += space.nodes_with(layer, "q")
        order.append(f"m{layer}")
    order.append(_LOGITS)
    return [name for name in order if name in nodes]
