"""What an exporter is: a circuit in, the bytes of another tool's file out.

An exporter opens no file and no store; what it needs besides the circuit is given to it. What its
format cannot hold is left out, and the summary says so; what it needs and a circuit lacks is an
error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from registry import plugins
from registry.records import Circuit, Model

__all__ = ["EXPORTERS_GROUP", "Exporter", "Exporting", "exporters", "find_exporter"]

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
