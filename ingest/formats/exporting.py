"""The interface of an exporter: it converts a circuit to the bytes of another tool's file.

An exporter opens no file and no store; it receives everything that it needs. It omits what its
format cannot hold, and its summary says so. If a circuit lacks what the format needs, an error
names it.
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
    """What an exporter may use in addition to the circuit.

    Attributes:
        model: The circuit's model, as far as the registry knows it.
        scores: The circuit's full score matrix, a safetensors file as ``score_files`` describes it;
            None if it is not kept.
    """

    model: Model
    scores: bytes | None = None


class Exporter(Protocol):
    """The files of one tool."""

    @property
    def name(self) -> str:
        """``eap-ig-json``."""

    @property
    def summary(self) -> str:
        """The tool that reads it and what it cannot hold, in one line."""

    @property
    def suffix(self) -> str:
        """``.json``."""

    def write(self, circuit: Circuit, context: Exporting) -> bytes:
        """Return the file's content; equal circuits give equal content.

        Raises:
            BadInput: The format cannot hold this circuit; the text gives the reason.
        """


def heads_alone(circuit: Circuit) -> Circuit:
    """Return the heads of a circuit as a circuit of nodes, with their own effects.

    Raises:
        BadInput: It has no heads.
    """
    heads = [one for one in circuit.nodes if parse_local(one.component).kind is Kind.HEAD]
    if not heads:
        raise BadInput(f"the circuit has no heads among its {len(circuit.nodes):,} nodes")
    # The selection of its edges, and their number, are not facts about its heads.
    alone = {"nodes": tuple(heads), "edges": (), "level": Level.NODE}
    whole = {} if circuit.level is Level.NODE else {"selection": None, "universe_size": None}
    return Circuit.model_validate({**dict(circuit), "scores": None, **whole, **alone})


def exporters() -> dict[str, Exporter]:
    """All registered exporters by name, without those that are broken."""
    return {one.name: exporter for one, exporter in plugins.usable(EXPORTERS_GROUP).items()}


def find_exporter(name: str) -> Exporter:
    """Return the exporter with this name.

    Raises:
        NotFound: No exporter has this name; the text lists all names.
        PluginBroken: It is from another package and broken.
    """
    found: Exporter = plugins.find(EXPORTERS_GROUP, name)
    return found
