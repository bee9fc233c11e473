"""Directions of the subspaces that a circuit names, from the rotations kept with it.

The importer of pyvene's folders keeps each rotation as safetensors, ``circuits-rotation/1``, and
names a basis by the first digits of its hash. Other tools' bases are not recorded.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.errors import BadInput
from registry.identifiers import Kind, Local, parse_local
from registry.records import Circuit

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Bases", "kept_bases"]

Bases = Mapping[str, list[Any]]
"""By site, arrays ``[width, direction]``."""
_FORMAT = "circuits-rotation/1"
_DIGITS = 12
_PREFIX = "pyvene-"


def kept_bases(registry: Registry, circuit: Circuit) -> Bases:
    """Read the directions of all subspaces that a circuit names.

    Raises:
        BadInput: Which directions one of them has is not recorded with the circuit.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for name in sorted({node.component for node in circuit.nodes}):
        local = parse_local(name)
        if local.kind is Kind.SUBSPACE:
            found[local.site or ""].append(_directions(registry, circuit, local))
    return dict(found)


def _directions(registry: Registry, circuit: Circuit, local: Local) -> Any:
    address = _rotations(circuit).get(local.basis or "")
    found = None
    if address is not None and registry.has_artifact(address):
        found = _columns(registry.artifact(address), local.index or 0)
    if found is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} names {local}, and which directions that has is not "
            "recorded with it; they are known of subspaces imported from folders of pyvene"
        )
    return found


def _rotations(circuit: Circuit) -> dict[str, str]:
    """Addresses of the rotations that a circuit says it has, by the names of their bases."""
    said = circuit.parameters.get("interventions")
    rows = (
        [row for row in said if isinstance(row, Mapping)] if isinstance(said, list | tuple) else []
    )
    addresses = [row.get("rotation") for row in rows]
    return {_PREFIX + one[:_DIGITS]: one for one in addresses if isinstance(one, str)}


def _columns(data: bytes, index: int) -> Any:
    """Directions of one subspace of a kept rotation; None where the file is none or has no such."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get("circuits", "{}"))
        if about.get("format") != _FORMAT:
            return None
        columns = about["subspaces"][index]
        if isinstance(columns, dict):
            columns = list(range(columns["from"], columns["to"]))
        return load(data)["rotation"][:, columns]
    except (SafetensorError, ValueError, LookupError):
        return None
