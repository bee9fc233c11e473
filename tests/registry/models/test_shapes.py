"""Parts that a model of a known shape cannot have are refused."""

from __future__ import annotations

import pytest

from registry.errors import BadIdentifier
from registry.models.shapes import check_components
from registry.records import Model

SHAPE = Model(slug="m", n_layers=12, n_heads=12)


def test_norms_and_the_unembedding_are_inside_the_model() -> None:
    check_components(SHAPE, ["l0.ln1", "l11.ln2_post", "l11.q_norm", "ln_final", "unembed"])


@pytest.mark.parametrize("name", ["l12.ln1", "l12.ln2_post", "l40.k_norm"])
def test_norms_of_a_layer_that_the_model_has_not_are_refused(name: str) -> None:
    with pytest.raises(BadIdentifier, match=f"m/{name}.* which has 12 layers"):
        check_components(SHAPE, [name])
