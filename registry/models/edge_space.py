"""The edges of a decoder: names of senders and receivers, and their order.

Senders write to the residual stream: ``input`` (the token embedding), every head, every MLP.
Receivers read it: the query, key and value inputs of heads, the MLPs, and ``logits`` (the input of
the final norm). In a grouped-query model keys and values are read once per key/value head.
This module has only names and numbers; it uses no model and no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from registry.errors import BadInput
from registry.identifiers import PORTS, Port

__all__ = ["EdgeSpace", "Receiver"]


@dataclass(frozen=True, slots=True)
class Receiver:
    """One point where the residual stream is read.

    Attributes:
        name: ``a0.h3<q>``, ``a0.kv1<k>``, ``m0`` or ``logits``.
        node: The part that reads: the name without its port.
        port: Input of a head; None for MLPs and logits.
        n_sources: Number of senders, the first in the space's order, that write before it reads.
    """

    name: str
    node: str
    port: Port | None
    n_sources: int


@dataclass(frozen=True)
class EdgeSpace:
    """All edges of a decoder of this shape, as a matrix ``[sender, receiver]`` of names.

    Attributes:
        n_layers: Blocks.
        n_heads: Query heads per block.
        n_kv_heads: Key/value heads per block; fewer than ``n_heads`` in a grouped-query model.
        parallel: Attention and MLP of a block read the same input (GPT-NeoX).
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that no decoder has."""
        if min(self.n_layers, self.n_heads, self.n_kv_heads) < 1:
            raise BadInput(f"a decoder has at least one layer, head and key/value head: {self}")
        if self.n_heads % self.n_kv_heads:
            raise BadInput(
                f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly"
            )

    @property
    def grouped(self) -> bool:
        """Whether query heads share key/value heads."""
        return self.n_kv_heads < self.n_heads

    @cached_property
    def senders(self) -> tuple[str, ...]:
        """Names in the order of the forward pass: ``input``, heads of block 0, ``m0``, ..."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)]
            names.append(f"m{layer}")
        return tuple(names)

    @cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        """Per block all queries, keys, values, then the MLP; ``logits`` last."""
        found: list[Receiver] = []
        for layer in range(self.n_layers):
            before = self.first_sender(layer)
            for port in PORTS:
                nodes = self.nodes_with(layer, port)
                found += [Receiver(f"{node}<{port}>", node, port, before) for node in nodes]
            n_sources = before if self.parallel else before + self.n_heads
            found.append(Receiver(f"m{layer}", f"m{layer}", None, n_sources))
        found.append(Receiver("logits", "logits", None, len(self.senders)))
        return tuple(found)

    @cached_property
    def n_edges(self) -> int:
        """Number of edges; the size of the universe from which a circuit is chosen."""
        return sum(receiver.n_sources for receiver in self.receivers)

    def nodes_with(self, layer: int, port: Port) -> list[str]:
        """Names of the block's nodes that read ``port``, by head."""
        if port != "q" and self.grouped:
            return [f"a{layer}.kv{group}" for group in range(self.n_kv_heads)]
        return [f"a{layer}.h{head}" for head in range(self.n_heads)]

    def first_sender(self, layer: int) -> int:
        """Row of the block's first head; rows before it write before the block reads."""
        return 1 + layer * (self.n_heads + 1)

    def head_rows(self, layer: int) -> slice:
        """Rows of the block's heads."""
        first = self.first_sender(layer)
        return slice(first, first + self.n_heads)

    def mlp_row(self, layer: int) -> int:
        """Row of the block's MLP."""
        return self.first_sender(layer) + self.n_heads

    def port_columns(self, layer: int, port: Port) -> slice:
        """Columns of one port of the block's heads."""
        first = layer * self._n_receivers_per_layer
        widths = {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads}
        for earlier in PORTS[: PORTS.index(port)]:
            first += widths[earlier]
        return slice(first, first + widths[port])

    def attention_columns(self, layer: int) -> slice:
        """Columns of all ports of the block's heads: queries, keys, values."""
        first = layer * self._n_receivers_per_layer
        return slice(first, first + self._n_receivers_per_layer - 1)

    def mlp_column(self, layer: int) -> int:
        """Column of the block's MLP."""
        return (layer + 1) * self._n_receivers_per_layer - 1

    @property
    def logits_column(self) -> int:
        """Column of the final residual stream."""
        return self.n_layers * self._n_receivers_per_layer

    def edges(self) -> Iterator[tuple[int, int]]:
        """Row and column of every edge, receiver by receiver."""
        for column, receiver in enumerate(self.receivers):
            for row in range(receiver.n_sources):
                yield row, column

    def edges_from(self, senders: Iterable[str]) -> Iterator[str]:
        """Names of all edges from these senders: the edges kept if all others are ablated.

        Raises:
            BadInput: One of them is not a sender of this model.
        """
        rows = set()
        for name in senders:
            if name not in self._rows:
                raise BadInput(
                    f"{name!r} does not write to the residual stream of a model with"
                    f" {self.n_layers} layers and {self.n_heads} heads"
                )
            rows.add(self._rows[name])
        return (self.edge_id(row, column) for row, column in self.edges() if row in rows)

    def edge_id(self, row: int, column: int) -> str:
        """Name of an edge: ``input->a0.h0<q>``."""
        return f"{self.senders[row]}->{self.receivers[column].name}"

    def locate(self, edge: str) -> tuple[int, int]:
        """Row and column of an edge's name.

        Raises:
            BadInput: No edge of this model has that name.
        """
        source, _, target = edge.partition("->")
        row, column = self._rows.get(source), self._columns.get(target)
        if row is None or column is None:
            raise BadInput(
                f"{edge!r} is not an edge of a model with {self.n_layers} layers, {self.n_heads} "
                f"heads and {self.n_kv_heads} key/value heads; edges look like "
                f"{', '.join(self.edge_id(0, at) for at in self._examples)}"
            )
        if row >= self.receivers[column].n_sources:
            raise BadInput(f"{edge!r} is not an edge: {source} writes only after {target} has read")
        return row, column

    def query_heads_of(self, node: str) -> list[str]:
        """Query heads that read a key/value head's keys and values; [] for other nodes."""
        layer, dot, group = node.partition(".kv")
        if not dot:
            return []
        size = self.n_heads // self.n_kv_heads
        return [f"{layer}.h{int(group) * size + member}" for member in range(size)]

    def kv_head_of(self, node: str) -> str | None:
        """Key/value head that a query head shares with others; None for any other node."""
        layer, dot, head = node.partition(".h")
        if not dot or not self.grouped:
            return None
        return f"{layer}.kv{int(head) * self.n_kv_heads // self.n_heads}"

    @property
    def _n_receivers_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + 1

    @property
    def _examples(self) -> tuple[int, ...]:
        return (0, self.n_heads, self.logits_column)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.senders)}

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {receiver.name: column for column, receiver in enumerate(self.receivers)}
