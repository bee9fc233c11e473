"""Families of models: which can be split into edges, which cannot, and why.

``families.csv`` has a line for each family that was tried, by the ``model_type`` of its
config.json; where only some models of a family cannot, a line for these, which says what is in
their config.json. A family without a line is not refused: its models are proven when they are run.
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
    """A family, or some models of it.

    Attributes:
        name: ``model_type`` of config.json.
        where: Which models, as ``alibi=true``, or ``layer_types~conv`` for a list that holds a
            value; empty for all others.
        edges: Whether they can be split into edges.
        note: Well-known models, and what is special of them; or why they cannot.
    """

    name: str
    where: str
    edges: bool
    note: str

    @property
    def which(self) -> str:
        """The models it is about, in words."""
        return f"{self.name} with {self.where}" if self.where else self.name

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether a model's configuration says that it is of these."""
        if config.get("model_type") != self.name:
            return False
        name, equals, value = self.where.partition("=")
        if equals:
            return json.dumps(config.get(name)) == value
        name, _, value = self.where.partition("~")
        return not self.where or value in (config.get(name) or [])


@cache
def families() -> tuple[Family, ...]:
    """All that were tried; lines for some models of a family stand before the others'."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Family(row["family"], row["where"], row["edges"] == "yes", row["note"]) for row in rows
    )


def family_of(config: Mapping[str, Any]) -> Family | None:
    """The family of a model with this config.json; None where it was not tried."""
    return next((family for family in families() if family.holds(config)), None)


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """The config.json of a model's folder; None where there is none that can be read.

    Whoever loads the model says what is wrong with it.
    """
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def require_edges(folder: Path, name: str) -> None:
    """Refuse a model that cannot be split into edges by its config.json, before it is loaded.

    Args:
        folder: Of the model.
        name: What it was asked for by.

    Raises:
        UnsupportedModel: Its family is known not to allow it.
    """
    config = read_config(folder)
    family = None if config is None else family_of(config)
    if family is not None and not family.edges:
        raise UnsupportedModel(
            f"{name} is a {family.which}, which cannot be split into edges: {family.note}; "
            "docs/models.md lists the families that can"
        )
