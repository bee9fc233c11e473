"""Where a job's model is and how it is to be loaded; jobs that follow each other load it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.families import require_edges
from ingest.jobs.progress import Progress
from ingest.model_names import PlaceKind, locate

__all__ = ["KeptModel", "LoadModel", "ModelPlace", "load_place"]


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A model and what it is loaded with; the fields are those of :func:`ingest.models.load`."""

    name: str
    revision: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: str = "float32"


LoadModel = Callable[[ModelPlace, Progress], Any]
"""Gives the ``TransformerBridge`` of a place: :func:`load_place` or a :class:`KeptModel`."""


def load_place(place: ModelPlace, progress: Progress) -> Any:
    """Load a model that can be split into edges, as all jobs here need.

    Raises:
        BadInput, NotFound, UnsupportedModel, MissingExtra: As from :func:`ingest.models.load`.
    """
    found = locate(place.name, place.revision)
    if found.kind is PlaceKind.FOLDER:
        require_edges(Path(found.source), place.name)  # before torch takes its seconds
    from ingest import models

    progress.stage(f"loading {place.name}")
    return models.load(
        place.name,
        device=place.device,
        device_map=place.device_map,
        dtype=place.dtype,
        revision=place.revision,
        check=lambda folder: require_edges(folder, place.name),
    )


class KeptModel:
    """Loads the model that is asked for first, and gives it again while it is asked for."""

    def __init__(self) -> None:
        self._kept: tuple[ModelPlace, Any] | None = None

    def __call__(self, place: ModelPlace, progress: Progress) -> Any:
        """As :func:`load_place`."""
        if self._kept is None or self._kept[0] != place:
            self._kept = None  # two models may not fit into memory
            self._kept = place, load_place(place, progress)
        return self._kept[1]
