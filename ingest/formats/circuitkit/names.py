"""The part of a model that a node of circuitkit names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ingest.formats.spelling import read_name
from registry.errors import BadIdentifier, BadInput

__all__ = ["artifact_part", "scored_part"]

_NEURON = re.compile(r"L(\d{1,9})[.M](\d{1,9})")
_PARTS = {
    "attn_head": "a{layer}.h{index}",
    "attention_head": "a{layer}.h{index}",
    "mlp_neuron": "m{layer}.n{index}",
    "mlp": "m{layer}.n{index}",
    "mlp_layer": "m{layer}",
    "embedding": "input",
}
_WITHOUT_NAME = {
    "attn_layer": "a whole layer of attention",
    "residual": "the residual stream itself",
}


def scored_part(text: str, data: Mapping[str, Any], name: str) -> str:
    """Return the part of a scored node: ``A0.1`` a head, ``MLP 3`` an MLP, ``L3.42`` a neuron.

    Args:
        text: The node's name.
        data: The file, whose configuration may show that its numbers are not neurons.
        name: The file's name, for errors.

    Raises:
        BadInput: No part has that name.
    """
    if found := _NEURON.fullmatch(text):
        if _says_mlp_out(data.get("discovery_cfg")):
            raise BadInput(
                f"{name}: {text!r} is a dimension of an MLP's output (mlp_hook is mlp_out), not"
                " a neuron; only scores taken with post_act can be imported"
            )
        return f"m{int(found[1])}.n{int(found[2])}"
    return _named(text, name)


def artifact_part(key: str, node: Any, name: str) -> str:
    """Return the part of an artifact's node, by its type, or by its name if it has no type.

    Raises:
        BadInput: It is malformed, or the registry has no name for it.
    """
    if not isinstance(node, dict):
        raise BadInput(f"{name}: node {key!r} is no object with layer_idx, node_type and index")
    kind = node.get("node_type")
    if kind is None:
        given = node.get("name") if isinstance(node.get("name"), str) else key
        found = _NEURON.fullmatch(str(given))
        return f"m{int(found[1])}.n{int(found[2])}" if found else _named(str(given), name)
    if isinstance(kind, str) and kind in _WITHOUT_NAME:
        raise BadInput(
            f"{name}: node {key!r} is {_WITHOUT_NAME[kind]} ({kind}), which is no component here;"
            " heads, MLPs, neurons and the embedding are"
        )
    if not isinstance(kind, str) or kind not in _PARTS:
        raise BadInput(
            f"{name}: node {key!r} has node_type {str(kind)[:80]!r}; known are {', '.join(_PARTS)}"
        )
    numbers = {"layer": node.get("layer_idx"), "index": node.get("index")}
    for what, value in numbers.items():
        if f"{{{what}}}" in _PARTS[kind] and not (type(value) is int and 0 <= value < 10**9):
            raise BadInput(f"{name}: node {key!r} has {what} {str(value)[:80]!r}, no whole number")
    return _PARTS[kind].format(**numbers)


def _named(text: str, name: str) -> str:
    try:
        local, port = read_name(text)
    except BadIdentifier as error:
        raise BadInput(f"{name}: {error}") from error
    if port is not None:
        raise BadInput(f"{name}: {text!r} is an input of a head, not a node")
    return local


def _says_mlp_out(configuration: Any) -> bool:
    """Return whether a configuration, at any depth, names the MLP's output as place of neurons."""
    if not isinstance(configuration, dict):
        return False
    if configuration.get("mlp_hook") == "mlp_out":
        return True
    inner = (value for value in configuration.values() if isinstance(value, dict))
    return any(value.get("mlp_hook") == "mlp_out" for value in inner)
