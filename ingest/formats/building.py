"""Records from what a file says and what its user says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ingest.formats.base import ModelDoubt, Said
from ingest.known_models import model_slug
from registry.aliases import resolve_model
from registry.errors import BadInput
from registry.records import Circuit, Edge, Level, Node, Sign

__all__ = ["also_in_file", "edge_circuit", "negative_size", "stored_sign", "with_sign"]

_LONGEST_NAME = 200


def also_in_file(said: Said, notes: list[str], **in_file: Any) -> Said:
    """What the user says and, where the user does not say it, what the file says.

    Names of models and tasks are made slugs: a model's is the last part of its name on the hub, in
    lower case. Where the file says otherwise than the user, a note says so.

    Args:
        said: What the user says.
        notes: Appended to.
        in_file: Fields of :class:`Said` with the file's values; None, "" and ``unknown`` say
            nothing, nor does what cannot be a name.
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
            note = f"the file names the {name} {text}; taken is {ours}, as was said"
            notes.append(ModelDoubt(note) if name == "model" else note)
    return said.model_copy(update=found)


def _slug(text: str) -> str:
    """Lower case, and ``-`` for what a slug cannot hold."""
    parts = (re.sub(r"[^a-z0-9._\-]+", "-", part).strip("._-") for part in text.lower().split("/"))
    return "/".join(part for part in parts if part)


def with_sign(score: float | None, said: Said, of: str = "a part") -> float | None:
    """A score as it is stored: positive helps.

    Args:
        score: As the file has it.
        said: What the user says of the file.
        of: Which edge or node has it, for the error.

    Raises:
        BadInput: It is negative, in a file that was said to hold sizes.
    """
    if score is None:
        return None
    if score < 0 and said.sign == "unsigned":
        raise negative_size(score, of)
    return -score if said.sign == "hurts-positive" else score


def negative_size(score: float, of: str) -> BadInput:
    """What is wrong with a negative score among unsigned ones.

    It says that the file has signs after all, which the absolute value would lose.
    """
    return BadInput(
        f"the score of {of} is {score:g}, and unsigned scores are sizes, of which none is negative;"
        " say what the file's signs mean with --sign helps-positive or hurts-positive, or --sign"
        " unknown"
    )


def stored_sign(said: Said) -> Sign:
    """The sign that is recorded."""
    return Sign.HELPS_POSITIVE if said.sign == "hurts-positive" else Sign(said.sign)


def edge_circuit(said: Said, edges: Sequence[Edge], **more: Any) -> Circuit:
    """A circuit of these edges and the parts they join.

    Args:
        said: What the user says of the file.
        edges: With their effects as stored.
        more: Fields of the circuit that the file says, over what the user says.

    Raises:
        BadInput: The model or the task is not said.
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
