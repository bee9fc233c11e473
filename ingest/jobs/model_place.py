"""Where a job's model is and how it is to be loaded; jobs that follow each other load it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.jobs.progress import Progress

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
    """Load a model.

    Raises:
        BadInput, NotFound, UnsupportedModel, MissingExtra: As from :func:`ingest.models.load`.
    """
    from ingest import models

    progress.stage(f"loading {place.name}")
    return models.load(
        place.name,
        device=place.device,
        device_map=place.device_map,
        dtype=place.dtype,
        revision=place.revision,
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
