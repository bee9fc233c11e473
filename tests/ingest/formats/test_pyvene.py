"""Folders of pyvene into a real registry."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load
from torch import Tensor

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Limits
from ingest.formats.pyvene.format import FORMAT
from ingest.formats.pyvene.sites import site_of
from registry import Registry
from registry.errors import BadInput
from registry.records import Circuit, Level
from tests.ingest.formats.pyvene_folders import config, rotated, saved, state_of

KEY = "layer_0_comp_block_output_unit_pos_nunit_1#0"
SAID = {"model": "gpt2", "task": "ioi"}
pytestmark = pytest.mark.seconds
LOW_RANK = {"low_rank_dimension": 2}


def one(registry: Registry, path: Path, **said: Any) -> FileReport:
    (report,) = import_files(registry, [path], {**SAID, **said})
    return report


def imported(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    report = one(registry, path, **said)
    assert report.outcome is FileOutcome.STORED, report.notes
    assert report.format == "pyvene"
    return report, registry.circuit(report.circuits[0]).circuit


def refused(registry: Registry, path: Path) -> str:
    report = one(registry, path)
    assert report.outcome is FileOutcome.REFUSED, report
    assert registry.circuits() == []
    return report.notes[0]


def about(circuit: Circuit, at: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = circuit.parameters["interventions"][at]
    return found


def matrix(registry: Registry, circuit: Circuit, at: int = 0) -> Tensor:
    data = registry.artifact(about(circuit, at)["rotation"])
    return torch.from_numpy(load(data)["rotation"])


def low_rank(folder: Path, **more: Any) -> Path:
    state, _ = rotated(8, 2)
    return saved(folder, config([LOW_RANK], **more), {KEY: state_of(8, state)})


class TestSubspaces:
    def test_a_learned_rotation_is_a_subspace_named_by_its_hash(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 2)
        row = {"layer": 8, "low_rank_dimension": 2}
        key = "layer_8_comp_block_output_unit_pos_nunit_1#0"
        path = saved(tmp_path / "das", config([row]), {key: state_of(8, state)})
        report, circuit = imported(registry, path)
        rotation = about(circuit)["rotation"]
        (node,) = circuit.nodes
        assert node.component == f"l8.resid_post#pyvene-{rotation[:12]}[0]"
        assert (circuit.level, circuit.edges, circuit.method) == (Level.SUBSPACE, (), "pyvene")
        assert about(circuit) == {
            "site": "l8.resid_post", "component": "block_output", "unit": "pos",
            "max_number_of_units": 1, "type": "LowRankRotatedSpaceIntervention",
            "state": f"intkey_{key}.bin", "rotation": rotation, "dimension": 8,
            "low_rank_dimension": 2,
            "subspaces": [
                {"component": node.component, "rank": 2, "columns": {"from": 0, "to": 2}}
            ],
        }  # fmt: skip
        assert report.notes == ()

    @pytest.mark.parametrize(("rows", "columns"), [(8, 2), (8, 1), (8, 8), (6, 5), (2, 8)])
    def test_the_rotation_is_the_one_that_torch_makes_of_the_state(
        self, registry: Registry, tmp_path: Path, rows: int, columns: int
    ) -> None:
        state, weight = rotated(rows, columns, seed=rows * columns)
        path = saved(tmp_path / "das", config([LOW_RANK]), {KEY: state_of(rows, state)})
        _, circuit = imported(registry, path)
        torch.testing.assert_close(matrix(registry, circuit), weight, atol=2e-6, rtol=0)

    def test_a_state_without_a_base_is_read_too(self, registry: Registry, tmp_path: Path) -> None:
        layer = torch.nn.Linear(3, 8, bias=False)
        torch.nn.utils.parametrizations.orthogonal(layer, use_trivialization=False)
        state = {f"rotate_layer.{key}": value for key, value in layer.state_dict().items()}
        path = saved(tmp_path / "das", config([LOW_RANK]), {KEY: state_of(8, state)})
        _, circuit = imported(registry, path)
        weight = layer.weight.detach()
        torch.testing.assert_close(matrix(registry, circuit), weight, atol=2e-6, rtol=0)

    @pytest.mark.parametrize("key", ["rotate_layer", "rotate_layer.weight"])
    def test_a_matrix_itself_as_reft_keeps_it_is_taken_as_it_is(
        self, registry: Registry, tmp_path: Path, key: str
    ) -> None:
        _, weight = rotated(8, 2)
        state = {"weight": torch.zeros(2, 8), "bias": torch.zeros(2), key: weight.bfloat16()}
        path = saved(tmp_path / "reft", config([LOW_RANK], "LoreftIntervention"), {KEY: state})
        _, circuit = imported(registry, path)
        assert torch.equal(matrix(registry, circuit), weight.bfloat16().float())

    def test_components_of_a_pca_are_rows(self, registry: Registry, tmp_path: Path) -> None:
        _, weight = rotated(8, 3)
        state = {"pca_components": weight.T.contiguous(), "pca_mean": torch.zeros(8)}
        path = saved(tmp_path / "pca", config([{}], "PCARotatedSpaceIntervention"), {KEY: state})
        _, circuit = imported(registry, path)
        assert torch.equal(matrix(registry, circuit), weight)

    def test_each_part_of_a_partition_is_a_subspace(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 8)
        row = {"subspace_partition": [[0, 4], [4, 6], [7, 6, 0]]}
        configuration = config([row], "RotatedSpaceIntervention")
        path = saved(tmp_path / "das", configuration, {KEY: state_of(8, state)})
        _, circuit = imported(registry, path)
        parts = about(circuit)["subspaces"]
        assert [(part["rank"], part["columns"]) for part in parts] == [
            (4, {"from": 0, "to": 4}), (2, {"from": 4, "to": 6}), (3, [7, 6, 0]),
        ]  # fmt: skip
        assert [node.component[-3:] for node in circuit.nodes] == ["[0]", "[1]", "[2]"]

    def test_a_boundary_that_was_learned_gives_the_rank(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 8)
        more = {"intervention_boundaries": torch.tensor([0.3]), "temperature": torch.tensor(50.0)}
        configuration = config([{}], "BoundlessRotatedSpaceIntervention")
        path = saved(tmp_path / "das", configuration, {KEY: state_of(8, state, **more)})
        _, circuit = imported(registry, path)
        assert about(circuit)["subspaces"][0]["rank"] == 3
        assert about(circuit)["boundary"] == pytest.approx(0.3)

    def test_masks_that_were_learned_choose_columns(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 8)
        masks = torch.tensor([1.0, -1, 3, -2, -1, -1, 5, 0])
        configuration = config([{}], "SigmoidMaskRotatedSpaceIntervention")
        path = saved(tmp_path / "das", configuration, {KEY: state_of(8, state, masks=masks)})
        _, circuit = imported(registry, path)
        (part,) = about(circuit)["subspaces"]
        assert (part["rank"], part["columns"]) == (3, [0, 2, 6])

    def test_a_whole_rotation_swaps_as_many_columns_as_it_is_told(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 8)
        configuration = config([{}], "RotatedSpaceIntervention", intervention_dimensions=[5])
        path = saved(tmp_path / "das", configuration, {KEY: state_of(5, state)})
        _, circuit = imported(registry, path)
        assert about(circuit)["subspaces"][0]["rank"] == 5

    def test_another_choice_of_columns_is_another_basis(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state, _ = rotated(8, 8)
        found = set()
        for at, partition in enumerate([[[0, 4]], [[0, 3]]]):
            configuration = config([{"subspace_partition": partition}])
            path = saved(tmp_path / str(at), configuration, {KEY: state_of(8, state)})
            found.add(imported(registry, path)[1].nodes[0].component)
        assert len(found) == 2

    def test_the_artifact_says_what_its_axes_are(self, registry: Registry, tmp_path: Path) -> None:
        _, circuit = imported(registry, low_rank(tmp_path / "das"))
        file = tmp_path / "rotation.safetensors"
        file.write_bytes(registry.artifact(about(circuit)["rotation"]))
        with safe_open(file, "numpy") as opened:
            said = json.loads(opened.metadata()["circuits"])
        assert said["axes"] == ["dimension", "column"]
        assert said["subspaces"] == [{"from": 0, "to": 2}]

    def test_columns_that_are_not_orthonormal_are_told(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state = {"rotate_layer": torch.ones(8, 2)}
        report, _ = imported(registry, saved(tmp_path / "x", config([LOW_RANK]), {KEY: state}))
        assert "are not orthonormal" in report.notes[0]


class TestFolders:
    def test_states_are_read_with_their_configuration_and_kept(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = low_rank(tmp_path / "das")
        reports = {r.path.name: r for r in import_files(registry, [path.parent], SAID)}
        state = path.parent / f"intkey_{KEY}.bin"
        assert reports["config.json"].outcome is FileOutcome.STORED
        assert reports[state.name].outcome is FileOutcome.SKIPPED
        assert reports[state.name].notes == ("read with config.json",)
        registry.gc(apply=True, grace_seconds=0)
        content = state.read_bytes()
        assert registry.artifact(hashlib.sha256(content).hexdigest()) == content
        circuit = registry.circuit(reports["config.json"].circuits[0]).circuit
        assert matrix(registry, circuit).shape == (8, 2)

    def test_the_same_folder_again_adds_nothing(self, registry: Registry, tmp_path: Path) -> None:
        path = low_rank(tmp_path / "das")
        imported(registry, path)
        assert one(registry, path).outcome is FileOutcome.KNOWN

    def test_interventions_at_several_places_are_one_circuit(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        rows = [
            {"layer": 1, "component": "mlp_output"},
            {"layer": 0, "component": "attention_output"},
            {"layer": 0, "component": "block_input"},
            {"layer": 3, "component": "block_input"},
            {"layer": 2, "component": "mlp_activation"},
        ]
        states = {
            f"layer_{row['layer']}_comp_{row['component']}_unit_pos_nunit_1#0": state_of(
                8, rotated(8, 2, seed)[0]
            )
            for seed, row in enumerate(rows)
        }
        _, circuit = imported(registry, saved(tmp_path / "das", config(rows), states))
        assert [about(circuit, at)["site"] for at in range(5)] == [
            "m1", "l0.attn_out", "l0.resid_pre", "l2.resid_post", "m2.hidden",
        ]  # fmt: skip
        assert len(circuit.nodes) == 5

    def test_the_same_place_twice_has_two_states(self, registry: Registry, tmp_path: Path) -> None:
        states = {KEY[:-1] + str(at): state_of(8, rotated(8, 2, at)[0]) for at in range(2)}
        path = saved(tmp_path / "das", config([LOW_RANK, LOW_RANK]), states)
        _, circuit = imported(registry, path)
        assert [about(circuit, at)["state"][-6:] for at in range(2)] == ["#0.bin", "#1.bin"]
        assert len(circuit.nodes) == 2

    @pytest.mark.parametrize(
        "key",
        [
            KEY,
            "layer.0.comp.block_output.unit.pos.nunit.1#0",
            "layer.0.repr.block_output.unit.pos.nunit.1#0",
        ],
    )
    def test_files_of_all_versions_are_found(
        self, registry: Registry, tmp_path: Path, key: str
    ) -> None:
        state, _ = rotated(8, 2)
        path = saved(tmp_path / "das", config([LOW_RANK]), {key: state_of(8, state)})
        _, circuit = imported(registry, path)
        assert about(circuit)["state"] == f"intkey_{key}.bin"

    def test_configurations_of_the_first_versions_are_read(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        configuration = {
            "intervenable_model_type": "gpt2",
            "intervenable_representations": [[4, "block_output", "pos", 1, 2, [[0, 1], [1, 2]]]],
            "intervenable_interventions_type": "<class 'x.LowRankRotatedSpaceIntervention'>",
            "mode": "parallel",
        }
        key = "layer.4.repr.block_output.unit.pos.nunit.1#0"
        states = {key: state_of(8, rotated(8, 2)[0])}
        _, circuit = imported(registry, saved(tmp_path / "old", configuration, states))
        assert [part["rank"] for part in about(circuit)["subspaces"]] == [1, 1]
        assert about(circuit)["site"] == "l4.resid_post"

    def test_representations_may_be_objects(self, registry: Registry, tmp_path: Path) -> None:
        row = {"layer": 0, "component": "block_output", "unit": "pos", "low_rank_dimension": 2}
        configuration = config([LOW_RANK]) | {"representations": [row]}
        states = {KEY: state_of(8, rotated(8, 2)[0])}
        _, circuit = imported(registry, saved(tmp_path / "das", configuration, states))
        assert about(circuit)["low_rank_dimension"] == 2

    def test_modules_by_their_paths_are_sites_too(self, registry: Registry, tmp_path: Path) -> None:
        row = {"component": "model.layers[15].mlp.output", "low_rank_dimension": 2}
        key = "comp_model_layers[15]_mlp_output_unit_pos_nunit_1#0"
        states = {key: state_of(8, rotated(8, 2)[0])}
        path = saved(tmp_path / "das", config([row]), states)
        _, circuit = imported(registry, path, model="some-llama")
        assert about(circuit)["site"] == "m15"

    def test_what_learned_no_rotation_is_told_and_no_subspace(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        kinds = ["LowRankRotatedSpace", "Vanilla", "SigmoidMask"]
        rows = [LOW_RANK, {"layer": 1}, {"layer": 2}]
        configuration = config(rows) | {
            "intervention_types": [f"<class 'p.{kind}Intervention'>" for kind in kinds]
        }
        states = {
            KEY: state_of(8, rotated(8, 2)[0]),
            "layer_2_comp_block_output_unit_pos_nunit_1#0": {"mask": torch.zeros(8)},
        }
        report, circuit = imported(registry, saved(tmp_path / "das", configuration, states))
        assert len(circuit.nodes) == 1
        assert report.notes == (
            "intervention 2 (VanillaIntervention) has no state and no subspace",
            "intervention 3 (SigmoidMaskIntervention) has no rotation and no subspace",
        )

    def test_model_and_task_are_asked_for(self, registry: Registry, tmp_path: Path) -> None:
        (report,) = import_files(registry, [low_rank(tmp_path / "das")], {"model": "gpt2"})
        assert "--task" in report.notes[0]


class TestPlaces:
    @pytest.mark.parametrize(
        ("component", "site"),
        [
            ("transformer.h[3].output", "l3.resid_post"),
            ("h.3.input", "l2.resid_post"),
            ("model.layers[0].input", "l0.resid_pre"),
            ("model.layers[3].self_attn.output", "l3.attn_out"),
            ("model.layers[3].self_attn.o_proj.output", "l3.attn_out"),
            ("transformer.h[3].mlp.c_proj.input", "m3.hidden"),
            ("model.layers[3].mlp.down_proj.input", "m3.hidden"),
            ("gpt_neox.layers[3].mlp.output", "m3"),
        ],
    )
    def test_paths_of_modules_have_the_layer_in_them(self, component: str, site: str) -> None:
        assert site_of(component, 9, "llama", "here") == site

    @pytest.mark.parametrize(
        ("component", "says"),
        [
            ("attention_value_output", "all heads of a layer at once"),
            ("transformer.h[3].attn.c_proj.input", "all heads of a layer at once"),
            ("head_attention_value_output", "does not record which"),
            ("head_query_output", "does not record which"),
            ("mlp_input", "after its norm"),
            ("model.layers[3].self_attn.input", "after its norm"),
            ("cell_output", "no site here for 'cell_output'"),
            ("model.norm.output", "no site here for"),
            ("../../etc/passwd", "no site here for"),
        ],
    )
    def test_places_without_a_site_are_refused_by_name(
        self, registry: Registry, tmp_path: Path, component: str, says: str
    ) -> None:
        with pytest.raises(BadInput, match=says):
            site_of(component, 0, "gpt2", "here")

    def test_a_folder_with_such_a_place_is_refused_whole(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        rows: list[dict[str, Any]] = [LOW_RANK, {"component": "attention_value_output"}]
        keys = [KEY, "layer_0_comp_attention_value_output_unit_pos_nunit_1#0"]
        states = {key: state_of(8, rotated(8, 2)[0]) for key in keys}
        says = refused(registry, saved(tmp_path / "das", config(rows), states))
        assert says.startswith("config.json, intervention 2: 'attention_value_output'")

    @pytest.mark.parametrize("model", ["llama-3-8b", "gemma-2-2b", "smollm2-135m-instruct-q4_1"])
    def test_the_gate_of_a_gated_mlp_is_not_its_hidden_layer(self, model: str) -> None:
        with pytest.raises(BadInput, match="only the gate"):
            site_of("mlp_activation", 0, model, "here")
        assert site_of("mlp_activation", 0, "gpt2", "here") == "m0.hidden"


class Spy:
    """Unpickling one would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class TestRefusals:
    def test_nothing_but_tensors_is_unpickled(self, registry: Registry, tmp_path: Path) -> None:
        marker = tmp_path / "was-run"
        path = saved(tmp_path / "das", config([LOW_RANK]), {KEY: {"rotate_layer": Spy(marker)}})
        assert "only tensors and plain containers" in refused(registry, path)
        assert not marker.exists()

    def test_a_state_that_is_missing_is_named(self, registry: Registry, tmp_path: Path) -> None:
        says = refused(registry, saved(tmp_path / "das", config([LOW_RANK]), {}))
        assert f"its state is not in the folder (intkey_{KEY}.bin)" in says

    def test_links_and_paths_are_not_followed(self, registry: Registry, tmp_path: Path) -> None:
        state, _ = rotated(8, 2)
        torch.save(state_of(8, state), tmp_path / "outside.bin")
        path = saved(tmp_path / "das", config([LOW_RANK]), {})
        (path.parent / f"intkey_{KEY}.bin").symlink_to(tmp_path / "outside.bin")
        assert "not in the folder" in refused(registry, path)

    def test_nothing_learned_is_nothing_to_import(self, registry: Registry, tmp_path: Path) -> None:
        path = saved(tmp_path / "das", config([{}], "VanillaIntervention"), {})
        assert "no intervention has a rotation" in refused(registry, path)

    def test_a_tensor_larger_than_what_the_file_holds_is_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        state = {"rotate_layer": torch.ones(1).expand(100_000, 1_000_000)}
        path = saved(tmp_path / "das", config([LOW_RANK]), {KEY: state})
        assert "not what the file holds" in refused(registry, path)

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            ([1], "no dictionary of tensors"),
            ({"rotate_layer": 1}, "no plain tensor"),
            ({"rotate_layer": torch.eye(3).to_sparse()}, "no plain tensor"),
            ({"rotate_layer": torch.ones(3)}, "no matrix of floats"),
            ({"rotate_layer": torch.ones(3, 3, dtype=torch.int64)}, "no matrix of floats"),
            ({"rotate_layer": torch.full((8, 2), float("nan"))}, "is not finite"),
            ({"rotate_layer": torch.ones(0, 2)}, "is not what the file holds"),
            ({"rotate_layer": torch.eye(8), "masks": torch.ones(7)}, "7 masks for 8 columns"),
            ({"rotate_layer": torch.eye(8), "masks": -torch.ones(8)}, "choose no column"),
            (
                {"rotate_layer": torch.eye(8), "intervention_boundaries": torch.ones(2)},
                "boundaries",
            ),
        ],
    )
    def test_a_malformed_state_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, state: Any, says: str
    ) -> None:
        assert says in refused(registry, saved(tmp_path / "x", config([LOW_RANK]), {KEY: state}))

    def test_a_base_of_another_size_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        state, _ = rotated(8, 2)
        state["rotate_layer.parametrizations.weight.0.base"] = torch.eye(7)
        path = saved(tmp_path / "das", config([LOW_RANK]), {KEY: state_of(8, state)})
        assert "does not fit a rotation of (8, 2)" in refused(registry, path)

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ({"layer": -1}, "layer is '-1'"),
            ({"layer": "3"}, "layer is '3'"),
            ({"component": None}, "component is 'None'"),
            ({"unit": "t"}, "unit 't'"),
            ({"max_number_of_units": 1.5}, "max_number_of_units"),
            ({"moe_key": 3}, "inside an expert"),
            ({"subspace_partition": [[0, 3]]}, "no columns of the 2"),
            ({"subspace_partition": [[1, 1]]}, "an empty part"),
            ({"subspace_partition": {"0": 1}}, "no list of parts"),
        ],
    )
    def test_a_malformed_representation_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, row: dict[str, Any], says: str
    ) -> None:
        states = {KEY: state_of(8, rotated(8, 2)[0])}
        assert says in refused(registry, saved(tmp_path / "das", config([row]), states))

    @pytest.mark.parametrize("representations", [None, {}, [1], ["block_output"]])
    def test_malformed_configurations_are_refused(
        self, registry: Registry, tmp_path: Path, representations: Any
    ) -> None:
        configuration = config([LOW_RANK]) | {"representations": representations}
        assert "representation" in refused(registry, saved(tmp_path / "x", configuration, {}))

    def test_states_larger_than_allowed_are_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = low_rank(tmp_path / "das")
        limits = Limits(max_bytes=len(path.read_bytes()))
        (report,) = import_files(registry, [path], SAID, limits=limits)
        assert "--max-bytes" in report.notes[0]

    def test_without_torch_the_extra_is_named(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = low_rank(tmp_path / "das")
        monkeypatch.setitem(sys.modules, "torch", None)
        assert "needs the extra 'discover'" in refused(registry, path)


def test_other_configurations_are_not_taken_for_it(tmp_path: Path) -> None:
    content = b'{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}'
    assert FORMAT.sniff(tmp_path / "config.json", content) == 0
