"""Where a job's model is and how to load it; consecutive jobs load a model once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.jobs.progress import Progress
from ingest.models.families import require_edges
from ingest.models.names import PlaceKind, locate

__all__ = ["KeptModel", "LoadModel", "ModelPlace", "load_place"]


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A model and its loading options; the fields are those of :func:`ingest.models.load`."""

    name: str
    revision: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: str = "float32"


LoadModel = Callable[[ModelPlace, Progress], Any]
"""Returns the ``TransformerBridge`` of a place: :func:`load_place` or a :class:`KeptModel`."""


def load_place(place: ModelPlace, progress: Progress) -> Any:
    """Load a model that can be split into edges, as all jobs here require.

    Raises:
        BadInput, NotFound, UnsupportedModel, MissingExtra: See :func:`ingest.models.load`.
    """
    found = locate(place.name, place.revision)
    if found.kind is PlaceKind.FOLDER:
        require_edges(Path(found.source), place.name)  # before the slow import of torch
    on_hub = found.kind is PlaceKind.HUB
    if on_hub:  # misspelt names are searched there too
        progress.stage(f"looking for {place.name} on the hub")

    def check(folder: Path) -> None:
        if on_hub:
            progress.stage(f"loading {place.name}")
        require_edges(folder, place.name)

    from ingest.models.loading import load

    if not on_hub:
        progress.stage(f"loading {place.name}")
    return load(
        place.name,
        device=place.device,
        device_map=place.device_map,
        dtype=place.dtype,
        revision=place.revision,
        check=check,
    )


class KeptModel:
    """Keeps the model that was loaded last, and loads again only if another one is requested."""

    def __init__(self) -> None:
        self._kept: tuple[ModelPlace, Any] | None = None

    def __call__(self, place: ModelPlace, progress: Progress) -> Any:
        """Return the model of a place; errors as for :func:`load_place`."""
        if self._kept is None or self._kept[0] != place:
            self._kept = None  # two models may not fit into memory
            self._kept = place, load_place(place, progress)
        return self._kept[1]
