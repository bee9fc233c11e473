"""Scores of one tiny model, kept: what ``exact`` and the gradient methods gave when they agreed
with the reference and with patching. ``make golden`` writes them anew."""

from __future__ import annotations

import json
import os

import pytest
import torch

from ingest.discovery import attribute_edges, prepare_setting
from ingest.discovery.edges.attribution import Method
from tests.golden_files import FOLDER, RENEW
from tests.ingest.discovery.decoders import bridge, clean_ids, corrupt_ids, metric

FILE = FOLDER / "discovery" / "edge_scores_gpt2.json"
METHODS: tuple[Method, ...] = (
    "exact",
    "eap",
    "eap-ig-inputs",
    "eap-ig-activations",
    "clean-corrupted",
)


def scores(method: Method) -> dict[str, float]:
    model = bridge("gpt2", torch.float64)
    return attribute_edges(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric()), method=method, steps=5
    ).to_dict()


def test_golden_scores_are_renewed_on_request() -> None:
    if os.environ.get(RENEW):
        found = {m: {edge: round(s, 12) for edge, s in scores(m).items()} for m in METHODS}
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
    assert set(json.loads(FILE.read_text(encoding="utf-8"))) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_what_they_were(method: Method) -> None:
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[method]
    found = scores(method)
    assert found.keys() == wanted.keys()
    largest = max(map(abs, wanted.values()))
    assert largest > 0.01
    for edge, score in wanted.items():
        assert found[edge] == pytest.approx(score, abs=1e-6 * largest), edge
