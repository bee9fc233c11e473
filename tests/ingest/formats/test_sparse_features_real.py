"""A real sparse feature circuit: every fact that its source states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from ingest.exchange.importing import FileOutcome, import_files
from registry import Registry

SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "external" / "sparse-feature-circuits"
REAL = SHARED / "gemma-2-2b_rc_train_n100_aggnone_neurons_nodeall.pt"


@pytest.mark.skipif(not SHARED.is_dir(), reason="other tools' files are not beside this checkout")
def test_the_real_file_has_the_facts_its_source_states(tmp_path: Path) -> None:
    with Registry.init(tmp_path / "home") as registry:
        assert_its_facts(registry)


def assert_its_facts(registry: Registry) -> None:
    what = {"model": "gemma-2-2b", "task": "rc", "top": 5}
    (report,) = import_files(registry, [REAL], what)
    assert (report.outcome, report.edges) == (FileOutcome.STORED, 0)
    circuit = registry.circuit(report.circuits[0]).circuit
    assert circuit.universe_size == 1_211_392
    assert circuit.parameters["n_examples"] == 100
    best = sorted(circuit.nodes, key=lambda node: node.rank or 0)
    assert [(node.component, node.position, node.effect) for node in best] == [
        ("l25.resid_post.f1142#neurons", "6", 0.1162109375),
        ("l19.attn_out.f845#neurons", "6", 0.10693359375),
        ("l16.attn_out.f959#neurons", "6", 0.10205078125),
        ("l19.attn_out.f994#neurons", "6", 0.095703125),
        ("l19.attn_out.f935#neurons", "6", 0.06494140625),
    ]
    assert report.notes[0].startswith(
        "1,211,392 effects in 78 places, 373,075 of them 0 and 0 missing,"
        " from -0.049072265625 to 0.1162109375"
    )
    assert circuit.scores is not None
    tensors = load(registry.artifact(circuit.scores))
    assert (
        sorted(tensor.shape for tensor in tensors.values()) == [(7, 2048)] * 26 + [(7, 2304)] * 52
    )
    assert {f"l{layer}.attn_out" for layer in range(26)} < set(tensors)
    assert all(tensors[f"l{layer}.attn_out"].shape == (7, 2048) for layer in range(26))
    values = np.concatenate([tensor.ravel() for tensor in tensors.values()])
    assert (values.size, int((values == 0).sum())) == (1_211_392, 373_075)
    assert (float(values.min()), float(values.max())) == (-0.049072265625, 0.1162109375)
    (prompts,) = registry.ledger.prompt_sets()
    assert prompts.n_prompts == 100
