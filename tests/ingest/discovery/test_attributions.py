"""Attributions of TransformerLens itself, on a tiny model, into a real registry in one call."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.tools.analysis import (
    EdgeAttributionConfig,
    attribution_patch,
    direct_logit_attribution,
)
from transformer_lens.tools.analysis.attribution_patching import Node

from registry import Registry
from registry.errors import BadIdentifier, BadInput
from registry.models.edge_space import EdgeSpace
from registry.records import Ablation, Circuit, Level, Model, Sign
from tests.ingest import tiny_models

DOCS = Path(__file__).parents[3] / "docs" / "formats.md"
CLEAN = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7]])
CORRUPT = torch.tensor([[3, 4, 6, 6], [3, 4, 7, 7]])
RIGHT, WRONG = torch.tensor([5, 6]), torch.tensor([7, 8])
SPACE = EdgeSpace(2, 4, 4)
SAID: dict[str, Any] = {"task": "ioi", "model": "tiny"}


@pytest.fixture(scope="module")
def model() -> Any:
    made = tiny_models.gpt2().eval()
    bridge = build_bridge_from_module(made, "GPT2LMHeadModel", hf_config=made.config)
    bridge.enable_compatibility_mode()
    return bridge.eval()


def logits(model: Any, unit: str, **more: Any) -> Any:
    given = {"answer_tokens": RIGHT, "incorrect_tokens": WRONG, "unit": unit, **more}
    return direct_logit_attribution(model, CLEAN, **given)


def margin(logits: torch.Tensor) -> torch.Tensor:
    return logits[0, -1, 5] - logits[0, -1, 7]


def recorded(registry: Registry, *results: Any, **said: Any) -> Circuit:
    (id,) = registry.record(*results, **{**SAID, **said}).circuits
    return registry.circuit(id).circuit


def effects(circuit: Circuit) -> dict[str, float | None]:
    return {node.component: node.effect for node in circuit.nodes}


class TestLogits:
    def test_heads_mlps_and_the_input_make_up_the_difference_of_logits(
        self, registry: Registry, model: Any
    ) -> None:
        circuit = recorded(registry, logits(model, "head"), logits(model, "component"))
        assert set(effects(circuit)) == set(SPACE.senders)
        with torch.no_grad():
            last = model(CLEAN)[:, -1]
        bias = model.b_U if hasattr(model, "b_U") else torch.zeros(last.shape[-1])
        rows = torch.arange(2)
        wanted = (last[rows, RIGHT] - bias[RIGHT]) - (last[rows, WRONG] - bias[WRONG])
        # What attention adds without any head is its bias; the rest of it are its heads.
        others = circuit.parameters["no_parts"]
        of_heads = {layer: sum(effect or 0 for name, effect in effects(circuit).items()
                               if name.startswith(f"a{layer}.")) for layer in (0, 1)}  # fmt: skip
        biases = sum(others[f"{layer}_attn_out"] - of_heads[layer] for layer in (0, 1))
        total = sum(effect or 0 for effect in effects(circuit).values()) + biases
        assert total == pytest.approx(float(wanted.mean()), abs=1e-5)

    def test_each_head_has_what_the_tool_gives_it(self, registry: Registry, model: Any) -> None:
        result = logits(model, "head")
        circuit = recorded(registry, result)
        means = dict(zip(result.labels, result.attribution.mean(1).tolist(), strict=True))
        remainder = means.pop("remainder")
        assert effects(circuit) == pytest.approx(
            {f"a{label[1]}.h{label[3]}": value for label, value in means.items()}
        )
        assert circuit.parameters["no_parts"] == pytest.approx({"remainder": remainder})
        ranked = sorted(circuit.nodes, key=lambda node: node.rank or 0)
        assert [node.component for node in ranked] == sorted(
            effects(circuit), key=lambda name: -abs(effects(circuit)[name] or 0)
        )

    def test_unit_and_metric_are_named_and_positive_helps(
        self, registry: Registry, model: Any
    ) -> None:
        circuit = recorded(registry, logits(model, "head"), metric="logit_difference")
        assert (circuit.metric, circuit.method) == ("logit_difference", "direct-logit-attribution")
        assert (circuit.level, circuit.sign) == (Level.NODE, Sign.HELPS_POSITIVE)
        assert (circuit.ablation, circuit.higher_is_better) == (Ablation.NONE, True)
        assert (circuit.universe_size, circuit.selection) == (8, None)
        told = {
            key: circuit.parameters[key] for key in ("tool", "unit", "effect_unit", "n_prompts")
        }
        assert told == {
            "tool": "transformer_lens", "unit": ["head"], "effect_unit": "logit", "n_prompts": 2,
        }  # fmt: skip
        other = recorded(registry, logits(model, "head"), task="other")
        assert other.metric == "direct_logit_attribution"

    def test_both_embeddings_are_one_input(self, registry: Registry, model: Any) -> None:
        result = logits(model, "component")
        means = dict(zip(result.labels, result.attribution.mean(1).tolist(), strict=True))
        circuit = recorded(registry, result)
        assert set(effects(circuit)) == {"input", "m0", "m1"}
        assert effects(circuit)["input"] == pytest.approx(means["embed"] + means["pos_embed"])

    def test_the_strongest_may_be_asked_for(self, registry: Registry, model: Any) -> None:
        every = recorded(registry, logits(model, "head"))
        some = recorded(registry, logits(model, "head"), top=3)
        strongest = {node.component for node in every.nodes if (node.rank or 9) <= 3}
        assert set(effects(some)) == strongest
        assert (some.selection, some.universe_size) == ({"top": 3, "by": "absolute"}, 8)

    def test_recording_it_again_adds_nothing(self, registry: Registry, model: Any) -> None:
        recorded(registry, logits(model, "head"))
        assert registry.record(logits(model, "head"), **SAID).circuits == ()

    @pytest.mark.parametrize(
        ("unit", "more", "said", "says"),
        [
            ("layer", {}, {}, "is cumulative over layers"),
            ("head", {"pos": None}, {}, "select one position, such as pos=-1"),
            ("head", {}, {"model": None}, "does not name its model"),
            ("head", {}, {"model": "no such name"}, "give the name to store it under"),
            ("head", {}, {"task": None}, "needs its task"),
            ("head", {}, {"top": 0}, "top is 0, but must be a number of at least 1"),
            ("head", {}, {"higher_is_better": False}, "omit higher_is_better"),
            ("head", {}, {"colour": "red"}, "does not know 'colour'"),
        ],
    )
    def test_what_is_no_attribution_to_parts_is_refused(
        self, registry: Registry, model: Any, unit: str, more: dict[str, Any],
        said: dict[str, Any], says: str,
    ) -> None:  # fmt: skip
        with pytest.raises(BadInput, match=re.escape(says)):
            registry.record(logits(model, unit, **more), **{**SAID, **said})
        assert registry.circuits() == []

    def test_a_part_that_two_results_score_is_refused(self, registry: Registry, model: Any) -> None:
        with pytest.raises(BadInput, match=r"a0\.h0 is scored by two of the results"):
            registry.record(logits(model, "head"), logits(model, "head"), **SAID)

    def test_scores_that_are_not_finite_or_of_no_part_are_refused(
        self, registry: Registry, model: Any
    ) -> None:
        result = logits(model, "head")
        broken = replace(result, attribution=result.attribution * float("nan"))
        with pytest.raises(BadInput, match="the score of L0H0 is nan"):
            registry.record(broken, **SAID)
        strange = replace(result, labels=["whatever", *result.labels[1:]])
        with pytest.raises(BadInput, match="'whatever', which names no part"):
            registry.record(strange, **SAID)

    def test_a_head_that_the_model_has_not_is_refused(self, registry: Registry, model: Any) -> None:
        small = Model(slug="small", n_layers=1, n_heads=4)
        with pytest.raises(BadIdentifier):
            registry.record(logits(model, "head"), task="ioi", model=small)

    def test_a_head_that_a_common_model_has_not_is_refused(
        self, registry: Registry, model: Any
    ) -> None:
        result = logits(model, "head")
        far = replace(result, labels=["L99H1", *result.labels[1:]])
        with pytest.raises(BadIdentifier, match=r"gpt2/a99\.h1"):
            registry.record(far, task="ioi", model="gpt2")
        assert recorded(registry, far, model="unknown-to-all").nodes

    def test_a_shape_that_the_registry_has_stands_over_the_common_one(
        self, registry: Registry, model: Any
    ) -> None:
        result = logits(model, "head")
        far = replace(result, labels=["L99H1", *result.labels[1:]])
        registry.record(Model(slug="gpt2", n_layers=100, n_heads=4))
        assert recorded(registry, far, model="gpt2").nodes

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"labels": ["L0H0", "L0H0"]}, "the label 'L0H0' twice"),
            ({"labels": ["L0H0", 7]}, "a label 7, which is not text"),
            ({"attribution": torch.zeros(2, 0)}, r"the shape \[2, 0\]"),
            ({"attribution": torch.zeros(2, dtype=torch.complex64)}, "L0H0 is 0j, not a finite"),
        ],
    )
    def test_what_is_no_list_of_scores_is_refused_by_name(
        self, registry: Registry, model: Any, changes: dict[str, Any], says: str
    ) -> None:
        whole = {"labels": ["L0H0", "L0H1"], "attribution": torch.zeros(2), **changes}
        with pytest.raises(BadInput, match=says):
            registry.record(replace(logits(model, "head"), **whole), **SAID)


class TestPatching:
    def test_parts_have_the_sum_over_positions(self, registry: Registry, model: Any) -> None:
        result = attribution_patch(model, CLEAN, CORRUPT, margin)
        circuit = recorded(registry, result, metric="logit_difference", higher_is_better=True)
        assert set(effects(circuit)) == set(SPACE.senders)
        wanted = sum(score for node, score in result.node_scores.items()
                     if (node.kind, node.layer, node.head) == ("attn_head_out", 1, 2))  # fmt: skip
        assert effects(circuit)["a1.h2"] == pytest.approx(wanted)
        assert (circuit.method, circuit.level) == ("attribution-patching", Level.NODE)
        assert (circuit.sign, circuit.ablation) == (Sign.HELPS_POSITIVE, Ablation.RESAMPLE)
        assert circuit.universe_size == len(SPACE.senders)
        assert circuit.parameters == {
            "tool": "transformer_lens", "effect_unit": "metric", "granularity": "node",
            "n_positions": 4,
        }  # fmt: skip

    def test_the_sign_is_unknown_until_the_metric_is_told(
        self, registry: Registry, model: Any
    ) -> None:
        result = attribution_patch(model, CLEAN, CORRUPT, margin)
        unknown = recorded(registry, result)
        assert (unknown.sign, unknown.metric) == (Sign.UNKNOWN, None)
        turned = recorded(registry, result, task="loss", higher_is_better=False)
        assert turned.sign is Sign.HELPS_POSITIVE
        assert effects(turned) == {
            name: -(effect or 0.0) for name, effect in effects(unknown).items()
        }

    def test_edges_are_chosen_by_size(self, registry: Registry, model: Any) -> None:
        config = EdgeAttributionConfig(granularity="edge")
        result = attribution_patch(model, CLEAN, CORRUPT, margin, config)
        circuit = recorded(registry, result, top=5, higher_is_better=True)
        assert (circuit.level, len(circuit.edges)) == (Level.EDGE, 5)
        assert circuit.universe_size == SPACE.n_edges == 110
        assert circuit.selection == {"top": 5, "by": "absolute"}
        places = {(SPACE.senders[row], SPACE.receivers[column].name)
                  for row, column in SPACE.edges()}  # fmt: skip
        for edge in circuit.edges:
            target = edge.target + (f"<{edge.port}>" if edge.port else "")
            assert (edge.source, target) in places
        with pytest.raises(BadInput, match="scores of all edges are not a circuit yet"):
            registry.record(result, **SAID)

    @pytest.mark.parametrize(
        ("writer", "reader", "says"),
        [
            (("q_input", 0, 1), ("mlp_in", 1, None), "'q_input', which reads"),
            (("attn_head_out", 0, 1), ("mlp_out", 1, None), "'mlp_out', which writes"),
            (("mlp_out", 1, None), ("mlp_in", 0, None), "m1 -> m0, which is in no model"),
            (("mlp_out", 1, None), ("mlp_in", 1, None), "m1 -> m1, which is in no model"),
        ],
    )
    def test_edges_that_no_model_has_are_refused(
        self, registry: Registry, model: Any, writer: Any, reader: Any, says: str
    ) -> None:
        result = attribution_patch(model, CLEAN, CORRUPT, margin)
        ends = tuple(
            Node(kind=kind, layer=layer, head=head, position=0)
            for kind, layer, head in (writer, reader)
        )
        with pytest.raises(BadInput, match=says):
            registry.record(replace(result, edge_scores={ends: 1.0}), **SAID, top=1)

    def test_a_score_that_is_text_or_of_what_reads_is_refused(
        self, registry: Registry, model: Any
    ) -> None:
        result = attribution_patch(model, CLEAN, CORRUPT, margin)
        node = next(iter(result.node_scores))
        with pytest.raises(BadInput, match=r"is '0\.5', not a finite number"):
            registry.record(replace(result, node_scores={node: "0.5"}), **SAID)
        with pytest.raises(BadInput, match="scores are list"):
            registry.record(replace(result, node_scores=[0.5]), **SAID)
        large = {replace(node, position=at): 1e308 for at in (0, 1)}
        with pytest.raises(BadInput, match="the score of input is inf"):
            registry.record(replace(result, node_scores=large), **SAID)
        reads = Node(kind="k_input", layer=0, head=1, position=0)
        with pytest.raises(BadInput, match="'k_input', which reads"):
            registry.record(replace(result, node_scores={reads: 0.5}), **SAID)


def test_what_discovery_scored_is_chosen_before(registry: Registry) -> None:
    with pytest.raises(BadInput, match="describe results"):
        registry.record(Model(slug="tiny"), top=3)


def test_the_example_of_the_documentation_records_two_circuits(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DOCS.read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    Registry.init(tmp_path / ".circuits").close()
    monkeypatch.chdir(tmp_path)
    given = {
        "model": model, "clean": CLEAN, "corrupt": CORRUPT, "metric": margin,
        "answers": RIGHT, "others": WRONG,
    }  # fmt: skip
    exec(compile(example, "docs/formats.md", "exec"), given)
    with Registry.open(tmp_path / ".circuits") as opened:
        circuits = [opened.document(entry.id) for entry in opened.circuits()]
    assert {circuit.method for circuit in circuits} == {
        "direct-logit-attribution", "attribution-patching",
    }  # fmt: skip
    for circuit in circuits:
        kinds = {node.component[0] for node in circuit.nodes}
        assert {"a", "m"} <= kinds
        assert circuit.metric == "logit_difference"
