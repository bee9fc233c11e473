"""Graph ``.pt`` of EAP-IG and MIB: our own small files, malformed and hostile ones, real ones."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.base import Context, Imported, Limits, Said, recognised
from ingest.formats.eap_ig.json_file import FORMAT as JSON_FORMAT
from ingest.formats.eap_ig.tensors import FORMAT
from registry import Registry
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from registry.records import Circuit, Level
from tests.ingest.formats.eap_ig_facts import Facts, facts_of, strongest
from tests.ingest.formats.test_importing import SHARED, needs_files

FILES = Path(__file__).parents[1] / "files"
REAL = SHARED / "circuit-visualize"
SPACE = EdgeSpace(1, 2, 2)
SIZE = len(SPACE.senders), len(SPACE.receivers)


def graph(**changes: Any) -> dict[str, Any]:
    """A graph of one layer with two heads, as ``to_pt`` writes it; None takes an entry out."""
    scores, marked = torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.bool)
    for number, place in enumerate(SPACE.edges()):
        scores[place] = (number - 8) / 8
        marked[place] = number >= 10
    content = {
        "cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 4},
        "src_nodes": list(SPACE.senders),
        "dst_nodes": [receiver.name for receiver in SPACE.receivers],
        "edges_scores": scores,
        "edges_in_graph": marked,
        "nodes_in_graph": marked.any(1),
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


def saved(folder: Path, content: Any, name: str = "graph.pt") -> Path:
    path = folder / name
    torch.save(content, path)
    return path


def read(path: Path, limits: Limits | None = None, **said: Any) -> Imported:
    about = Said(**{"model": "gpt2", "task": "ioi", **said})
    return FORMAT.read(path, Context(about, limits or Limits()))


def circuit_of(path: Path, **said: Any) -> Circuit:
    (circuit,) = read(path, **said).circuits
    return circuit


def with_cells(cells: dict[tuple[int, int], float]) -> torch.Tensor:
    scores: torch.Tensor = graph()["edges_scores"]
    for place, score in cells.items():
        scores[place] = score
    return scores


IMPOSSIBLE = SPACE.mlp_row(0), 0


class TestDialects:
    @pytest.mark.parametrize("name", ["newer", "older"])
    def test_a_graph_is_the_same_as_json_and_as_pt(self, name: str) -> None:
        path = FILES / "eap-ig-pt" / f"{name}.pt"
        assert recognised(path) is FORMAT
        said = Context(Said(model="gpt2", task="ioi", sign="hurts-positive"))
        json_circuits = JSON_FORMAT.read(FILES / "eap-ig-json" / "newer.json", said).circuits
        assert FORMAT.read(path, said).circuits == json_circuits

    def test_the_dialect_between_has_neither_names_nor_node_marks_by_name(self) -> None:
        circuit = circuit_of(FILES / "eap-ig-pt" / "between.pt")
        effects = {node.component: node.effect for node in circuit.nodes}
        assert circuit.level is Level.SUBSPACE
        assert (effects["m1"], effects["a0.h1"], effects["input"]) == (2.0, -0.5, None)
        assert {name for name in effects if "#" in name} == {
            "m0#coordinate[0]", "m1#coordinate[0]", "m1#coordinate[3]",
        }  # fmt: skip

    def test_rows_and_columns_go_by_their_names(self, tmp_path: Path) -> None:
        content = graph()
        turned = graph(
            src_nodes=content["src_nodes"][::-1],
            dst_nodes=content["dst_nodes"][::-1],
            edges_scores=content["edges_scores"].flip(0, 1),
            edges_in_graph=content["edges_in_graph"].flip(0, 1),
            nodes_in_graph=content["nodes_in_graph"].flip(0),
        )
        assert circuit_of(saved(tmp_path, turned)) == circuit_of(saved(tmp_path, content))

    def test_marks_of_nodes_may_be_tensors_by_name(self, tmp_path: Path) -> None:
        marks = {name: torch.tensor(name == "m0") for name in SPACE.senders}
        path = saved(tmp_path, graph(src_nodes=marks, nodes_in_graph=None))
        assert "m0" in {node.component for node in circuit_of(path).nodes}

    def test_marks_of_nodes_may_stand_twice_where_they_are_the_same(self, tmp_path: Path) -> None:
        given = graph()["nodes_in_graph"]
        marks = dict(zip(SPACE.senders, given.tolist(), strict=True))
        path = saved(tmp_path, graph(src_nodes=marks, nodes_in_graph=given.double()))
        assert circuit_of(path) == circuit_of(saved(tmp_path, graph(), "as-list.pt"))

    def test_edges_between_nodes_that_are_marked_as_outside_are_named(self, tmp_path: Path) -> None:
        outside = torch.zeros(SIZE[0], dtype=torch.bool)
        found = read(saved(tmp_path, graph(nodes_in_graph=outside)))
        (note,) = [one for one in found.notes if "nodes that it marks as not in it" in one]
        assert note.startswith(f"{len(found.circuits[0].edges)} of the edges")
        chosen = read(saved(tmp_path, graph(nodes_in_graph=outside)), top=2)
        assert chosen.notes == read(saved(tmp_path, graph()), top=2).notes

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_scores_of_any_precision_are_read(self, tmp_path: Path, dtype: torch.dtype) -> None:
        content = graph(edges_scores=graph()["edges_scores"].to(dtype))
        assert circuit_of(saved(tmp_path, content)) == circuit_of(saved(tmp_path, graph()))

    def test_the_neurons_of_a_newer_graph_have_scores(self, tmp_path: Path) -> None:
        marks = torch.zeros(4, 4, dtype=torch.bool)
        marks[SPACE.mlp_row(0), :2] = True
        scores = torch.full((4, 4), math.nan)
        scores[SPACE.mlp_row(0), 0] = -0.5
        content = graph(neurons_in_graph=marks, neurons_scores=scores)
        nodes = {node.component: node.effect for node in circuit_of(saved(tmp_path, content)).nodes}
        assert nodes["m0#coordinate[0]"] == -0.5
        assert nodes["m0#coordinate[1]"] is None

    @pytest.mark.parametrize("cfg", [{"d_model": 1600}, {}])
    def test_neurons_of_another_width_are_left_out(
        self, tmp_path: Path, cfg: dict[str, int]
    ) -> None:
        shape = {"n_layers": 1, "n_heads": 2, **cfg}
        found = read(saved(tmp_path, graph(cfg=shape, neurons_in_graph=torch.ones(4, 8))))
        assert found.circuits[0].level is Level.EDGE
        assert "neurons_in_graph omitted: 8 for each node" in found.notes[0]


class TestScores:
    def test_only_edges_that_can_exist_count(self, tmp_path: Path) -> None:
        marked = torch.ones(SIZE, dtype=torch.bool)
        content = graph(edges_scores=with_cells({IMPOSSIBLE: 99.0}), edges_in_graph=marked)
        found = read(saved(tmp_path, content))
        assert len(found.circuits[0].edges) == found.circuits[0].universe_size == SPACE.n_edges
        assert max(edge.effect or 0 for edge in found.circuits[0].edges) < 2
        assert "1 scores are at impossible edges: omitted" in found.notes
        assert f"{marked.sum() - SPACE.n_edges} marks are at impossible edges: omitted" in (
            found.notes
        )

    def test_what_was_never_scored_stays_in_the_circuit(self, tmp_path: Path) -> None:
        content = graph(edges_scores=with_cells({(0, 0): math.nan, (0, 1): math.inf}))
        found = read(saved(tmp_path, content), top=1)
        assert {edge.connection for edge in found.circuits[0].edges} == {
            "input->a0.h0<q>", "input->a0.h1<q>", "input->a0.h0<k>",
        }  # fmt: skip
        assert found.notes[0] == (
            "1 score that is not finite, read as missing: input->a0.h1<q> (inf)"
        )

    def test_a_graph_that_marks_nothing_asks_how_many(self, tmp_path: Path) -> None:
        marked = torch.zeros(SIZE, dtype=torch.bool)
        content = graph(edges_in_graph=marked, nodes_in_graph=torch.zeros(SIZE[0]))
        with pytest.raises(BadInput, match="--top N"):
            read(saved(tmp_path, content))


MALFORMED: list[tuple[Any, str]] = [
    ([1, 2], "is no graph"),
    ({"cfg": {}}, "is no graph"),
    (torch.zeros(3), "is no graph"),
    (graph(cfg=None), "no cfg"),
    (graph(cfg={"n_layers": 0, "n_heads": 1}), "cfg.n_layers is 0"),
    (graph(cfg={"n_layers": 10**8, "n_heads": 10**8}), "--max-edges"),
    (graph(src_nodes=None, cfg={"n_layers": 2, "n_heads": 2}), "expected"),
    (graph(edges_scores=torch.zeros(())), "has the shape a single number"),
    (graph(edges_scores=torch.zeros(1).expand(10**6, 10**6)), "has the shape 1000000 x 1000000"),
    (graph(edges_scores=[[0.0]]), "edges_scores is missing, or no tensor"),
    (graph(edges_in_graph=None), "edges_in_graph is missing"),
    (graph(edges_scores=torch.zeros(SIZE, dtype=torch.complex64)), "no plain tensor"),
    (graph(edges_scores=torch.zeros(SIZE).to_sparse()), "no plain tensor"),
    (graph(edges_scores=torch.zeros(SIZE, device="meta")), "no plain tensor"),
    (graph(src_nodes="input"), "src_nodes is no list"),
    (graph(dst_nodes={one.name: True for one in SPACE.receivers}), "dst_nodes is no list"),
    (graph(edges_in_graph=torch.full(SIZE, 0.5)), r"edges_in_graph\[0, 0\] is 0.5, neither true"),
    (graph(edges_in_graph=torch.full(SIZE, math.nan)), r"edges_in_graph\[0, 0\] is nan, neither"),
    (
        graph(edges_in_graph=torch.full(SIZE, 255, dtype=torch.uint8)),
        r"edges_in_graph\[0, 0\] is 255, neither true nor false",
    ),
    (graph(nodes_in_graph=torch.tensor([1, 1, 2, 1])), r"nodes_in_graph\[2\] is 2, neither true"),
    (graph(neurons_in_graph=torch.full((4, 4), 0.5)), r"neurons_in_graph\[0, 0\] is 0.5, neither"),
    (
        graph(src_nodes={name: row for row, name in enumerate(SPACE.senders[::-1])}),
        "src_nodes is 2 for a0.h0, not true or false: rows are in the order of the names",
    ),
    (
        graph(
            src_nodes=dict.fromkeys(SPACE.senders, False), nodes_in_graph=torch.tensor([0, 1, 1, 1])
        ),
        "nodes_in_graph is true for a0.h0, and src_nodes is false",
    ),
    (graph(src_nodes=["input", "a0.h0", "a0.h1", "m7"]), "'m7' in src_nodes"),
    (graph(src_nodes=["input", "a0.h0", "a0.h0", "m0"]), "names a part twice"),
    (graph(src_nodes=["input", "a0.h0", "a0.h1", 5]), "5 in src_nodes"),
    (graph(src_nodes=["input", "a0.h0", "a0.h1", None]), "None in src_nodes"),
    (graph(dst_nodes=["logits"]), "expected 4 x 1"),
    (graph(nodes_in_graph=torch.zeros(3)), "nodes_in_graph has the shape 3, expected 4"),
    (graph(nodes_scores=torch.zeros(9)), "nodes_scores has the shape 9"),
    (graph(neurons_in_graph=torch.zeros(9, 4)), "neurons_in_graph has the shape 9 x 4"),
    (graph(neurons_in_graph=torch.zeros(4, 4), neurons_scores=torch.zeros(4)), "has the shape 4,"),
    *(
        (graph(src_nodes=dict.fromkeys(SPACE.senders, mark), nodes_in_graph=None), "true or false")
        for mark in ("x", 2, torch.zeros(0), torch.zeros(2, 2))
    ),
]


@pytest.mark.parametrize(("content", "says"), MALFORMED)
def test_a_malformed_graph_is_refused_with_the_reason(
    tmp_path: Path, content: Any, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read(saved(tmp_path, content))


class _Calls:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


class TestHostileFiles:
    def test_nothing_is_called_that_a_pickle_asks_for(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        trap = tmp_path / "sprung"
        path = saved(tmp_path, graph(extra=_Calls(trap)))
        assert recognised(path) is FORMAT
        (report,) = import_files(registry, [path], {"model": "gpt2", "task": "ioi"})
        assert report.outcome is FileOutcome.REFUSED
        assert "only tensors and plain containers are unpickled, and it requires" in report.notes[0]
        assert not trap.exists()

    def test_a_bare_pickle_is_refused_unread(self, tmp_path: Path) -> None:
        trap = tmp_path / "sprung"
        path = tmp_path / "graph.pt"
        path.write_bytes(pickle.dumps({"n_layers": 1, "edges_scores": _Calls(trap)}))
        assert recognised(path) is FORMAT
        with pytest.raises(BadInput, match="bare pickles are not read"):
            read(path)
        assert not trap.exists()

    def test_the_older_kind_of_torch_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "graph.pt"
        torch.save(graph(), path, _use_new_zipfile_serialization=False)
        with pytest.raises(BadInput, match="bare pickles are not read"):
            read(path)

    def test_an_archive_that_unpacks_to_more_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "graph.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("graph/data.pkl", b"n_layers edges_scores" + b"\0" * 10_000_000)
        with pytest.raises(BadInput, match="it expands to more"):
            read(path)

    def test_a_file_that_ends_early_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path, graph())
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(BadInput, match="no archive as torch"):
            read(path)

    def test_large_files_are_refused_until_allowed(self, tmp_path: Path) -> None:
        path = saved(tmp_path, graph())
        for limits in (Limits(max_bytes=9), Limits(max_edges=5)):
            with pytest.raises(BadInput, match="allowed; --max-"):
                read(path, limits)

    @pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, {"n_layers": 1}, [1]])
    def test_other_torch_files_are_not_taken_for_graphs(self, tmp_path: Path, content: Any) -> None:
        path = saved(tmp_path, content)
        assert FORMAT.sniff(path, path.read_bytes()) == 0.0


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from ingest.formats.base import Context, Said, recognised
from registry.errors import MissingExtra
path = Path(sys.argv[1])
try:
    recognised(path).read(path, Context(Said(model="gpt2", task="ioi")))
except MissingExtra as error:
    print(error)
"""


def test_without_torch_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(FILES / "eap-ig-pt" / "newer.pt")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == (
        "reading .pt files needs the extra 'discover': pip install 'circuit-registry[discover]'"
    )


REAL_FILES = [
    (
        "commonsense/work_location.pt", 361_559, "7535500d2605b241",
        Facts((12, 12, False, 768), 32_491, 0, -0.06512856483459473, 0.402803897857666,
              15_755, 14, 32_476),
        [("input->m0", 0.402803897857666, "in"), ("a10.h0->logits", 0.1729404479265213, "in"),
         ("a11.h3->logits", 0.17171747982501984, "in"),
         ("m0->a10.h0<v>", 0.0730162262916565, "in"),
         ("m11->logits", -0.06512856483459473, "in")],
    ),
    (
        "factual/city_in_country.pt", 361_595, "9318c7da79130d03",
        Facts((12, 12, False, 768), 32_491, 0, -0.08370387554168701, 0.46647682785987854,
              15_888, 14, 32_475),
        [("input->m0", 0.46647682785987854, "in"), ("a9.h8->logits", 0.24598269164562225, "in"),
         ("a10.h0->logits", 0.2329423725605011, "in"),
         ("a11.h2->logits", 0.11680848896503448, "in"),
         ("m0->a9.h8<v>", 0.10613556206226349, "in")],
    ),
]  # fmt: skip


@needs_files
@pytest.mark.parametrize(
    ("name", "size_bytes", "digits", "facts", "best"), REAL_FILES, ids=["work", "city"]
)
def test_real_files_have_the_facts_their_source_states(
    registry: Registry,
    name: str,
    size_bytes: int,
    digits: str,
    facts: Facts,
    best: list[tuple[str, float, str]],
) -> None:
    path = REAL / name
    assert recognised(path) is FORMAT
    with pytest.raises(BadInput, match="marks no edge as in the circuit"):
        read(path)
    found = read(path, top=5)
    assert facts_of(found) == facts
    assert strongest(found) == best
    assert found.notes == []
    (report,) = import_files(registry, [path], {"model": "gpt2", "task": "facts", "top": 5})
    assert (report.outcome, report.edges) == (FileOutcome.STORED, 5)
    (source,) = registry.circuit(report.circuits[0]).entry.source_files
    assert source.sha256.startswith(digits)
    assert len(registry.artifact(source.sha256)) == size_bytes


@needs_files
def test_a_pickle_of_another_tool_is_not_taken_for_a_graph() -> None:
    folder = SHARED / "sparse-feature-circuits"
    for path in folder.glob("*.pt"):
        assert FORMAT.sniff(path, path.read_bytes()[: 1 << 16]) == 0.0
        with pytest.raises(BadInput, match="requires activation_utils"):
            read(path)
