"""What tasks share, beside the sets that their circuits are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
from matplotlib.colors import to_hex

from queries.answers.shared.rows import CONTENTS, SPECIFIC
from queries.answers.shared.subgraph import SharedSubgraph, shared_subgraph
from queries.cli.shared_tables import tables_of
from queries.plots.picture import OWN, SHARED_BY_ALL, SHARED_BY_SOME
from queries.plots.shared_files import as_dot, as_graphml, as_json, write_shared
from registry import Registry
from registry.errors import BadInput
from registry.records import Circuit
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import GROUPED, IOI, MONTHS, NODES_ONLY, NUMERALS, SMOLLM2

SLUGS = tuple(task.slug for task in examples.TASKS)
Key = tuple[str, str, str | None]
CIRCUITS = [examples.circuit(seed, task=SLUGS[seed % 3], n_heads=11) for seed in range(6)]


def changed(circuit: Circuit, task: str, edges: Iterable[Key] | None = None) -> Circuit:
    """The same circuit for another task, and with other edges if given."""
    made = circuit.model_dump() | {"task": task}
    if edges is not None:
        listed = list(edges)
        names = dict.fromkeys(name for source, target, _ in listed for name in (source, target))
        made["nodes"] = [{"component": name} for name in names]
        made["edges"] = [{"source": s, "target": t, "port": p} for s, t, p in listed]
    return Circuit.model_validate(made)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Random circuits, two a task, and two on a model with key/value heads."""
    with Registry.init(tmp_path_factory.mktemp("shared") / "registry") as registry:
        registry.record(examples.GPT2, SMOLLM2, *examples.TASKS, *CIRCUITS)
        registry.record(GROUPED, changed(GROUPED, "sequence/numerals"))
        registry.record(*(examples.faithfulness(c, 0.1 * n) for n, c in enumerate(CIRCUITS)))
        yield registry


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("small") / "registry") as registry:
        small_registry.fill(registry)
        yield registry


def effects(circuits: list[Circuit], of: str) -> Mapping[str, dict[str, list[float]]]:
    """By name and task, the effects in its circuits."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for circuit in circuits:
        pairs = (
            [(node.component, node.effect) for node in circuit.nodes]
            if of == "components"
            else [(edge.connection, edge.effect) for edge in circuit.edges]
        )
        for name, effect in pairs:
            assert effect is not None
            found[name][circuit.task].append(effect)
    return found


@pytest.mark.parametrize("which", ["best", "all", "ids"])
@pytest.mark.parametrize("min_tasks", [1, 2, None])
def test_shared_are_those_that_enough_tasks_use(
    registry: Registry, which: str, min_tasks: int | None
) -> None:
    # The more faithful of each task's two circuits are the last three.
    stand_in = {"best": CIRCUITS[3:], "all": CIRCUITS, "ids": [*CIRCUITS[:2], CIRCUITS[5]]}[which]
    circuits = [circuit.id[:10] for circuit in stand_in] if which == "ids" else which
    found = shared_subgraph(registry, SLUGS, min_tasks=min_tasks, circuits=circuits, model="gpt2")
    assert {entry.id for entry in found.circuits} == {circuit.id for circuit in stand_in}
    least = min_tasks or 3
    for of, listed in (("components", found.components), ("connections", found.connections)):
        known = effects(stand_in, of)
        assert {one.name for one in listed} == {n for n, u in known.items() if len(u) >= least}
        for one in listed:
            means = {task: sum(all_) / len(all_) for task, all_ in known[one.name].items()}
            assert {task: use.effect for task, use in one.uses.items()} == pytest.approx(means)
            positive, negative = (sum(s * mean > 0 for mean in means.values()) for s in (1, -1))
            assert (one.n_positive, one.n_negative) == (positive, negative)
            agree = positive == len(means) or negative == len(means)
            assert one.signs_agree is (agree if len(means) > 1 else None)
    assert found.components
    assert found.connections


def test_unique_is_what_one_task_alone_uses(registry: Registry) -> None:
    found = shared_subgraph(registry, SLUGS, circuits="all", model="gpt2")
    assert found.unique is not None
    for of in ("components", "connections"):
        known = effects(CIRCUITS, of)
        for task in SLUGS:
            listed = getattr(found.unique[task], of)
            assert {one.name for one in listed} == {n for n, u in known.items() if set(u) == {task}}
    assert all(found.unique[task].connections for task in SLUGS)
    assert (
        shared_subgraph(registry, SLUGS, circuits="all", model="gpt2", unique=False).unique is None
    )


def test_strength_is_a_share_of_the_largest_in_each_task(registry: Registry) -> None:
    found = shared_subgraph(registry, SLUGS, model="gpt2", min_tasks=2)
    known = {one.name: {t: u.effect or 0 for t, u in one.uses.items()} for one in found.connections}
    largest = {task: max(abs(of.get(task, 0)) for of in known.values()) for task in SLUGS}
    for one in found.connections:
        shares = [abs(effect) / largest[task] for task, effect in known[one.name].items()]
        assert one.strength == pytest.approx(sum(shares) / len(shares))
    order = [(-one.n_tasks, -(one.strength or 0)) for one in found.connections]
    assert order == sorted(order)


def test_paths_lie_inside_and_say_which_tasks_have_all_of_them(registry: Registry) -> None:
    found = shared_subgraph(registry, SLUGS, model="gpt2", min_tasks=2, circuits="all")
    of = {one.name: one for one in found.connections}
    assert found.paths
    for path in found.paths:
        assert path.hops[0].source == "input"
        assert path.hops[-1].target == "logits"
        uses = [set(of[name].uses) for name in path.connections]
        assert set(found.tasks_of(path)) == set.intersection(*uses)
        assert found.strength_of(path) == min(of[name].strength or 0 for name in path.connections)
        assert path.weakest in path.connections
    graph = found.to_networkx()
    assert found.n_paths == len(list(nx.all_simple_edge_paths(graph, "input", "logits")))
    assert any(len(found.tasks_of(path)) < 3 for path in found.paths)


def test_parts_and_paths_follow_key_value_heads_to_their_query_heads(registry: Registry) -> None:
    found = shared_subgraph(registry, ["ioi", "sequence/numerals"], model="smollm2")
    assert found.heads_per_group == 3
    assert found.links == (("a4.kv2", "a4.h7"),)
    (path,) = found.paths
    assert str(path) == "input -> a3.h5<q> -> a4.kv2<k> => a4.h7 -> logits"
    (part,) = found.parts
    assert part.components == ("input", "a3.h5", "a4.h7", "a4.kv2", "logits")
    assert (part.n_connections, part.n_paths) == (3, 1)


def test_heads_that_only_links_join_are_no_part(tmp_path: Path) -> None:
    def made(task: str, source: str) -> Circuit:
        own = f"m{8 + int(source[1:])}"
        edges = [(source, "a4.kv2", "k"), (source, "logits", None), ("a4.h7", own, None)]
        return changed(GROUPED, task, edges)

    with Registry.init(tmp_path / "registry") as registry:
        circuits = [made("ioi", "m1"), made("sequence/numerals", "m2")]
        registry.record(SMOLLM2, *examples.TASKS, *circuits)
        found = shared_subgraph(registry, ["ioi", "sequence/numerals"])
    assert [one.name for one in found.components] == ["a4.h7", "a4.kv2", "logits"]
    assert found.links == (("a4.kv2", "a4.h7"),)
    assert found.parts == ()


def test_a_graph_of_it_carries_effects_links_and_roles(small: Registry) -> None:
    found = shared_subgraph(small, [], circuits=[IOI.id, NUMERALS.id])
    graph = found.to_networkx()
    assert graph.graph == {"model": "gpt2", "tasks": found.tasks, "min_tasks": 2}
    assert graph.nodes["a9.h6"]["roles"] == ("name mover",)
    assert graph.nodes["a9.h6"]["effects"] == {"ioi": 1.5, "sequence/numerals": 0.5}
    edge = graph.edges["input", "a0.h1", "v"]
    assert edge["connection"] == "input->a0.h1<v>"
    assert edge["effects"] == {"ioi": 0.25, "sequence/numerals": -0.25}
    assert edge["signs_agree"] is False


def test_tasks_may_be_those_of_named_circuits(small: Registry) -> None:
    found = shared_subgraph(small, [], circuits=[NUMERALS.id[:9], IOI.id[:9]])
    assert found.tasks == ("sequence/numerals", "ioi")
    assert found.min_tasks == 2


@pytest.mark.parametrize(
    ("tasks", "asked", "message"),
    [
        (["ioi"], {"model": "gpt2"}, "needs two or more tasks, got 1"),
        ([], {"circuits": [IOI.id]}, "needs two or more tasks, got 1"),
        (["ioi", "capitals"], {"min_tasks": 3}, "number of tasks is 3, but 2 tasks are given"),
        (["ioi", "capitals"], {"min_tasks": 0}, "number of tasks is 0, .* must be from 1 to 2"),
        (
            [],
            {"circuits": [IOI.id, small_registry.RETRACTED.id]},
            r"is retracted \(wrong prompts\)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    small: Registry, tasks: list[str], asked: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        shared_subgraph(small, tasks, **asked)  # type: ignore[arg-type]


def test_what_makes_it_doubtful_is_noted(small: Registry) -> None:
    sound = shared_subgraph(small, [], circuits=[IOI.id, NUMERALS.id])
    assert sound.notes == ()
    unsigned = shared_subgraph(small, [], circuits=[IOI.id, MONTHS.id])
    assert unsigned.notes == ("effects have no known sign in some circuits of sequence/months",)
    nodes = shared_subgraph(small, [], circuits=[IOI.id, NODES_ONLY.id])
    assert "the circuits differ in level: edge, node" in nodes.notes
    assert "the circuits differ in metric: logit_difference, unknown" in nodes.notes


def test_connections_that_never_meet_are_noted(tmp_path: Path) -> None:
    circuits = [
        changed(GROUPED, "ioi", [("input", "a4.kv2", "k"), ("input", "a5.h1", "q")]),
        changed(GROUPED, "sequence/numerals", [("input", "a4.h7", "k"), ("input", "a5.h1", None)]),
    ]
    unknown = SMOLLM2.model_copy(update={"n_heads": None, "n_kv_heads": None})
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(unknown, *examples.TASKS, *circuits)
        notes = " / ".join(shared_subgraph(registry, ["ioi", "sequence/numerals"]).notes)
    assert "some circuits merge the inputs of heads" in notes
    assert "some circuits give every query head its own keys and values" in notes
    assert "numbers of heads are not recorded" in notes


# -- as rows, tables and files ---------------------------------------------------------------------


@pytest.fixture
def found(small: Registry) -> SharedSubgraph:
    """IOI, numerals and the unsigned months in GPT-2, what two of them share."""
    ids = [IOI.id, NUMERALS.id, MONTHS.id]
    return shared_subgraph(small, [], circuits=ids, min_tasks=2)


def test_rows_hold_everything_and_frames_the_same(found: SharedSubgraph) -> None:
    rows = {row["connection"]: row for row in found.to_rows()}
    row = rows["gpt2/m9->logits"]
    assert (row["ioi"], row["sequence/numerals"], row["sequence/months"]) == (-0.5, 2.0, None)
    assert [use["magnitude"] for use in row["uses"]] == [0.5, 2.0, 1.0]
    assert (row["n_tasks"], row["n_positive"], row["n_negative"]) == (3, 1, 1)
    assert row["signs_agree"] is False
    for of in (*CONTENTS, *SPECIFIC):
        frame = found.to_frame(of)
        assert list(frame.columns) == list(found.to_rows(of).columns)
        assert len(frame) == len(found.to_rows(of))
    with pytest.raises(
        BadInput, match="no part 'nodes'; the parts are: circuits, components, connections"
    ):
        found.to_rows("nodes")


def test_a_task_named_like_a_column_keeps_a_column_of_its_own(tmp_path: Path) -> None:
    circuits = [changed(IOI, task) for task in ("strength", "uses")]
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(*circuits)
        rows = shared_subgraph(registry, ["strength", "uses"]).to_rows()
    assert len(set(rows.columns)) == len(rows.columns)
    (first, *_) = rows
    assert first["task strength"] == first["task uses"] == 1.25


def test_tables_say_what_is_used_whose_sign_or_size_is_unknown(found: SharedSubgraph) -> None:
    tables = tables_of(found, 50, unique=True)
    rows = {row["connection"]: row for row in tables["connections"]}
    assert rows["gpt2/m9->logits"]["signs"] == "1+ 1-"
    assert rows["gpt2/m9->logits"]["sequence/months"] == "±1"
    assert rows["gpt2/a9.h6->logits"]["sequence/numerals"] == "used"
    assert rows["gpt2/a9.h6->logits"]["sequence/months"] is None
    assert "roles" in tables["components"].columns
    assert "roles" not in tables["connections"].columns
    assert {row["connection"] for row in tables["unique connections"]} == {
        "gpt2/a9.h6->m9", "gpt2/a0.h1->logits"
    }  # fmt: skip


def test_tables_are_cut_for_each_task_where_rows_belong_to_tasks(registry: Registry) -> None:
    found = shared_subgraph(registry, SLUGS, circuits="all", model="gpt2")
    tables = tables_of(found, 2, unique=True)
    assert [row["connection"] for row in tables["connections"]] == [
        f"gpt2/{one.name}" for one in found.connections[:2]
    ]
    assert tables["connections"].truncated
    assert [row["task"] for row in tables["unique connections"]] == sorted(
        SLUGS * 2, key=SLUGS.index
    )
    assert not any(rows.truncated for rows in tables_of(found, 1000, unique=True).values())


def test_graphml_reads_back_with_effects_by_task(found: SharedSubgraph) -> None:
    read = nx.parse_graphml(as_graphml(found), force_multigraph=True)
    graph = found.to_networkx()
    assert set(read) == set(graph)
    assert read.number_of_edges() == graph.number_of_edges()
    assert read.nodes["a9.h6"]["roles"] == "name mover"
    edge = read.get_edge_data("m9", "logits", "m9->logits")
    assert (edge["effect ioi"], edge["effect sequence/numerals"]) == (-0.5, 2.0)
    assert "effect sequence/months" not in edge
    assert edge["signs_agree"] is False


def test_graphml_takes_roles_that_xml_has_no_characters_for(tmp_path: Path) -> None:
    node = {"component": "a1.h2", "role": "bell \x07 & <rings>"}
    circuits = [
        IOI.model_validate(IOI.model_dump() | {"task": task, "nodes": [node], "edges": []})
        for task in SLUGS[:2]
    ]
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(*circuits)
        found = shared_subgraph(registry, SLUGS[:2])
    read = nx.parse_graphml(as_graphml(found))
    assert read.nodes["a1.h2"]["roles"] == "bell � & <rings>"
    assert "bell &#7; &#38; &#60;rings&#62;" in as_dot(found)


def test_dot_shows_links_signs_and_roles(registry: Registry, found: SharedSubgraph) -> None:
    text = as_dot(found)
    assert '"a9.h6" [label="a9.h6&#10;name mover"' in text
    (mixed,) = (line for line in text.splitlines() if line.startswith('  "m9" -> "logits"'))
    assert 'arrowhead="odiamond"' in mixed
    assert "ioi: -0.5&#10;sequence/months: 1&#10;sequence/numerals: 2" in mixed
    grouped = shared_subgraph(registry, ["ioi", "sequence/numerals"], model="smollm2")
    assert '"a4.kv2" -> "a4.h7" [style=dotted, arrowhead=none];' in as_dot(grouped)


def test_json_holds_what_the_rows_hold(found: SharedSubgraph) -> None:
    written = json.loads(as_json(found))
    assert written["model"] == "gpt2"
    assert written["tasks"] == list(found.tasks)
    for of in (*CONTENTS, *SPECIFIC):
        assert written[of] == json.loads(json.dumps(found.to_rows(of).to_dicts()))


@pytest.mark.parametrize("suffix", [".svg", ".graphml", ".dot", ".gv", ".json", ".JSON"])
def test_a_file_is_written_by_its_suffix(
    found: SharedSubgraph, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"shared{suffix}"
    write_shared(found, path)
    text = path.read_text(encoding="utf-8")
    assert "a9.h6" in text
    match suffix.lower():
        case ".json":
            assert json.loads(text)
        case ".svg" | ".graphml":
            assert ElementTree.fromstring(text).tag.endswith(suffix.lower().removeprefix("."))
        case _:
            assert text.startswith("digraph shared {")


def test_a_plot_shows_components_where_circuits_have_no_edges(small: Registry) -> None:
    capitals = small_registry.CAPITALS_CIRCUIT.id
    found = shared_subgraph(small, [], circuits=[NODES_ONLY.id, capitals])
    names = {text.get_text() for text in found.plot().axes[0].texts if text.get_gid() == "node"}
    assert names == {"a9.h6"}


def drawn_boxes(found: SharedSubgraph) -> dict[str, str]:
    """Colour of the border of every component that is drawn."""
    names = {text.get_text() for text in found.plot().axes[0].texts if text.get_gid() == "node"}
    return {
        str(patch.get_gid()): to_hex(patch.get_edgecolor())
        for patch in found.plot().axes[0].patches
        if patch.get_gid() in names
    }


@pytest.mark.parametrize("least", [2, 3])
def test_boxes_have_the_colour_of_how_many_tasks_use_them(tmp_path: Path, least: int) -> None:
    shared: Key = ("input", "m1", None)
    # Of a5.h5 and m3 no edge is shared; a5.h5 is used by all three, m3 by two.
    own: list[list[Key]] = [
        [("m1", "a5.h5", "q"), ("m3", "logits", None)],
        [("a5.h5", "m9", None), ("m3", "m4", None)],
        [("a5.h5", "logits", None)],
    ]
    made = [
        changed(CIRCUITS[0], task, [shared, *edges]) for task, edges in zip(SLUGS, own, strict=True)
    ]
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *made)
        found = shared_subgraph(registry, SLUGS, min_tasks=least)
    colours = drawn_boxes(found)
    assert colours["input"] == colours["a5.h5"] == SHARED_BY_ALL
    assert colours["m3"] == colours["logits"] == SHARED_BY_SOME
    assert colours["m9"] == OWN
    assert f'"a5.h5" [label="a5.h5", color="{SHARED_BY_ALL}"' in as_dot(found)


def test_a_plot_names_the_tasks_and_what_they_share(found: SharedSubgraph) -> None:
    # Long texts are broken into lines.
    texts = {
        text.get_gid(): " ".join(text.get_text().split()) for text in found.plot(max_edges=2).texts
    }
    assert texts["title"] == "What 2 or more of 3 tasks share in gpt2"
    assert "the strongest 2 of 4 shared edges; " in texts["subtitle"]
    [subtitle] = [text.get_text() for text in found.plot().texts if text.get_gid() == "subtitle"]
    subtitle = " ".join(subtitle.split())
    assert "all 4 shared edges, with 2 others for context; " in subtitle


def test_a_superseded_circuit_counts_where_it_is_named_and_else_nowhere(small: Registry) -> None:
    old = small_registry.SUPERSEDED
    named = shared_subgraph(small, [], circuits=[IOI.id, old.id])
    assert {one.name for one in named.connections} == {
        "input->a0.h1<v>", "a0.h1->a9.h6<k>", "a9.h6->logits"
    }  # fmt: skip
    unasked = shared_subgraph(small, ["ioi", "capitals"], circuits="all")
    assert old.id not in {entry.id for entry in unasked.circuits}
    assert {one.name for one in unasked.connections} == {"m9->logits", "a9.h6->logits"}
