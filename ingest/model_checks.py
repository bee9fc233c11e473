"""What ``circuits doctor --model`` finds out about one model, without a registry.

First from its config.json, then by loading it: whether it stays the same model when it is wrapped,
and whether it is built as edge attribution, exact patching and faithfulness assume.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.families import family_of, read_config, require_edges
from ingest.model_names import Place, PlaceKind, locate
from registry.cli.doctor import Check, State
from registry.errors import CircuitsError

__all__ = ["check_model"]

_PAGE = "docs/models.md lists the families that are known to work"


def check_model(name: str) -> Iterator[Check]:
    """Check a model step by step; the first that fails is the last.

    Args:
        name: A model built in, a folder, a ``.gguf`` file, or a name on the hub.
    """
    try:
        place = locate(name)
        yield Check("model", State.OK, f"{place} ({place.kind}), stored as {place.slug}")
        family = _family(place)
        if family is not None:
            yield family
            if family.state is State.FAIL:
                return
        yield from _loaded(name)
    except CircuitsError as error:
        yield Check("model", State.FAIL, str(error), _PAGE)


def _family(place: Place) -> Check | None:
    """By the config.json in its folder; one on the hub is read on the way to the weights."""
    config = read_config(Path(place.source)) if place.kind is PlaceKind.FOLDER else None
    return None if config is None else _verdict(config)


def _verdict(config: Any) -> Check:
    family = family_of(config)
    if family is None:
        kind = config.get("model_type", "of an unnamed family")
        return Check(
            "family", State.WARN, f"{kind} was not tried before", "what follows proves this model"
        )
    if family.edges:
        return Check("family", State.OK, f"{family.which} can be split into edges ({family.note})")
    return Check(
        "family", State.FAIL, f"{family.which} cannot be split into edges: {family.note}", _PAGE
    )


def _loaded(name: str) -> Iterator[Check]:
    from ingest import models
    from ingest.discovery.guard import prove_model

    bridge = models.load(name, check=lambda folder: require_edges(folder, name))
    yield Check("wrapping", State.OK, "its logits stay those of its authors' code")
    try:
        n_edges = prove_model(bridge)
    except CircuitsError as error:
        yield Check("edges", State.FAIL, str(error), _PAGE)
        return
    yield Check("edges", State.OK, f"{n_edges:,} edges; sums, gradients and partial circuits agree")
