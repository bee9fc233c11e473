"""Families of models: which of them can be split into edges, and why others cannot.

``families.csv`` has a line for each tested family, by the ``model_type`` of its config.json. If
only some models of a family cannot be split, a separate line describes these by their config.json.
A family without a line is not refused: its models are proven when they are used.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from registry.errors import UnsupportedModel

__all__ = ["Family", "families", "family_of", "read_config", "require_edges"]

_FILE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, slots=True)
class Family:
    """A family, or some models of a family.

    Attributes:
        name: ``model_type`` of config.json.
        where: Its models, as ``alibi=true``, ``layer_types~conv`` for a list that contains a value,
            or ``one!=other`` for two keys that differ; empty for all others.
        edges: Whether they can be split into edges.
        note: Well-known models and special features; or the reason why they cannot be split.
    """

    name: str
    where: str
    edges: bool
    note: str

    @property
    def which(self) -> str:
        """The models of this line, in words."""
        return f"{self.name} with {self.where}" if self.where else self.name

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Return whether a model's configuration belongs to this line."""
        if config.get("model_type") != self.name:
            return False
        one, unequal, other = self.where.partition("!=")
        if unequal:
            return {one, other} <= config.keys() and config[one] != config[other]
        name, equals, value = self.where.partition("=")
        if equals:
            return json.dumps(config.get(name)) == value
        name, _, value = self.where.partition("~")
        found = config.get(name)
        return not self.where or (isinstance(found, list | tuple) and value in found)


@cache
def families() -> tuple[Family, ...]:
    """Return all tested families; lines for some models of a family precede its other line."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    return tuple(
        Family(row["family"], row["where"], row["edges"] == "yes", row["note"]) for row in rows
    )


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a model with this config.json; None if it was not tested."""
    return next((family for family in families() if family.holds(config)), None)


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """Return the config.json of a model's folder; None if it cannot be read.

    The code that loads the model reports the error.
    """
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # the last for brackets that nest too deep
        return None
    return found if isinstance(found, dict) else None


def require_edges(folder: Path, name: str) -> None:
    """Refuse a model by its config.json if it cannot be split into edges, before loading it.

    Args:
        folder: Folder of the model.
        name: The requested name.

    Raises:
        UnsupportedModel: Its family is known to be unsuitable.
    """
    config = read_config(folder)
    family = None if config is None else family_of(config)
    if family is not None and not family.edges:
        raise UnsupportedModel(
            f"{name} is of the family {family.which}, which cannot be split into edges: "
            f"{family.note}; docs/models.md lists the families that can"
        )
