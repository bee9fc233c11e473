"""A circuit from the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.circuits.networks import to_networkx
from registry.ledger.base import CircuitEntry
from registry.records import Circuit, Edge, Evaluation, Node

if TYPE_CHECKING:
    import networkx

__all__ = ["StoredCircuit"]


@dataclass(frozen=True, slots=True, repr=False)
class StoredCircuit:
    """A circuit as stored in the registry: content, labels with provenance, measurements.

    Frequently used attributes are available directly: ``circuit.id`` is ``circuit.circuit.id``.
    """

    entry: CircuitEntry
    circuit: Circuit
    evaluations: tuple[Evaluation, ...]

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.entry.id

    @property
    def model(self) -> str:
        """Slug of its model."""
        return self.entry.model

    @property
    def task(self) -> str:
        """Slug of the task it was found on."""
        return self.entry.task

    @property
    def method(self) -> str:
        """The method that found it."""
        return self.entry.method

    @property
    def title(self) -> str | None:
        """Its title, if it has one."""
        return self.entry.labels.title

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, in alphabetical order."""
        return self.entry.labels.tags

    @property
    def faithfulness(self) -> float | None:
        """Latest on its own task: 0 with everything ablated, 1 the whole model; None if unknown."""
        return self.entry.faithfulness

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes, in the order in which the model runs them."""
        return self.circuit.nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Its edges."""
        return self.circuit.edges

    def __repr__(self) -> str:
        known = self.faithfulness
        faithful = "" if known is None else f", faithfulness {known:.3g}"
        return (
            f"<StoredCircuit {self.id[:12]}: {self.task} in {self.model}, {len(self.edges)} edges "
            f"and {len(self.nodes)} nodes{faithful}>"
        )

    def to_networkx(self) -> networkx.MultiDiGraph[str]:
        """The circuit as a graph; see :func:`registry.circuits.networks.to_networkx`."""
        return to_networkx(self.circuit)
