"""Facts about the nodes of an attribution graph in addition to the circuit.

Influence and activation are not effects on a metric, so they are not in a record's ``effect``. They
are kept in a safetensors file, the circuit's ``scores``. The exporter of such graphs reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["NodeValues", "pack", "unpack"]

_FORMAT = "circuits-attribution-nodes/1"


@dataclass(frozen=True, slots=True)
class NodeValues:
    """Facts by the key of a node.

    Attributes:
        influence: Share of all influence on the logits that it and stronger nodes have, 0 to 1.
        activation: Activation of a feature, on the graph's prompt.
        labels: Labels of errors, tokens and logits; a feature's label is its node's role.
        tokens: Vocabulary number of the token at an ``input``.
    """

    influence: Mapping[str, float] = field(default_factory=dict)
    activation: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)


def pack(nodes: Sequence[str], values: NodeValues) -> bytes:
    """Return a safetensors file of ``influence`` and ``activation``, ``[node]``; NaN: unknown."""
    import numpy as np
    from safetensors.numpy import save

    about = {
        "format": _FORMAT,
        "axes": ["node"],
        "nodes": list(nodes),
        "labels": dict(values.labels),
        "tokens": dict(values.tokens),
    }
    tensors = {
        name: np.array([of.get(node, math.nan) for node in nodes], dtype=np.float64)
        for name, of in (("influence", values.influence), ("activation", values.activation))
    }
    # Only one key: safetensors writes several keys in an order that changes from run to run.
    return save(tensors, {"circuits": json.dumps(about, sort_keys=True, separators=(",", ":"))})


def unpack(data: bytes | None) -> NodeValues:
    """Read a file that :func:`pack` wrote; empty for another file or none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if data is None:
        return NodeValues()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get("circuits", "{}"))
    except (SafetensorError, ValueError, KeyError):
        return NodeValues()
    if about.get("format") != _FORMAT:
        return NodeValues()
    found = {
        name: {
            node: value
            for node, value in zip(about["nodes"], tensors[name].tolist(), strict=True)
            if not math.isnan(value)
        }
        for name in ("influence", "activation")
    }
    return NodeValues(**found, labels=about["labels"], tokens=about["tokens"])
