"""Nodes of an attribution graph's JSON, checked.

What a reader must not trust: ``node_id`` is no key, since an error of layer 5 and feature 5 of
layer 0 are both ``0_5_3`` at position 3; ``feature`` is the Cantor pairing of layer and index in
``schema_version`` 1 and layer times 100,000 plus index, or another power of ten, before; errors and
tokens carry numbers there that say nothing. Layers are text, or numbers; logits stand in a layer
of their own beyond the last.

Features of attention (``lorsa``, of low-rank sparse attention) come in two ways. Neuronpedia calls
them ``5_lor_3036_7``, an error ``5_error_attn_7``, and counts layers as all do. Llamascopium
(Language-Model-SAEs) counts each layer twice, attention of layer 5 as 10 and its MLP as 11, logits
of a model of 26 layers at 52, tokens at -1: ``10_3036_7``, ``10_error_7``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from registry.errors import BadInput
from registry.identifiers import Kind, Local, node_key

__all__ = [
    "FileNode",
    "NodeType",
    "Numbering",
    "cantor",
    "counted_once",
    "read_node",
    "read_number",
    "shortened",
]

_INDICES_PER_LAYER = 100_000
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_NODE_ID = re.compile(r"(\d{1,9}|E|L)_(?:lor_|cro_)?(\d{1,9})_(\d{1,9})", re.ASCII)
_COUNTED_ONCE = re.compile(r"\d+_(?:lor|cro)_\d+_\d+|\d+_error_(?:attn|mlp)_\d+", re.ASCII)
_COUNTED_TWICE = re.compile(r"\d+_error_\d+", re.ASCII)
_BEFORE_ALL = -1


class NodeType(StrEnum):
    """What a node stands for, in the order in which the tool lists them."""

    FEATURE = "feature"
    ERROR = "error"
    TOKEN = "token"
    LOGIT = "logit"
    OTHER = "other"


class Numbering(StrEnum):
    """What a feature's number in the file is made of."""

    CANTOR = "the Cantor pairing of layer and index"
    LAYERED = "layer x 100,000 + index"
    INDEX = "their indices alone"
    OTHER = "no rule that is known"


@dataclass(frozen=True, slots=True)
class FileNode:
    """A node as the file has it.

    Attributes:
        id: What links call it; two nodes may share one.
        type_name: What the file calls its type.
        attention: Whether a feature or an error is of a layer's attention, and not of its MLP.
        layer: Of a feature or an error; of a logit, a number beyond the last layer's, or None; of
            a token, -1 where the file says so.
        index: Of a feature in its dictionary, of a token or logit in the vocabulary; None for
            errors and where the file does not say.
        position: Of the token it belongs to, from 0.
        influence: Share of all influence on the logits that this node and stronger ones hold.
        activation: Of a feature on this prompt.
        probability: Of a logit's token.
        target: Whether it is the logit the graph is about.
        label: What people or the tool call it.
        numbering: Of a feature.
    """

    id: str
    type: NodeType
    type_name: str
    attention: bool
    layer: int | None
    index: int | None
    position: int
    influence: float | None
    activation: float | None
    probability: float | None
    target: bool
    label: str | None
    numbering: Numbering | None

    @property
    def moment(self) -> float:
        """What orders nodes as the model runs them; of an unknown type, before all others."""
        if self.type in {NodeType.TOKEN, NodeType.OTHER}:
            return _BEFORE_ALL
        if self.type is NodeType.LOGIT:
            return math.inf
        return 2 * (self.layer or 0) + (not self.attention)

    def key(self, dictionary: str) -> str:
        """The node's key in a circuit; of a type that is known.

        Args:
            dictionary: Name of the transcoders, or of the features of attention.
        """
        site = f"l{self.layer}.attn_out" if self.attention else f"m{self.layer}"
        local = {
            NodeType.FEATURE: Local(Kind.FEATURE, index=self.index, site=site, basis=dictionary),
            NodeType.ERROR: Local(Kind.ERROR, site=site, basis=dictionary),
            NodeType.TOKEN: Local(Kind.INPUT),
            NodeType.LOGIT: Local(Kind.LOGIT, index=self.index),
        }[self.type]
        return node_key(local, str(self.position))


def cantor(layer: int, index: int) -> int:
    """The number that ``schema_version`` 1 gives a feature."""
    return (layer + index) * (layer + index + 1) // 2 + index


def read_node(raw: Any, where: str, paired: bool) -> FileNode:
    """Read a node.

    Args:
        raw: As in the file.
        where: What to call it in errors.
        paired: Whether the file says ``schema_version``, so that features' numbers are paired.

    Raises:
        BadInput: It is malformed.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("node_id"), str):
        raise BadInput(f"{where} is no object with a node_id")
    where = f"{where} ({raw['node_id'][:60]!r})"
    type_, attention = _type(raw.get("feature_type"), where)
    position = raw.get("ctx_idx")
    if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < 2**31:
        raise BadInput(f"{where}: ctx_idx is {shortened(position)}, no position counted from 0")
    layer = _layer(raw.get("layer"), type_, where)
    index, numbering = _index(raw, type_, layer, position, where, paired)
    probability = read_number(raw.get("token_prob"), f"{where}: token_prob")
    label = raw.get("clerp")
    if label is not None and not isinstance(label, str):
        raise BadInput(f"{where}: clerp is {shortened(label)}, no text")
    influence, activation = (
        read_number(raw.get(name), f"{where}: {name}") for name in ("influence", "activation")
    )
    return FileNode(
        raw["node_id"],
        type_,
        raw["feature_type"],
        attention,
        layer,
        index,
        position,
        influence,
        activation,
        probability if type_ is NodeType.LOGIT else None,
        raw.get("is_target_logit") is True,
        label or None,
        numbering,
    )


def counted_once(nodes: Sequence[FileNode]) -> tuple[Sequence[FileNode], bool]:
    """Nodes with their layers, and whether the file counts each layer twice.

    A file that does has no id of one that does not, all attention in even and all MLPs in odd
    layers, tokens in layer -1, and a node that no other tool's files have: of attention, or an
    error named as this one names them.
    """
    parts = [node for node in nodes if node.type in {NodeType.FEATURE, NodeType.ERROR}]
    tokens = (node.layer for node in nodes if node.type is NodeType.TOKEN)
    twice = (
        any(node.attention or _COUNTED_TWICE.fullmatch(node.id) for node in parts)
        and all((node.layer or 0) % 2 == (not node.attention) for node in parts)
        and all(layer == _BEFORE_ALL for layer in tokens)
        and not any(_COUNTED_ONCE.fullmatch(node.id) for node in parts)
    )
    if not twice:
        return nodes, False
    counted = {NodeType.FEATURE, NodeType.ERROR, NodeType.LOGIT}
    return [
        replace(node, layer=node.layer // 2)
        if node.type in counted and node.layer is not None
        else node
        for node in nodes
    ], True


def _type(text: Any, where: str) -> tuple[NodeType, bool]:
    """What a node is, and whether of attention."""
    if not isinstance(text, str):
        raise BadInput(f"{where}: feature_type is {shortened(text)}, no text")
    bare = text.lower()
    if bare == "lorsa" or ("transcoder" in bare and "error" not in bare):
        return NodeType.FEATURE, bare == "lorsa"
    if bare in {"mlp reconstruction error", "mlp error", "transcoder error", "lorsa error"}:
        return NodeType.ERROR, bare == "lorsa error"
    if bare in {"embedding", "token"}:
        return NodeType.TOKEN, False
    return (NodeType.LOGIT if bare in {"logit", "target logit"} else NodeType.OTHER), False


def _layer(value: Any, type_: NodeType, where: str) -> int | None:
    if type_ is NodeType.TOKEN:
        return value if type(value) is int and value == _BEFORE_ALL else None
    if type_ is NodeType.OTHER:  # its layer may be counted in any way
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 <= value < 10**9 else value
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        if type_ is NodeType.LOGIT:  # of no model's layer; some call it "L"
            return None
        raise BadInput(f"{where}: layer is {shortened(value)}, no layer counted from 0")
    return int(value)


def _index(
    raw: Mapping[str, Any],
    type_: NodeType,
    layer: int | None,
    position: int,
    where: str,
    paired: bool,
) -> tuple[int | None, Numbering | None]:
    """A node's number in its dictionary or the vocabulary, and how ``feature`` wrote it."""
    if type_ in {NodeType.ERROR, NodeType.OTHER}:
        return None, None
    found = _NODE_ID.fullmatch(raw["node_id"])
    fits = found is not None and int(found[3]) == position
    if type_ is NodeType.TOKEN:
        return (int(found[2]) if found and fits and found[1] == "E" else None), None
    number = raw.get("feature")
    if isinstance(number, bool) or not (number is None or isinstance(number, int)):
        raise BadInput(f"{where}: feature is {shortened(number)}, no number")
    if type_ is NodeType.LOGIT:
        index = int(found[2]) if found and fits else number
    else:
        fits = fits and found is not None and found[1] == str(layer)
        index = int(found[2]) if found and fits else _decoded(number, layer or 0, paired)
    if index is None or not 0 <= index < 10**9:
        raise BadInput(
            f"{where}: neither node_id nor feature ({shortened(number)}) tells its number"
        )
    if type_ is NodeType.LOGIT:
        return index, None
    return index, _numbering(number, layer or 0, index, paired)


def _decoded(number: int | None, layer: int, paired: bool) -> int | None:
    """Undo the numbering of the file's generation; None where it was another."""
    if number is None or number < 0:
        return None
    if not paired:
        index = number - layer * _INDICES_PER_LAYER
        return index if 0 <= index < _INDICES_PER_LAYER else None
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    index = number - diagonal * (diagonal + 1) // 2
    return index if diagonal - index == layer else None


def _numbering(number: int | None, layer: int, index: int, paired: bool) -> Numbering:
    ways: list[tuple[Numbering, int]] = [
        (Numbering.CANTOR, cantor(layer, index)),
        (Numbering.LAYERED, layer * _INDICES_PER_LAYER + index),
    ]
    # At layer 0 a small index may be written alike both ways: the file's generation decides.
    for way, written in [*(ways if paired else ways[::-1]), (Numbering.INDEX, index)]:
        if number == written:
            return way
    return Numbering.OTHER


def read_number(value: Any, where: str) -> float | None:
    """A number, or None where there is none.

    Raises:
        BadInput: It is something else, or no float holds it.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where} is {shortened(value)}, no number")
    try:
        return float(value)
    except OverflowError:
        raise BadInput(f"{where} is too large a number") from None


def shortened(value: Any) -> str:
    """A value for an error, whatever its size."""
    text = "a very large number" if isinstance(value, int) and abs(value) > 10**60 else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
