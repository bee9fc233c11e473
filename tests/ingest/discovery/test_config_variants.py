"""One setting changed in every documented family: computed as transformers does, or refused.

The whole sweep, with activations, epsilons and every kind of rotary embedding, is
``python benchmarks/config_variants.py``.
"""

from __future__ import annotations

import re

import pytest

from tests.few import left_to_make_slow
from tests.ingest.discovery.config_variants import NO_MODEL, Variant, judge, variants
from tests.ingest.discovery.families import FAMILIES

pytestmark = pytest.mark.seconds

BRIEF = [one for name in FAMILIES for one in variants(name) if one.brief]
COMPUTED = [one for one in BRIEF if str(one) not in NO_MODEL]
FIRST = {str((one.label, one.refused)): str(one) for one in reversed(COMPUTED)}.values()
"""Each setting in the first family that has it, and in the first that is refused for it."""


@pytest.mark.parametrize(
    "variant",
    [
        one if str(one) in FIRST else left_to_make_slow(one, kept="each setting in one family")
        for one in COMPUTED
    ],
    ids=str,
)
def test_a_changed_setting_is_computed_as_transformers_does_or_refused(variant: Variant) -> None:
    outcome = judge(variant)
    assert outcome.kind == ("refused" if variant.refused else "same"), outcome.text
    assert re.search(variant.refused or "", outcome.text)
    assert outcome.changed or not variant.matters


@pytest.mark.parametrize("variant", [one for one in BRIEF if str(one) in NO_MODEL], ids=str)
def test_what_transformers_cannot_run_is_still_that(variant: Variant) -> None:
    assert judge(variant).kind == "no model"
