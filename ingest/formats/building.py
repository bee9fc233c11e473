"""Records from the statements of a file and its user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ingest.formats.base import ModelDoubt, Said
from ingest.models.names import model_slug
from registry.errors import BadInput
from registry.models.aliases import resolve_model
from registry.records import Circuit, Edge, Level, Node, Sign

__all__ = ["also_in_file", "edge_circuit", "negative_size", "stored_sign", "with_sign"]

_LONGEST_NAME = 200


def also_in_file(said: Said, notes: list[str], **in_file: Any) -> Said:
    """Complete the user's statements with those of the file.

    Names of models and tasks become slugs: for a model the last part of its name on the hub, in
    lower case. If file and user disagree, the user's statement is used, with a note.

    Args:
        said: The user's statements.
        notes: Is extended.
        in_file: Fields of :class:`Said` with the file's values; None, "", ``unknown`` and
            impossible names count as missing.
    """
    found: dict[str, str] = {}
    for name, value in in_file.items():
        text = value.strip() if isinstance(value, str) else ""
        if name == "model":
            text = resolve_model(model_slug(text))
        elif name == "task":
            text = _slug(text)
        if not text or text == "unknown" or len(text) > _LONGEST_NAME:
            continue
        ours = getattr(said, name)
        if ours is None:
            found[name] = text
        elif text not in (ours, resolve_model(ours)):
            note = f"the file names the {name} {text}; used is {ours}, as given by the user"
            notes.append(ModelDoubt(note) if name == "model" else note)
    return said.model_copy(update=found)


def _slug(text: str) -> str:
    """Return text in lower case, with ``-`` for characters that a slug cannot have."""
    parts = (re.sub(r"[^a-z0-9._\-]+", "-", part).strip("._-") for part in text.lower().split("/"))
    return "/".join(part for part in parts if part)


def with_sign(score: float | None, said: Said, of: str = "a part") -> float | None:
    """Return a score as it is stored: positive helps.

    Args:
        score: As the file has it.
        said: The user's statements about the file.
        of: The edge or node of the score, for the error.

    Raises:
        BadInput: It is negative, in a file of unsigned scores.
    """
    if score is None:
        return None
    if score < 0 and said.sign == "unsigned":
        raise negative_size(score, of)
    return -score if said.sign == "hurts-positive" else score


def negative_size(score: float, of: str) -> BadInput:
    """Return the error for a negative score among unsigned scores.

    It says that the file has signs, which the absolute value would lose.
    """
    return BadInput(
        f"the score of {of} is {score:g}, but unsigned scores cannot be negative;"
        " say what the file's signs mean with --sign helps-positive or hurts-positive, or --sign"
        " unknown"
    )


def stored_sign(said: Said) -> Sign:
    """Return the sign that is recorded."""
    return Sign.HELPS_POSITIVE if said.sign == "hurts-positive" else Sign(said.sign)


def edge_circuit(said: Said, edges: Sequence[Edge], **more: Any) -> Circuit:
    """Return a circuit of these edges and the parts that they join.

    Args:
        said: The user's statements about the file.
        edges: Edges with their effects as stored.
        more: Fields of the circuit that the file gives, which win over the user's statements.

    Raises:
        BadInput: The model or the task is not given.
    """
    fields: dict[str, Any] = {
        "model": said.need("model", "task"),
        "task": said.need("task"),
        "method": said.method or "unknown",
        "metric": said.metric,
        "higher_is_better": said.higher_is_better,
        "ablation": said.ablation,
        "sign": stored_sign(said),
        "level": Level.EDGE,
        "kv_heads": said.kv_heads,
        "edges": tuple(edges),
    }
    if "nodes" not in more:
        ends = {end for edge in edges for end in (edge.source, edge.target)}
        fields["nodes"] = tuple(_node(key) for key in ends)
    return Circuit(**{**fields, **more})


def _node(key: str) -> Node:
    component, at, position = key.partition("@")
    return Node(component=component, position=position if at else None)
