"""What an exporter is: a circuit in, the bytes of another tool's file out.

An exporter opens no file and no store; what it needs besides the circuit is given to it. What its
format cannot hold is left out, and the summary says so; what it needs and a circuit lacks is an
error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from registry import plugins
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from registry.records import Circuit, Level, Model

__all__ = ["EXPORTERS_GROUP", "Exporter", "Exporting", "exporters", "find_exporter", "heads_alone"]

EXPORTERS_GROUP = "circuits.exporters"


@dataclass(frozen=True, slots=True)
class Exporting:
    """What an exporter may use besides the circuit.

    Attributes:
        model: The circuit's model, as far as the registry knows it.
        scores: The circuit's full score matrix, a safetensors file as ``score_files`` describes it;
            None where none is kept.
    """

    model: Model
    scores: bytes | None = None


class Exporter(Protocol):
    """One tool's files."""

    @property
    def name(self) -> str:
        """``eap-ig-json``."""

    @property
    def summary(self) -> str:
        """Which tool reads it and what it cannot hold, in a line."""

    @property
    def suffix(self) -> str:
        """``.json``."""

    def write(self, circuit: Circuit, context: Exporting) -> bytes:
        """The file's content; the same for the same circuit.

        Raises:
            BadInput: The format cannot hold this circuit; the text says what is in the way.
        """


def heads_alone(circuit: Circuit) -> Circuit:
    """The heads of a circuit as a circuit of nodes, with their own effects.

    Raises:
        BadInput: It has none.
    """
    heads = [one for one in circuit.nodes if parse_local(one.component).kind is Kind.HEAD]
    if not heads:
        raise BadInput(f"the circuit has no heads among its {len(circuit.nodes):,} nodes")
    # How its edges were chosen, and from how many, is no fact of its heads.
    alone = {"nodes": tuple(heads), "edges": (), "level": Level.NODE}
    whole = {} if circuit.level is Level.NODE else {"selection": None, "universe_size": None}
    return Circuit.model_validate({**dict(circuit), "scores": None, **whole, **alone})


def exporters() -> dict[str, Exporter]:
    """All registered exporters by name, without those that are broken."""
    return {one.name: exporter for one, exporter in plugins.usable(EXPORTERS_GROUP).items()}


def find_exporter(name: str) -> Exporter:
    """The exporter of that name.

    Raises:
        NotFound: There is none; the text names all there are.
        PluginBroken: It is another package's and broken.
    """
    found: Exporter = plugins.find(EXPORTERS_GROUP, name)
    return found
