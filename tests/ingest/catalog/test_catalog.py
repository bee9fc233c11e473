"""Published circuits: their files, and what loading them stores."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.catalog import Entry, catalogue, find_entry, load
from ingest.catalog.building import circuit_of, evaluations_of, model_of
from ingest.catalog.entries import FOLDER, read_entry
from ingest.tasks.catalogue import all_tasks
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput, IncompatibleModel, NotFound
from registry.identifiers import can_feed, parse_node_key
from registry.models.shapes import check_components
from registry.records import Circuit, CircuitState, Level, Model, Node, Sign

ENTRIES = list(catalogue().values())
entries = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
ORDERED = (
    "ioi", "greater-than", "greater-than-acdc", "docstring", "sequence-numerals",
    "sequence-number-words", "sequence-months", "sequence-shared", "copy-suppression",
    "successor-heads", "attention-pattern-heads",
)  # fmt: skip
"""The circuits that were ordered; other entries are variants of one of them."""


class TestFiles:
    def test_every_ordered_circuit_is_there_and_all_else_is_a_variant(self) -> None:
        assert {entry.name for entry in ENTRIES if not entry.variant_of} == set(ORDERED)
        assert {entry.variant_of for entry in ENTRIES if entry.variant_of} <= set(ORDERED)

    def test_every_file_is_an_entry(self) -> None:
        assert {path.stem for path in FOLDER.glob("*.yaml")} == set(catalogue())

    @entries
    def test_every_part_lies_in_the_model(self, entry: Entry) -> None:
        model = model_of(entry)
        assert model.n_layers is not None
        assert model.n_heads is not None
        components = [figure.component for figure in entry.figures if figure.component]
        removed = [part for figure in entry.figures for part in figure.removed]
        check_components(model, [*entry.members, *components, *removed])

    @entries
    def test_every_edge_can_be(self, entry: Entry) -> None:
        circuit = circuit_of(entry)
        for edge in circuit.edges:
            source, target = parse_node_key(edge.source)[0], parse_node_key(edge.target)[0]
            assert can_feed(source, target, edge.port), edge.connection
        if entry.level is Level.EDGE:
            joined = {end for edge in circuit.edges for end in (edge.source, edge.target)}
            assert {node.key for node in circuit.nodes} == joined

    @entries
    def test_every_rule_connects_something(self, entry: Entry) -> None:
        for rule in entry.role_edges:
            alone = entry.model_copy(update={"role_edges": (rule,), "edges": {}})
            assert circuit_of(alone).edges, rule

    @entries
    def test_every_entry_names_its_source_and_where_it_was_read(self, entry: Entry) -> None:
        text = (FOLDER / f"{entry.name}.yaml").read_text(encoding="utf-8")
        assert "http" not in text
        assert entry.arxiv or "Alignment Forum" in entry.citation
        assert entry.citation in entry.reference
        assert all(one.what and one.where for one in entry.verified)
        assert all(figure.definition and figure.verified for figure in entry.figures)

    @entries
    def test_a_task_that_we_have_prompts_for_is_described_alike(self, entry: Entry) -> None:
        ours = all_tasks().get(entry.task.slug)
        if ours is not None:
            assert (entry.task.family, entry.task.description) == (ours.family, ours.description)
        named = {figure.task for figure in entry.figures if figure.task}
        assert named <= {other.task.slug for other in ENTRIES}

    @entries
    def test_one_task_is_described_in_one_way(self, entry: Entry) -> None:
        same = [other.task for other in ENTRIES if other.task.slug == entry.task.slug]
        assert set(map(str, same)) == {str(entry.task)}

    @entries
    def test_no_figure_is_stored_twice_or_as_faithfulness(self, entry: Entry) -> None:
        # Faithfulness as we define it subtracts the metric with everything ablated.
        figures = evaluations_of(entry, "0" * 64)
        assert len({figure.id for figure in figures}) == len(entry.figures)
        assert "faithfulness" not in {figure.measure for figure in figures}

    @entries
    def test_a_circuit_is_published_and_claims_no_effect(self, entry: Entry) -> None:
        circuit = circuit_of(entry)
        assert (circuit.method, circuit.sign) == ("published", Sign.UNKNOWN)
        assert {node.effect for node in circuit.nodes} == {None}
        assert {edge.effect for edge in circuit.edges} <= {None}


class TestMalformedFiles:
    @pytest.fixture
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((FOLDER / "ioi.yaml").read_text(encoding="utf-8"))
        return copy.deepcopy(found)

    def read(self, folder: Path, content: Any, name: str = "ioi.yaml") -> Entry:
        path = folder / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
        return read_entry(path)

    def test_what_is_whole_is_read_back_alike(self, tmp_path: Path, content: Any) -> None:
        assert self.read(tmp_path, content) == catalogue()["ioi"]

    @pytest.mark.parametrize(
        ("where", "value", "says"),
        [
            (("roles", "induction", "parts"), ["a5.h5", "A5.8"], "A5.8"),
            (("roles", "induction", "parts"), ["a5.h5", "a5.h5"], "listed once"),
            (("roles", "induction", "parts"), ["a9.h9"], "listed once"),
            (("roles", "induction", "parts"), [], "1 or more entries"),
            (("parts",), ["input"], "input and logits never are"),
            (("roles", "logits"), {"parts": ["a1.h1"]}, "are parts"),
            (("role_edges", 0, "to"), ["induktion"], "'induktion' is not a role or part"),
            (("role_edges", 0, "ports"), ["x"], "ports"),
            (("edges",), {"a1.h1<q>": ["input"]}, "'a1.h1' is not a role or part"),
            (("level",), "node", "does not fit its edges"),
            (("level",), "subspace", "level"),
            (("figures", 0, "value"), "3,56", "value"),
            (("figures", 0, "value"), float("nan"), "value"),
            (("figures", 0, "promts"), 3, "promts"),
            (("arxiv",), ["10.1145/1"], "arxiv"),
            (("verified",), [], "verified"),
            (("name",), "oio", "both names must agree"),
        ],
    )
    def test_a_malformed_file_is_refused_with_its_name(
        self, tmp_path: Path, content: Any, where: tuple[Any, ...], value: Any, says: str
    ) -> None:
        place = content
        for step in where[:-1]:
            place = place[step]
        place[where[-1]] = value
        with pytest.raises(BadInput, match=r"ioi\.yaml") as caught:
            self.read(tmp_path, content)
        assert says in str(caught.value)

    @pytest.mark.parametrize("text", ["[", "- a", "", "a: &a [*a]", "\x00"])
    def test_what_is_no_yaml_of_ours_is_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(BadInput, match=r"ioi\.yaml"):
            self.read(tmp_path, text)

    def test_a_port_at_a_part_without_ports_is_refused(self) -> None:
        entry = catalogue()["ioi"].model_copy(update={"edges": {"logits<q>": ("a9.h9",)}})
        with pytest.raises(ValueError, match="takes no port"):
            circuit_of(entry)

    def test_a_model_without_a_shape_is_refused(self) -> None:
        with pytest.raises(BadInput, match="whose shape is unknown"):
            model_of(catalogue()["ioi"].model_copy(update={"model": "nobodys-model"}))


@pytest.mark.seconds
class TestLoading:
    def test_all_but_variants_are_loaded_by_default(self, registry: Registry) -> None:
        loaded = load(registry)
        assert {one.entry.name for one in loaded} == set(ORDERED)
        assert all(one.is_new for one in loaded)
        assert {c.id for c in registry.circuits()} == {one.circuit.id for one in loaded}
        everything = load(registry, variants=True)
        assert {one.entry.name for one in everything if not one.is_new} == set(ORDERED)
        assert len(registry.circuits()) == len(ENTRIES)

    def test_loading_twice_adds_nothing(self, registry: Registry) -> None:
        load(registry, variants=True)
        before = dict(registry.status().counts)
        again = load(registry, variants=True)
        assert not any(one.is_new or one.n_new_figures for one in again)
        assert dict(registry.status().counts) == before

    def test_a_stored_circuit_is_the_one_of_the_file(self, registry: Registry) -> None:
        load(registry, variants=True)
        for entry in ENTRIES:
            circuit = circuit_of(entry)
            stored = registry.circuit(circuit.id)
            assert stored.circuit == circuit
            assert stored.evaluations == evaluations_of(entry, circuit.id)
            assert stored.entry.labels.title == entry.title
            assert stored.entry.labels.tags == ("published",)
            assert entry.reference in stored.entry.labels.notes
            assert set(entry.notes) <= set(stored.entry.labels.notes)

    def test_models_come_with_their_shape_and_tasks_with_their_family(
        self, registry: Registry
    ) -> None:
        load(registry)
        shapes = {m.slug: (m.n_layers, m.n_heads, m.d_model) for m in registry.ledger.models()}
        assert shapes == {"attn-only-4l": (4, 8, 512), "gpt2": (12, 12, 768)}
        families = {task.slug: task.family for task in registry.ledger.tasks()}
        assert families["sequence/number-words"] == "sequence"
        assert set(families) == {entry.task.slug for entry in ENTRIES}

    def test_one_entry_brings_the_tasks_it_was_measured_on(self, registry: Registry) -> None:
        load(registry, ["ioi"])
        tasks = {task.slug: task for task in registry.ledger.tasks()}
        assert set(tasks) == {
            "ioi",
            *(f"sequence/{k}" for k in ("numerals", "number-words", "months")),
        }
        assert all(task.description for task in tasks.values())

    def test_names_may_be_given_in_any_order_and_twice(self, registry: Registry) -> None:
        loaded = load(registry, ["ioi-naive", "docstring", "ioi-naive"])
        assert [one.entry.name for one in loaded] == ["ioi-naive", "docstring"]

    def test_an_unknown_name_stores_nothing_and_names_the_nearest(self, registry: Registry) -> None:
        with pytest.raises(NotFound, match="no published circuit 'ioy'; nearest: ioi"):
            load(registry, ["docstring", "ioy"])
        assert registry.circuits() == []
        with pytest.raises(
            NotFound, match="the entries are attention-pattern-heads, copy-suppression"
        ):
            find_entry("zzzz")

    def test_what_people_said_of_a_circuit_stays(self, registry: Registry) -> None:
        (first,) = load(registry, ["docstring"])
        registry.tag(first.circuit.id, add=["mine"], remove=["published"])
        registry.retract(first.circuit.id, reason="not ours")
        load(registry, ["docstring"])
        labels = registry.circuit(first.circuit.id).entry.labels
        assert (labels.tags, labels.state) == (("mine",), CircuitState.RETRACTED)

    def test_a_figure_that_is_missing_is_added(self, registry: Registry) -> None:
        entry = catalogue()["ioi"]
        registry.record(circuit_of(entry))
        (loaded,) = load(registry, ["ioi"])
        assert (loaded.is_new, loaded.n_new_figures) == (False, len(entry.figures))

    def test_another_model_of_that_name_is_not_overwritten(self, registry: Registry) -> None:
        registry.record(Model(slug="gpt2", n_layers=2))
        with pytest.raises(IncompatibleModel, match="'gpt2' is stored with n_layers 2"):
            load(registry)
        assert registry.circuits() == []
        load(registry, ["docstring"])

    def test_entries_of_other_models_are_loaded_and_those_left_out_are_named(
        self, registry: Registry, capsys: pytest.CaptureFixture[str]
    ) -> None:
        registry.record(Model(slug="gpt2", n_layers=2))
        assert main(["--home", str(registry.settings.home), "catalog", "load"]) == 0
        shown = capsys.readouterr()
        assert "docstring" in shown.out
        assert re.search(r"not stored: .*\bioi, ", shown.err)
        assert "'gpt2' is stored with n_layers 2, not 12" in shown.err
        assert {entry.model for entry in registry.circuits()} == {"attn-only-4l"}

    def test_a_named_entry_or_all_of_them_are_not_left_out_silently(
        self, registry: Registry
    ) -> None:
        for slug in ("gpt2", "attn-only-4l"):
            registry.record(Model(slug=slug, n_layers=3))
        for names in (["ioi"], []):
            with pytest.raises(IncompatibleModel, match="'gpt2' is stored with n_layers 3"):
                load(registry, names, left_out=lambda _entry, _error: None)

    def test_my_own_name_movers_are_found_beside_the_published_ones(
        self, registry: Registry
    ) -> None:
        load(registry)
        movers = registry.query("components-by-role", role="name mover", model="gpt2")
        assert [row["component"] for row in movers] == [
            "gpt2/a9.h6", "gpt2/a9.h9", "gpt2/a10.h0",
        ]  # fmt: skip
        assert {tuple(row["positions"]) for row in movers} == {("END",)}
        mine = Circuit(
            model="gpt2", task="ioi", method="mine", level=Level.NODE,
            nodes=(Node(component="a9.h9"), Node(component="a3.h3")),
        )  # fmt: skip
        registry.record(mine)
        rows = registry.cypher(
            "MATCH (:Circuit {id: $mine})-[:HAS_NODE]->(:Node)-[:INSTANCE_OF]->(head:Component)"
            "<-[:INSTANCE_OF]-(known:Node) WHERE known.role = 'name mover'"
            " RETURN DISTINCT head.id AS head ORDER BY head",
            {"mine": mine.id},
        )
        assert [row["head"] for row in rows] == ["gpt2/a9.h9"]

    def test_a_head_outside_the_model_is_refused_afterwards(self, registry: Registry) -> None:
        load(registry, ["docstring"])
        outside = Circuit(
            model="attn-only-4l", task="docstring", method="mine", level=Level.NODE,
            nodes=(Node(component="a4.h0"),),
        )  # fmt: skip
        with pytest.raises(BadInput, match="4 layers"):
            registry.record(outside)


def test_the_catalogue_needs_no_torch_and_no_network() -> None:
    program = (
        "import sys, socket; socket.socket = None\n"
        "from ingest.catalog import catalogue; catalogue()\n"
        "print([m for m in ('torch', 'transformers', 'transformer_lens') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


@pytest.mark.seconds
class TestCommands:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        Registry.init(tmp_path / "home").close()
        return tmp_path / "home"

    def circuits(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "registry", *map(str, arguments)]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    def test_list_shows_every_entry(self) -> None:
        answer = self.circuits("catalog", "list", "--format", "json")
        rows = {row["name"]: row for row in json.loads(answer.stdout)}
        assert set(rows) == set(catalogue())
        assert (rows["ioi"]["heads"], rows["ioi"]["mlps"]) == (26, 0)
        assert rows["greater-than"]["mlps"] == 8
        assert rows["docstring"]["edges"] == 24
        assert rows["ioi"]["circuit"] == circuit_of(catalogue()["ioi"]).id
        table = self.circuits("catalog", "list").stdout
        assert all(name in table for name in catalogue())

    def test_show_holds_roles_edges_figures_and_places(self) -> None:
        answer = self.circuits("catalog", "show", "ioi", "--format", "json")
        shown = json.loads(answer.stdout)
        assert {"component": "a9.h9", "role": "name mover", "position": "END"} in shown["parts"]
        assert len(shown["edges"]) == len(circuit_of(catalogue()["ioi"]).edges)
        assert [row["value"] for row in shown["figures"]][:2] == [3.56, 0.993]
        assert shown["read in"]
        assert "arXiv 2211.00593" in shown["circuit"]["source"]
        table = self.circuits("catalog", "show", "ioi").stdout
        assert "name mover" in table

    def test_show_of_an_unknown_name_says_which_there_are(self) -> None:
        answer = self.circuits("catalog", "show", "docstrings")
        assert (answer.returncode, answer.stdout) == (1, "")
        assert "nearest: docstring" in answer.stderr

    def test_load_says_what_was_stored_and_what_was_there(self, home: Path) -> None:
        first = self.circuits("--home", home, "catalog", "load", "ioi", "--format", "json")
        (row,) = json.loads(first.stdout)
        assert (row["outcome"], row["nodes"], row["new_figures"]) == ("stored", 28, row["figures"])
        again = self.circuits(
            "--home", home, "catalog", "load", "ioi", "docstring", "--format", "json"
        )
        outcomes = [row["outcome"] for row in json.loads(again.stdout)]
        assert outcomes == ["already there", "stored"]
        last = self.circuits("--home", home, "catalog", "load", "ioi", "docstring")
        assert last.returncode == 0
        assert "nothing new" in last.stderr

    def test_load_of_a_variant_is_by_name_or_on_demand(self, home: Path) -> None:
        answer = self.circuits("--home", home, "catalog", "load", "--variants", "--format", "json")
        assert {row["name"] for row in json.loads(answer.stdout)} == set(catalogue())

    def test_load_without_a_registry_says_how_to_make_one(self, tmp_path: Path) -> None:
        answer = self.circuits("--home", tmp_path / "none", "catalog", "load")
        assert answer.returncode == 1
        assert "init' makes one" in answer.stderr
