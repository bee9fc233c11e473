"""Shapes of common models, so that a head that a model does not have is noticed.

A file of circuits almost never gives the number of layers of its model. If the registry does not
know it either, ``known_models.csv`` may: one line per model, from the models' published
configurations, with its other names, and models of the same shape with other weights.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from registry.records import Model

__all__ = ["common_model", "common_models", "rows", "unlike_common"]

_FILE = Path(__file__).with_suffix(".csv")
_DECIDING = {"n_layers": "layers", "n_heads": "heads", "d_model": "dimensions"}
"""Sizes that two models of one name share; a vocabulary may be padded or extended."""


def common_model(slug: str) -> Model | None:
    """The shape of a common model, under the given slug; None if it is not in the file.

    A revision (``gpt2@abc``) has the shape of its model. Weights are not included.
    """
    found = common_models().get(slug.partition("@")[0])
    return None if found is None else found.model_copy(update={"slug": slug})


def unlike_common(model: Model) -> str | None:
    """How a model's shape differs from that of the common model of its name.

    Returns:
        ``12 layers, and gpt2-medium has 24``; None if nothing differs or no common model has that
        name. A slug with a revision (``gpt2@mine``) is the name of another model, so None as well.
    """
    common = common_models().get(model.slug)
    for name, words in _DECIDING.items():
        given, known = getattr(model, name), getattr(common, name, None)
        if None not in (given, known) and given != known:
            return f"{given} {words}, and {model.slug} has {known}"
    return None


@cache
def common_models() -> Mapping[str, Model]:
    """All shapes, by slug; models of the same shape are listed separately."""
    found: dict[str, Model] = {}
    for row in rows():
        for slug in (row["slug"], *row["same_shape"].split()):
            found[slug] = _model(slug, row)
    return found


def rows() -> Sequence[Mapping[str, str]]:
    """The file's lines, by its columns."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _model(slug: str, row: Mapping[str, str]) -> Model:
    sizes = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "d_vocab")
    return Model.model_validate(
        {
            "slug": slug,
            "parallel_attn_mlp": row["parallel_attn_mlp"] == "yes",
            **{name: int(row[name]) for name in sizes if row[name]},
        }
    )
