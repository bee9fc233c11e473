"""Nodes of an attribution graph's JSON, checked.

Pitfalls of the format: ``node_id`` is not unique, because an error of layer 5 and feature 5 of
layer 0 both have the id ``0_5_3`` at position 3. ``feature`` is the Cantor pairing of layer and
index if ``schema_version`` is 1; before, it is layer times 100,000 (or another power of ten) plus
index. For errors and tokens it has no meaning. Layers are text or numbers; logits have a separate
layer after the last.

Features of attention (``lorsa``, low-rank sparse attention) appear in two forms. Neuronpedia calls
them ``5_lor_3036_7``, an error ``5_error_attn_7``, and counts layers as usual. Llamascopium
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

from ingest.formats.reading import OddScores, as_number, finite
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
    """The kind of a node, in the order in which the tool lists them."""

    FEATURE = "feature"
    ERROR = "error"
    TOKEN = "token"
    LOGIT = "logit"
    OTHER = "other"


class Numbering(StrEnum):
    """The rule for a feature's number in the file."""

    CANTOR = "the Cantor pairing of layer and index"
    LAYERED = "layer x 100,000 + index"
    INDEX = "their indices alone"
    OTHER = "no rule that is known"


@dataclass(frozen=True, slots=True)
class FileNode:
    """A node as the file has it.

    Attributes:
        id: Id that links use; two nodes may have the same id.
        type_name: The file's name of its type.
        attention: Whether a feature or an error belongs to a layer's attention, not to its MLP.
        layer: Layer of a feature or an error. For a logit: a number after the last layer, or None;
            for a token: -1 if the file gives it.
        index: Index of a feature in its dictionary, or of a token or logit in the vocabulary; None
            for errors, and if the file does not give it.
        position: Position of its token, from 0.
        influence: Share of all influence on the logits that this node and stronger nodes have.
        activation: Activation of a feature on this prompt.
        probability: Probability of a logit's token.
        target: Whether it is the logit that the graph explains.
        label: Its label, by people or the tool.
        numbering: The rule for a feature's number.
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
        """Order of nodes in a forward pass; nodes of an unknown type come first."""
        if self.type in {NodeType.TOKEN, NodeType.OTHER}:
            return _BEFORE_ALL
        if self.type is NodeType.LOGIT:
            return math.inf
        return 2 * (self.layer or 0) + (not self.attention)

    def key(self, dictionary: str) -> str:
        """Return the node's key in a circuit; its type must be known.

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
    """Return the number that ``schema_version`` 1 gives a feature."""
    return (layer + index) * (layer + index + 1) // 2 + index


def read_node(raw: Any, where: str, paired: bool, odd: OddScores) -> FileNode:
    """Read a node.

    Args:
        raw: As in the file.
        where: Its name in errors.
        paired: Whether the file gives ``schema_version``, so features' numbers are paired.
        odd: Receives numbers that are not finite.

    Raises:
        BadInput: It is malformed.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("node_id"), str):
        raise BadInput(f"{where} is no object with a node_id")
    called = repr(raw["node_id"][:60])
    where = f"{where} ({called})"
    probability, influence, activation = (
        odd.taken(read_number(raw.get(name), f"{where}: {name}"), f"{name} of {called}")
        for name in ("token_prob", "influence", "activation")
    )
    raw = finite(raw)
    type_, attention = _type(raw.get("feature_type"), where)
    position = raw.get("ctx_idx")
    if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < 2**31:
        raise BadInput(f"{where}: ctx_idx is {shortened(position)}, no position counted from 0")
    layer = _layer(raw.get("layer"), type_, where)
    index, numbering = _index(raw, type_, layer, position, where, paired)
    label = raw.get("clerp")
    if label is not None and not isinstance(label, str):
        raise BadInput(f"{where}: clerp is {shortened(label)}, no text")
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
    """Return nodes with their layers, and whether the file counts each layer twice.

    In such a file no id has the form of other files; all attention is in even layers, all MLPs are
    in odd layers, and tokens are in layer -1. It has at least one node that other tools do not
    write: of attention, or an error with this tool's form of name.
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
    """Return a node's type, and whether it belongs to attention."""
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
    if type_ is NodeType.OTHER:  # its layer may be counted by any rule
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 <= value < 10**9 else value
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        if type_ is NodeType.LOGIT:  # not in a layer of the model; some tools write "L"
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
    """Return a node's number in its dictionary or the vocabulary, and the rule of ``feature``."""
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
            f"{where}: neither node_id nor feature ({shortened(number)}) gives its number"
        )
    if type_ is NodeType.LOGIT:
        return index, None
    return index, _numbering(number, layer or 0, index, paired)


def _decoded(number: int | None, layer: int, paired: bool) -> int | None:
    """Undo the numbering of the file's generation; None if it has another numbering."""
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
    # At layer 0 a small index may look the same in both: the file's generation decides.
    for way, written in [*(ways if paired else ways[::-1]), (Numbering.INDEX, index)]:
        if number == written:
            return way
    return Numbering.OTHER


def read_number(value: Any, where: str) -> float | None:
    """Return a number, which may be infinite or NaN; None if it is missing.

    Raises:
        BadInput: It is not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where} is {shortened(value)}, no number")
    return as_number(value, where)


def shortened(value: Any) -> str:
    """Return a value's text for an error, of limited length."""
    text = "a very large number" if isinstance(value, int) and abs(value) > 10**60 else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
