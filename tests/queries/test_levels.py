"""Circuits without edges, of every level: whatever asks, compares, draws and reports takes them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queries.answers.diff import differences
from queries.answers.overlap import compare
from queries.answers.reuse import reuse
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput
from registry.records import Circuit, Level, Node, Sign
from tests import examples

PARTS: dict[Level, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Level.NODE: (("a9.h6", "m5", "a0.h1", "a2.h2"), ("a9.h6", "m5", "a3.h3", "a0.h1")),
    Level.NEURON: (("m5.n17", "m5.n20", "m7.n3"), ("m7.n3", "m5.n17", "m5.n20", "m9.n4")),
    Level.SUBSPACE: (
        ("l8.resid_post#das[0]", "a9.h6.q#das[1]", "m3#pca[4]"),
        ("l8.resid_post#das[0]", "m3#pca[4]", "a9.h6.q#das[1]"),
    ),
    Level.FEATURE: (
        ("m5.f3036#scope", "m6.f12#scope", "m6.error#scope", "m7.f1#scope"),
        ("m5.f3036#scope", "m6.error#scope", "m7.f1#scope"),
    ),
    Level.PARAMETER: (
        ("l5.ln1", "l5.ln2", "ln_final", "unembed", "m5", "a9.h6", "embed"),
        ("l5.ln1", "ln_final", "unembed", "a9.h6", "m7"),
    ),
}
LEVELS = list(PARTS)


def _circuit(level: Level, names: tuple[str, ...], task: str) -> Circuit:
    """Parts of which every second one hurts, the first the strongest."""
    return Circuit(
        model="gpt2", task=task, method="by hand", metric="logit_difference",
        higher_is_better=True, sign=Sign.HELPS_POSITIVE, level=level,
        nodes=tuple(
            Node(
                component=name, effect=(-1) ** place / (1 + place), rank=1 + place,
                density=0.25 if level is Level.PARAMETER else None,
            )
            for place, name in enumerate(names)
        ),
    )  # fmt: skip


def pair(level: Level) -> tuple[Circuit, Circuit]:
    """A circuit of one task and one of another, of that level."""
    first, second = PARTS[level]
    return _circuit(level, first, "ioi"), _circuit(level, second, "sequence/numerals")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("levels") / "registry") as opened:
        opened.record(examples.GPT2, *examples.TASKS)
        opened.record(*(circuit for level in LEVELS for circuit in pair(level)))
        yield opened


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line on that registry: exit code, answer, notices."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--home", str(registry.settings.home), *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def answer(cli: Cli, *arguments: str) -> Any:
    """What a command says as JSON."""
    code, out, err = cli(*arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("level", LEVELS)
class TestEveryLevel:
    def test_it_is_listed_shown_and_found(self, cli: Cli, registry: Registry, level: Level) -> None:
        a, b = pair(level)
        listed = {row["circuit"]: row for row in answer(cli, "list")}
        assert listed[a.id]["level"] == level.value
        nodes = answer(cli, "show", a.id)["nodes"]
        assert {node["component"] for node in nodes} == {node.component for node in a.nodes}
        assert {node["density"] for node in nodes} == {a.nodes[0].density}
        (nearest, *_) = answer(cli, "nearest", a.id)
        assert nearest["circuit"] == b.id
        used = answer(cli, "where", f"gpt2/{PARTS[level][0][0]}")
        assert {a.id, b.id} <= {row["circuit"] for row in used["circuits"]}

    def test_two_are_compared_by_their_components(self, cli: Cli, level: Level) -> None:
        a, b = pair(level)
        shared = set(PARTS[level][0]) & set(PARTS[level][1])
        found = answer(cli, "compare", a.id, b.id)
        overlaps = {row["of"]: row for row in found["overlap"]}
        sizes = [overlaps["components"][name] for name in ("n_a", "n_b", "n_shared")]
        assert sizes == [len(a.nodes), len(b.nodes), len(shared)]
        alike = found["effects of components"]
        assert alike["signed shared components"] == len(shared)
        assert 0 <= alike["sign agreement"] <= 1
        known = {"layers"} if level not in (Level.SUBSPACE, Level.FEATURE) else set()
        assert {row["null"] for row in found["by chance"]} == known
        _, table, notices = cli("compare", a.id, b.id)
        assert "connections  0" not in table
        assert "signed shared components" in table
        assert notices == ""

    def test_what_differs_is_told_part_by_part(self, registry: Registry, level: Level) -> None:
        a, b = pair(level)
        found = differences(registry, a.id, b.id)
        names = {part.name.removeprefix("gpt2/") for part in found.components}
        assert names == set(PARTS[level][0]) | set(PARTS[level][1])
        for part in found.components:
            assert (part.effect_a is not None) == (part.where in ("a", "both"))
            assert (part.effect_b is not None) == (part.where in ("b", "both"))

    def test_what_tasks_share_and_reuse_is_told(
        self, cli: Cli, registry: Registry, level: Level
    ) -> None:
        a, b = pair(level)
        ids = ("--circuits", f"{a.id},{b.id}")
        shared = set(PARTS[level][0]) & set(PARTS[level][1])
        found = answer(cli, "shared", *ids)
        assert {row["component"] for row in found["components"]} == {f"gpt2/{n}" for n in shared}
        (row,) = answer(cli, "matrix", *ids, "--draws", "20")["pairs"]
        assert (row["of"], row["n_shared"]) == ("components", len(shared))
        spread = reuse(registry, circuits=[a.id, b.id], draws=20).spread()
        alone = len({*PARTS[level][0]} ^ {*PARTS[level][1]})
        assert [one["components"] for one in spread] == [alone, len(shared)]
        known = level not in (Level.SUBSPACE, Level.FEATURE)
        assert all((one["components by chance"] is not None) == known for one in spread)

    def test_it_is_drawn_and_reported(self, cli: Cli, level: Level, tmp_path: Path) -> None:
        a, b = pair(level)
        ids = ("--circuits", f"{a.id},{b.id}")
        shared = set(PARTS[level][0]) & set(PARTS[level][1])
        for name, arguments in {
            "compare": ("compare", a.id, b.id),
            "diff": ("diff", a.id, b.id),
            "shared": ("shared", *ids),
            "matrix": ("matrix", *ids, "--draws", "20"),
            "reuse": ("reuse", *ids, "--draws", "20"),
        }.items():
            out = tmp_path / f"{name}.svg"
            code, _, err = cli(*arguments, "--out", str(out))
            assert code == 0, err
            ET.parse(out)
        drawn = (tmp_path / "shared.svg").read_text("utf-8")
        assert all(f">{name}<" in drawn for name in shared)
        assert "Components of two circuits" in (tmp_path / "diff.svg").read_text("utf-8")
        page = tmp_path / "report.md"
        code, _, err = cli("report", *ids, "--draws", "20", "--out", str(page))
        assert code == 0, err
        text = re.sub(r"\\(.)", r"\1", page.read_text("utf-8"))  # as it is read
        assert all(name in text for name in shared)
        assert f"| {level.value} |" in text
        assert not re.search(r"\b(None|nan)\b", text)

    @pytest.mark.parametrize("to", ["csv", "graphml", "graphviz", "parquet"])
    def test_it_goes_into_a_file_and_comes_back(
        self, cli: Cli, level: Level, to: str, tmp_path: Path
    ) -> None:
        a, _ = pair(level)
        out = tmp_path / {"graphviz": "circuit.gv"}.get(to, f"circuit.{to}")
        code, _, err = cli("export", a.id, "--to", to, "-o", str(out))
        assert code == 0, err
        held = out.read_bytes()
        assert len(held) > 0
        if to == "csv":
            assert held.decode().count("\n") == 1 + len(a.nodes)

    def test_circuits_of_one_task_agree_by_components(
        self, capsys: pytest.CaptureFixture[str], level: Level, tmp_path: Path
    ) -> None:
        a, b = (
            Circuit.model_validate(one.model_dump() | {"task": "ioi", "selection": {"rule": "own"}})
            for one in pair(level)
        )
        command = ["--home", str(tmp_path / "own"), "stability", "ioi", "--format", "json"]
        with Registry.init(tmp_path / "own") as registry:
            registry.record(examples.GPT2, *examples.TASKS, a)
            assert main(command) == 2
            assert "compares circuits, two or more; ioi has 1" in capsys.readouterr().err
            registry.record(b)
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out)
        first, second = map(set, PARTS[level])
        (group,) = told["groups"]
        assert group["mean_overlap"] == pytest.approx(len(first & second) / len(first | second))
        assert (group["level"], group["n_components"]) == (level.value, len(first | second))
        names = {row["component"] for row in told["components"]}
        assert names == {f"gpt2/{name}" for name in first | second}


def test_circuits_of_different_levels_do_not_compare_unless_asked_to() -> None:
    neurons, features = pair(Level.NEURON)[0], pair(Level.FEATURE)[0]
    with pytest.raises(BadInput, match="level: neuron in a, feature in b"):
        compare(neurons, features, examples.GPT2)
    found = compare(neurons, features, examples.GPT2, anyway=True)
    assert found.components.n_shared == 0
    assert found.component_effects.sign_agreement is None


def test_effects_of_shared_components_agree_as_far_as_they_have_signs() -> None:
    a, b = pair(Level.NEURON)
    found = compare(a, b, examples.GPT2).component_effects
    # m5.n17 turns from 1 to -1/2, m5.n20 from -1/2 to 1/3, m7.n3 keeps its sign.
    assert (found.n_signed, found.n_same_sign) == (3, 1)
    assert found.rank_correlation == pytest.approx(-0.5)
    unsigned = a.model_copy(
        update={
            "sign": Sign.UNSIGNED,
            "nodes": tuple(
                node.model_copy(update={"effect": abs(node.effect or 0)}) for node in a.nodes
            ),
        }
    )
    sizes = compare(unsigned, b, examples.GPT2).component_effects
    assert (sizes.n_signed, sizes.sign_agreement) == (0, None)
    assert sizes.rank_correlation == pytest.approx(-0.5)


def test_an_embedding_keeps_its_name_beside_a_circuit_that_names_no_input() -> None:
    a, b = pair(Level.PARAMETER)
    assert "embed" in compare(a, b, examples.GPT2).folded_a.components
    named = Circuit.model_validate(
        b.model_dump() | {"nodes": (*b.nodes, Node(component="input", effect=1.0))}
    )
    found = compare(a, named, examples.GPT2)
    assert "input" in found.shared_components
    assert any("count as input" in one for one in found.differences)
