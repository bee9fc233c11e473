"""Language models: names, loading, and a proof that a wrapped model is the same model.

The names of this package are imported on first use, because most of them need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.lazy_names import lazy_names

if TYPE_CHECKING:
    from ingest.models.loading import (
        authors_code,
        default_bos,
        describe,
        load,
        unused_weights,
        weights_hash,
        wrap,
    )
    from ingest.models.names import resolve

__all__ = [
    "authors_code",
    "default_bos",
    "describe",
    "load",
    "resolve",
    "unused_weights",
    "weights_hash",
    "wrap",
]

_MODULES = {
    "authors_code": "loading",
    "default_bos": "loading",
    "describe": "loading",
    "load": "loading",
    "resolve": "names",
    "unused_weights": "loading",
    "weights_hash": "loading",
    "wrap": "loading",
}
__getattr__ = lazy_names(__name__, _MODULES)
