"""The report: what it says, where it has it from, and that nothing in it is fetched or executed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ingest.catalog import load
from queries.answers.matrix import circuit_matrix
from queries.report import Report, gather_report, tables, write_report
from queries.report.page import Table, as_text
from queries.report.provenance import provenance_of
from queries.report.summary import listed, summary
from queries.report.writing import pictures_folder
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Circuit, CircuitLabels, Edge, Level, Node, Run, RunStatus, Sign
from tests.queries import measured_tasks
from tests.queries.measured_tasks import FOUR_TASKS

pytestmark = pytest.mark.seconds

HOSTILE = CircuitLabels(
    title="<script>alert('title')</script> [x](javascript:alert(1)) | `code` *bold*",
    notes=('"><img src=https://example.org/x.png onerror=alert(1)>\n# a heading',),
    author="{{ 7 * 7 }} & <b>co</b> \u202egnp.exe",
    tags=("final", "<i>"),
)
SEQUENCES = ("sequence/numerals", "sequence/number-words", "sequence/months")
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Elements(HTMLParser):
    """Every element with its attributes; what is not closed, or closed unopened, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("report") / "registry") as registry:
        measured_tasks.fill(registry, labels=HOSTILE)
        yield registry


@pytest.fixture(scope="module")
def report(registry: Registry) -> Report:
    return gather_report(registry, FOUR_TASKS, circuits=first_seeds(registry), draws=200)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_report(report, folder / "report.html")
    write_report(report, folder / "report.md")
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


def first_seeds(registry: Registry) -> list[str]:
    """Circuits found on the first prompts, which were measured on other tasks, too."""
    seeds = {one.id: one.seed for one in registry.ledger.prompt_sets()}
    found = {
        entry.task: entry.id for entry in registry.circuits() if not seeds[str(entry.prompt_set)]
    }
    return [found[task] for task in FOUR_TASKS]


# -- a page that needs nothing and does nothing ----------------------------------------------------


def test_the_page_fetches_nothing(html: str) -> None:
    elements = Elements(html).found
    assert {tag for tag, _ in elements}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignobject"}
    )
    for tag, attributes in elements:
        assert attributes.keys().isdisjoint({"src", "srcset", "action", "data", "xlink:href"}), tag
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\((?!#)", html)
    policies = [
        attributes["content"]
        for tag, attributes in elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_no_attribute_holds_an_address(html: str, folder: Path) -> None:
    pictures = [path.read_text(encoding="utf-8") for path in (folder / "report_files").iterdir()]
    assert len(pictures) == 2
    for text in (html, *pictures):
        values = [
            value or ""
            for _, attributes in Elements(text).found
            for name, value in attributes.items()
            if not name.startswith("xmlns")
        ]
        assert len(values) > 100
        assert not [value for value in values if "//" in value or "javascript:" in value]


def test_what_people_wrote_is_text_and_nothing_else(html: str) -> None:
    read = Elements(html)
    said = "".join(read.texts)
    assert HOSTILE.title is not None
    assert HOSTILE.title in said
    assert '"><img src=https://example.org/x.png onerror=alert(1)>' in said
    assert "{{ 7 * 7 }} & <b>co</b> \\x202egnp.exe" in said
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert "\u202e" not in html


def test_what_people_wrote_is_no_markdown_either(markdown: str) -> None:
    assert "<script" not in markdown.replace("\\<", "")
    assert "<img" not in markdown.replace("\\<", "")
    assert "](javascript" not in markdown.replace("\\]", "")
    (row,) = (line for line in markdown.splitlines() if "alert('title')" in line)
    assert "\\|" in row
    assert "\\`code\\` \\*bold\\*" in row
    assert not [line for line in markdown.splitlines() if line.strip() == "# a heading"]


def test_links_and_pictures_refer_to_what_is_there_once(html: str) -> None:
    elements = Elements(html).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]*)\)", html)
    used += [str(attributes["href"])[1:] for _, attributes in elements if "href" in attributes]
    assert len(used) > 10
    assert set(used) <= set(ids)


def test_pictures_of_a_markdown_report_lie_beside_it(folder: Path, markdown: str) -> None:
    names = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", markdown)
    assert names == ["report_files/matrix.svg", "report_files/shared.svg"]
    for name in names:
        root = ElementTree.parse(folder / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("viewBox")
    assert pictures_folder(folder / "report.md").name == "report_files"


def test_tables_of_markdown_have_as_many_cells_in_every_row(markdown: str) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(blocks) > 10
    for block in blocks:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1, block


def test_equal_records_give_equal_files(registry: Registry, report: Report, tmp_path: Path) -> None:
    again = gather_report(registry, FOUR_TASKS, circuits=first_seeds(registry), draws=200)
    for number, one in enumerate((report, again)):
        (tmp_path / str(number)).mkdir()
        write_report(one, tmp_path / str(number) / "r.html")
        write_report(one, tmp_path / str(number) / "r.md")
    first, second = (
        {
            path.relative_to(tmp_path / number): path.read_bytes()
            for path in (tmp_path / number).rglob("*.*")
        }
        for number in "01"
    )
    assert len(first) == 4
    assert first == second


# -- what it says ----------------------------------------------------------------------------------


def test_the_date_is_that_of_the_newest_record(
    registry: Registry, report: Report, html: str
) -> None:
    newest = max(entry.recorded_at for entry in registry.circuits())
    assert report.provenance.newest == newest
    assert f"records up to {newest:%Y-%m-%d %H:%M} UTC" in html


def test_every_number_can_be_traced(registry: Registry, report: Report, html: str) -> None:
    for id in report.matrix.circuits:
        stored = registry.circuit(id)
        assert id in html
        assert stored.circuit.prompt_set is not None
        assert stored.circuit.prompt_set in html
        assert all(run[:12] in html for run in stored.entry.runs)
    assert str(measured_tasks.MODEL.weights_sha256) in html
    assert registry.ledger.registry_id in html
    for name, version in report.provenance.software.items():
        assert f"{name} {version}" in html
    assert "torch 2.6.0" in html
    assert "200 draws with seed 0" in html
    ids = ",".join(id[:12] for id in report.matrix.circuits)
    assert f"circuits matrix --circuits {ids} --draws 200 --seed 0" in html


def test_all_that_was_measured_is_listed(registry: Registry, report: Report) -> None:
    recorded = [one for id in report.matrix.circuits for one in registry.ledger.evaluations(id)]
    assert len(recorded) == 2 * (4 * 4 - 1)
    assert sorted(one.id for one in report.provenance.measurements) == sorted(
        one.id for one in recorded
    )
    assert {run.job for run in report.provenance.runs} == {"edge-attribution"}
    assert len(report.provenance.runs) == 4


def test_runs_that_measured_the_circuits_are_named_if_they_finished(tmp_path: Path) -> None:
    tasks = FOUR_TASKS[:2]
    with Registry.init(tmp_path / "registry") as registry:
        measured_tasks.fill(registry, tasks)
        chosen = circuit_matrix(registry, tasks, draws=0)
        about = {"circuits": [chosen.circuits[0]], "task": tasks[1]}
        for number, status in enumerate((RunStatus.FINISHED, RunStatus.INTERRUPTED), start=100):
            registry.record(
                Run(
                    id=f"{number:032x}", job="transfer", version="1", configuration=about,
                    status=status, started_at=datetime(2026, 3, 2, tzinfo=UTC),
                )
            )  # fmt: skip
        runs = provenance_of(registry, chosen).runs
    assert [run.job for run in runs] == ["edge-attribution", "edge-attribution", "transfer"]
    assert runs[-1].status is RunStatus.FINISHED


def test_a_run_that_a_measurement_names_is_not_guessed(tmp_path: Path) -> None:
    tasks = FOUR_TASKS[:2]
    with Registry.init(tmp_path / "registry") as registry:
        measured_tasks.fill(registry, tasks)
        chosen = circuit_matrix(registry, tasks, draws=0)
        id = chosen.circuits[0]
        ids = [f"{number:032x}" for number in (100, 101)]
        runs = [
            Run(
                id=one, job="transfer", version=version, configuration={"circuits": [id]},
                status=RunStatus.FINISHED, started_at=datetime(2026, 3, 2, tzinfo=UTC),
            )
            for one, version in zip(ids, ("named", "guessed"), strict=True)
        ]  # fmt: skip
        registry.record(*runs)
        assert {run.version for run in provenance_of(registry, chosen).runs} >= {"named", "guessed"}
        measured = registry.ledger.evaluations(id)
        registry.record(*(one.model_copy(update={"run": ids[0]}) for one in measured))
        found = provenance_of(registry, chosen).runs
    assert [run.version for run in found if run.job == "transfer"] == ["named"]


def test_the_named_commands_give_the_same_numbers(registry: Registry, report: Report) -> None:
    prefixes = [id[:12] for id in report.matrix.circuits]
    again = gather_report(registry, [], circuits=prefixes, draws=200, seed=0)
    assert again.matrix.rows() == report.matrix.rows()
    assert again.shared.connections == report.shared.connections
    assert again.reuse.components == report.reuse.components


def test_pairs_stand_in_the_page_as_they_are_in_the_matrix(report: Report, html: str) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    for row in report.matrix.rows():
        (found,) = (
            one for one in cells if one[:2] == [row["task_a"], row["task_b"]] and len(one) > 8
        )
        assert found[2:4] == [str(row["n_shared"]), as_text(row["iou"])]
        assert as_text(row["q"]) in found
        assert as_text(row["expected"]) in found


def test_the_summary_counts_pairs_beyond_chance_and_names_them(report: Report) -> None:
    beyond = [row for row in report.matrix.rows() if row["q"] < 0.05]
    assert [(row["task_a"], row["task_b"]) for row in beyond] == [
        ("sequence/numerals", "sequence/number-words")
    ]
    said = summary(report)
    assert (
        "Of 6 pairs, 1 share more connections than chance under all three nulls (q below 0.05, "
        "corrected for all pairs)."
    ) in said
    assert "They are: sequence/numerals with sequence/number-words." in said


def test_the_summary_says_what_transfers_and_beside_what(report: Report) -> None:
    values = [
        one.value
        for one in report.provenance.measurements
        if one.measure == "faithfulness" and report.circuits[one.circuit].task != one.task
    ]
    (said,) = (one for one in summary(report) if one.startswith("Measured by faithfulness"))
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    assert f"on other tasks {low} to {high}" in said
    assert "11 values" in said
    (random,) = (one for one in summary(report) if "random circuits reach" in one)
    assert "random circuits reach 0.05; the circuits do better in 11 of 11 cases" in random


def test_a_family_that_is_alike_is_said_to_be(report: Report) -> None:
    (family,) = report.families
    assert (family.family, set(family.beside)) == ("sequence", {"ioi", "capitals"})
    said = "\n".join(summary(report))
    assert (
        "they are more similar to each other than to ioi by IoU, z, transfer and transfer beyond "
        "random circuits."
    ) in said
    rows = report.matrix.rows().to_dicts()
    with_ioi = [
        row["iou"] for row in rows if row["task_a"] == "ioi" and row["task_b"] != "capitals"
    ]
    assert family.beside["ioi"].iou == pytest.approx(sum(with_ioi) / 2)


def test_a_family_that_is_not_alike_is_said_not_to_be(tmp_path: Path) -> None:
    tasks = FOUR_TASKS[:3]
    with Registry.init(tmp_path / "registry") as registry:
        measured_tasks.fill(registry, tasks, cores={"sequence/number-words": "ioi"})
        found = gather_report(registry, tasks, circuits=[
            entry.id for entry in registry.circuits()
            if entry.prompt_set in {p.id for p in registry.ledger.prompt_sets() if p.seed == 0}
        ], draws=200)  # fmt: skip
    said = "\n".join(summary(found))
    assert "they are not more similar to each other than to ioi." in said
    assert (
        "sequence/numerals with sequence/number-words"
        not in said.split("They are:")[1].split("\n")[0]
    )


def test_the_ceiling_is_set_beside_what_tasks_share(report: Report) -> None:
    means = [one.mean_iou for one in report.matrix.ceilings.values()]
    said = "\n".join(summary(report))
    assert f"share an IoU of {min(means):.2f} to {max(means):.2f}" in said


def test_hints_in_the_drawing_name_parts_with_their_effects(report: Report, html: str) -> None:
    hints = re.findall(r"<title>([^<]*)</title>", html)[1:]
    assert len(hints) > 10
    drawn = {hint.splitlines()[0] for hint in hints}
    known = {one.name.replace("<", "&lt;").replace(">", "&gt;") for one in report.shared.components}
    assert drawn & known
    component = next(one for one in report.shared.components if one.name in drawn)
    (hint,) = (hint for hint in hints if hint.splitlines()[0] == component.name)
    for use in component.uses.values():
        assert f"{use.task}: {as_text(use.effect)}" in hint


# -- other registries and other wishes -------------------------------------------------------------


def test_published_circuits_without_edges_are_reported_by_their_heads(tmp_path: Path) -> None:
    with Registry.init(tmp_path / "registry") as registry:
        load(registry)
        found = gather_report(registry, SEQUENCES)
    write_report(found, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "24 components, IoU 0.75 (13 heads, IoU 0.65)" in text
    assert "8 are used by all 3" in text
    for head in ("a0.h1", "a4.h4", "a6.h1", "a6.h6", "a6.h10", "a7.h11", "a8.h8", "a9.h1"):
        assert head in text
    assert "| sequence/numerals | 81.0 | 48.4 | 113.5 |" in text
    assert "All 3 tasks use 18 components; the circuits have no edges." in text
    assert "Files that circuits were imported from" not in text


_LIKE_EDGES, _LIKE_NODES = "with the same nodes and degrees", "with as many parts of each kind"


@pytest.mark.parametrize(
    ("without_edges", "said"),
    [
        ((), _LIKE_EDGES),
        (("ioi", "capitals"), _LIKE_NODES),
        (("ioi",), f"{_LIKE_EDGES}, or without edges {_LIKE_NODES}"),
    ],
)
def test_random_circuits_are_said_to_have_what_theirs_have(
    tmp_path: Path, without_edges: tuple[str, ...], said: str
) -> None:
    tasks = ("ioi", "capitals")
    with Registry.init(tmp_path / "registry") as registry:
        measured_tasks.fill(registry, tasks, without_edges=without_edges)
        found = gather_report(registry, tasks, circuits="all", draws=0)
    table = tables.transfers(found)
    assert table.caption.endswith(f"; in brackets the median of random circuits {said}")
    assert any(f"own tasks random circuits {said} reach 0.05" in one for one in summary(found))


def test_without_draws_chance_is_said_not_to_be_known(registry: Registry, tmp_path: Path) -> None:
    found = gather_report(registry, FOUR_TASKS, draws=0)
    assert (
        "There is no comparison with chance: it was not requested, or is not possible."
        in summary(found)
    )
    write_report(found, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No random circuits were drawn for this report." in text


def test_tasks_that_share_nothing_are_reported_all_the_same(tmp_path: Path) -> None:
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(
            _small("ioi", "a0.h1", "a3.h5"), _small("capitals", "a1.h2", "m7"), measured_tasks.MODEL
        )
        found = gather_report(registry, ["ioi", "capitals"], draws=50)
    write_report(found, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "There is no component and no connection that all 2 tasks use." in text
    assert 'aria-label="What' not in text
    assert "No task has several circuits" in text
    assert "was not measured" in text


def _small(task: str, source: str, target: str) -> Circuit:
    return Circuit(
        model="gpt2", task=task, method="by hand", level=Level.EDGE, sign=Sign.UNSIGNED,
        nodes=(Node(component=source), Node(component=target)),
        edges=(Edge(source=source, target=target, port="v" if "h" in target else None),),
    )  # fmt: skip


def test_bad_wishes_are_refused_before_work(
    registry: Registry, report: Report, tmp_path: Path
) -> None:
    with pytest.raises(
        BadInput, match=r"cannot report to '.*r.pdf'; name a file that ends in .html"
    ):
        write_report(report, tmp_path / "r.pdf")
    with pytest.raises(BadInput, match="there is no folder"):
        write_report(report, tmp_path / "nowhere" / "r.html")
    with pytest.raises(BadInput, match="--min-tasks is 5, but 4 tasks are given"):
        gather_report(registry, FOUR_TASKS, min_tasks=5)
    with pytest.raises(NotFound, match="no task 'nope'"):
        gather_report(registry, ["ioi", "nope"])
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from pathlib import Path\n"
        "from queries.report.writing import check_report_file\n"
        f"check_report_file(Path({str(tmp_path)!r}) / 'r.html')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "a report needs the extra 'plots'" in ran.stderr


# -- pieces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), ("", "–"), ((), "–"), (True, "yes"), (3, "3"), (0.0, "0.000"),  # noqa: RUF001
        (0.5, "0.500"), (-1.234, "-1.23"), (113.53, "114"), (2.5e-9, "2.5e-09"),
        (("a", "b"), "a, b"), ("0" * 64, "0" * 12),
    ],
)  # fmt: skip
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert as_text(value) == text


def test_lists_are_written_as_words() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed("abc") == "a, b and c"
    assert listed("abcd", 2) == "a, b and 2 more"


def test_a_table_leaves_out_empty_columns_and_counts_rows_that_are_not_shown() -> None:
    table = Table.of(
        "t", ("a", "b", "c"), [(1, None, "x"), (None, None, "y"), (3, "", "z")], most=2
    )
    assert table.columns == ("a", "c")
    assert table.rows == ((1, "x"), (None, "y"))
    assert table.n_left_out == 1
    assert table.kinds == ["number", "short"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.html")), ids=lambda path: path.name)
def test_an_example_is_one_page_that_needs_nothing(path: Path) -> None:
    elements = Elements(path.read_text(encoding="utf-8")).found
    assert {"svg", "table"} <= {tag for tag, _ in elements}
    addresses = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if not name.startswith("xmlns") and "//" in (value or "")
    ]
    assert addresses == []
    assert path.stat().st_size < 2_000_000
    assert path.with_suffix(".md").exists()
