"""Circuits of several tasks and seeds, each measured on every task, run by run."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingest.jobs import run_job
from ingest.jobs.campaigns import Account, NumberedRuns, discover
from ingest.jobs.edge_attribution.job import JOB as ATTRIBUTION
from ingest.jobs.matrix import JOB, MatrixConfiguration
from ingest.jobs.places import KeptModel, ModelPlace
from ingest.jobs.progress import Progress, Report, Silent, show_progress
from ingest.tasks.splits import Part, part_of
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput, IncompatibleModel, NotFound
from registry.files.prompt_files import read_prompt_file
from registry.records import RunStatus
from tests.ingest.jobs.discovering import install_few_pairs
from tests.ingest.jobs.test_base import StopsWhile

TASKS = ("ioi", "sequence/months", "sequence/numerals")
FEW = ("an/impossible-task", "ioi")


@dataclass
class Heard:
    """Keeps the titles of all stages."""

    titles: list[str] = field(default_factory=list)

    def stage(self, title: str) -> Report:
        self.titles.append(title)
        return lambda _done, _total: None


class Terminal(io.StringIO):
    """Takes what would be drawn."""

    def isatty(self) -> bool:
        return True


def _told(model: Path | str, **told: Any) -> MatrixConfiguration:
    """Two seeds of three tasks, 30 edges each, on 8 prompts, unless told otherwise."""
    size = {} if "share" in told else {"edges": 30}
    usual = {"tasks": TASKS, "seeds": 2, "controls": 2, "prompts": 8, "method": "eap"}
    return MatrixConfiguration(**{"model": str(model), "device": "cpu", **usual, **size, **told})


def _make(
    registry: Registry, model: Path | str, *, progress: Progress | None = None, **told: Any
) -> Account:
    return discover(JOB, _told(model, **told), registry, progress=progress)


def _record(registry: Registry) -> dict[str, Any]:
    """All that was found: circuits, evaluations, prompt sets, finished runs by what they did."""
    return {
        "circuits": {entry.id for entry in registry.circuits()},
        "evaluations": {each.id for each in registry.ledger.evaluations()},
        "prompt sets": {known.id for known in registry.ledger.prompt_sets()},
        "runs": Counter(
            run.configuration_sha256
            for run in registry.ledger.runs()
            if run.status is RunStatus.FINISHED
        ),
    }


def _statuses(account: Account, column: str) -> list[str | None]:
    return [row[column] for row in account.rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """What a matrix that nothing disturbs leaves."""
    with Registry.init(tmp_path_factory.mktemp("whole") / ".circuits") as registry:
        _make(registry, tiny_model)
        return _record(registry)


@pytest.mark.parametrize("given", [("a,b", "c"), ["a", " b ,c,"], "a,b,c"])
def test_tasks_are_repeated_or_parted_by_commas(given: Any) -> None:
    assert MatrixConfiguration(model="m", tasks=given).tasks == ("a", "b", "c")


def test_a_split_seed_needs_a_split() -> None:
    with pytest.raises(ValueError, match="give split too: train, validation or test"):
        MatrixConfiguration(model="m", split_seed=3)


@pytest.mark.seconds
class TestRuns:
    def test_a_split_is_that_of_every_task(self, registry: Registry, tiny_model: Path) -> None:
        account = _make(
            registry, tiny_model, tasks=TASKS[:2], seeds=1, controls=0, split="train", split_seed=3
        )
        assert _statuses(account, "transfer") == ["run", "run"]
        for prompts in registry.ledger.prompt_sets():
            assert prompts.artifact is not None
            kept = read_prompt_file(registry.artifact(prompts.artifact))
            assert (kept.header["split"]["part"], kept.header["split"]["seed"]) == ("train", 3)
            assert {part_of(one["clean"], 3) for one in kept.prompts} == {Part.TRAIN}
        again = _make(registry, tiny_model, tasks=TASKS[:2], seeds=1, controls=0)
        assert _statuses(again, "attribution") == ["run", "run"]  # of all prompts: others

    def test_every_circuit_is_measured_on_every_other_task_by_prompts_of_its_seed(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        account = _make(registry, tiny_model)
        assert [(row["task"], row["seed"]) for row in account.rows] == [
            (task, seed) for seed in (0, 1) for task in TASKS
        ]
        prompt_sets = {known.id: known for known in registry.ledger.prompt_sets()}
        evaluations = registry.ledger.evaluations()
        for row in account.rows:
            entry = registry.ledger.circuit(row["circuit"])
            own = prompt_sets[entry.prompt_set or ""]
            assert (entry.task, own.task, own.seed) == (row["task"], row["task"], row["seed"])
            assert (entry.n_edges, entry.faithfulness) == (row["edges"], row["faithfulness"])
            of = [each for each in evaluations if each.circuit == entry.id]
            faithful = {each.task: each for each in of if each.measure == "faithfulness"}
            assert set(faithful) == set(TASKS)
            random = {each.task: each for each in of if each.measure == "random_faithfulness"}
            assert set(random) == set(TASKS)
            assert len(of) == len(faithful) + len(random)
            for each in of:
                measured_on = prompt_sets[each.prompt_set or ""]
                assert (measured_on.task, measured_on.seed) == (each.task, row["seed"])
            assert all(each.parameters["circuits"] == 2 for each in random.values())

    def test_each_run_is_recorded_on_its_own_and_the_model_loaded_once(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        heard = Heard()
        account = _make(registry, tiny_model, progress=heard)
        runs = registry.ledger.runs()
        assert Counter(run.job for run in runs) == {"edge-attribution": 6, "transfer": 6}
        assert {run.status for run in runs} == {RunStatus.FINISHED}
        assert len({run.configuration_sha256 for run in runs}) == 12
        assert sum("loading" in title for title in heard.titles) == 1
        assert heard.titles[0] == f"run 1 of 12: loading {tiny_model}"
        assert heard.titles[-1].startswith("run 12 of 12, about ")
        assert account.notes == ("12 runs were made, 0 existed already",)
        for column in ("attribution", "transfer"):
            assert _statuses(account, column) == ["run"] * 6

    def test_a_circuit_is_what_attribution_alone_finds(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        account = _make(registry, tiny_model, tasks=("ioi",), seeds=1, controls=0)
        told = _told(tiny_model).attribution("ioi", 0)
        alone = run_job(ATTRIBUTION, told, registry).finding.summary
        (row,) = account.rows
        assert {name: row[name] for name in ("circuit", "edges", "faithfulness")} == {
            name: alone[name] for name in ("circuit", "edges", "faithfulness")
        }
        # One task has no other to be measured on.
        assert row["transfer"] is None

    def test_a_complete_one_makes_no_run_and_says_so(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        first = _make(registry, tiny_model)
        before = _record(registry)
        heard = Heard()
        again = _make(registry, tiny_model, progress=heard)
        assert _record(registry) == before
        assert heard.titles == []
        assert again.notes == ("all 12 runs exist already; nothing was run",)
        for column in ("attribution", "transfer"):
            assert _statuses(again, column) == ["skipped"] * 6
        results = ("task", "seed", "circuit", "edges", "faithfulness", "problem")
        for row, other in zip(first.rows, again.rows, strict=True):
            assert [row[name] for name in results] == [other[name] for name in results]

    def test_a_task_that_is_added_has_only_its_own_pairs_measured(
        self, registry: Registry, tiny_model: Path, whole: dict[str, Any]
    ) -> None:
        _make(registry, tiny_model, tasks=TASKS[:2])
        added = _make(registry, tiny_model)
        assert _statuses(added, "attribution") == ["skipped", "skipped", "run"] * 2
        assert _statuses(added, "transfer") == ["run"] * 6
        record = _record(registry)
        for kind in ("circuits", "evaluations", "prompt sets"):
            assert record[kind] == whole[kind]
        (new,) = (row for row in added.rows if (row["task"], row["seed"]) == (TASKS[2], 1))
        transfers = [run for run in registry.ledger.runs() if run.job == "transfer"]
        of_second_seed = [
            run.configuration["circuits"] for run in transfers if run.configuration["seed"] == 1
        ]
        assert of_second_seed.count([new["circuit"]]) == 2
        assert _make(registry, tiny_model).notes[0].startswith("all 12 runs exist already")

    def test_a_retracted_circuit_is_left_out(self, registry: Registry, tiny_model: Path) -> None:
        told: dict[str, Any] = {"tasks": TASKS[:2], "seeds": 1, "controls": 0}
        (row, _) = _make(registry, tiny_model, **{**told, "tasks": TASKS[:1]}).rows * 2
        registry.retract(row["circuit"], reason="wrong prompts")
        account = _make(registry, tiny_model, **told)
        assert account.rows[0]["problem"] == "omitted: its circuit is retracted"
        assert _statuses(account, "transfer") == [None, None]
        assert [each.task for each in registry.ledger.evaluations(row["circuit"])] == [TASKS[0]]


@pytest.mark.seconds
class TestStopping:
    @pytest.mark.parametrize(
        ("title", "n_finished"),
        [
            ("run 1 of 12: scoring edges on ioi", 0),
            ("run 3 of 12: storing", 2),
            ("run 4 of 12: measuring 3 circuits, 2 random circuits for each, on ioi", 3),
            ("run 4 of 12: storing", 3),
        ],
    )
    def test_what_was_stopped_goes_on_and_leaves_the_same_record(
        self,
        registry: Registry,
        tiny_model: Path,
        whole: dict[str, Any],
        title: str,
        n_finished: int,
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            _make(registry, tiny_model, progress=StopsWhile(title))
        stopped = _record(registry)
        assert stopped["runs"].total() == n_finished
        assert registry.ledger.runs()[0].status is RunStatus.INTERRUPTED
        account = _make(registry, tiny_model)
        assert _record(registry) == whole
        assert account.notes == (f"{12 - n_finished} runs were made, {n_finished} existed already",)
        statuses = [*_statuses(account, "attribution")[:3], *_statuses(account, "transfer")[:3]]
        assert statuses == ["skipped"] * n_finished + ["run"] * (6 - n_finished)

    def test_what_was_killed_goes_on_and_leaves_the_same_record(
        self, registry: Registry, tiny_model: Path, whole: dict[str, Any]
    ) -> None:
        home = str(registry.settings.home)
        arguments = ["--home", home, "--log-level", "info", "discover", "matrix",
                     "--model", str(tiny_model), "--device", "cpu", "--seeds", "2",
                     "--controls", "2", "--prompts", "8", "--method", "eap", "--edges", "30",
                     *(word for task in TASKS for word in ("--task", task))]  # fmt: skip
        code = "import sys; from registry.cli.main import main; sys.exit(main())"
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if "run 5 of 12" in line:
                    running.kill()
        assert running.returncode == -9
        assert registry.ledger.runs()[0].status is RunStatus.RUNNING
        account = _make(registry, tiny_model)
        assert account.notes == ("8 runs were made, 4 existed already",)
        assert _record(registry) == whole


_PLUGIN = """
from ingest.tasks.base import PromptPair, TaskSpec


def draw(choose, encode):
    while True:
        for month in ("May", "June", "July"):
            text = f"Van done in {month}. Hat done in"
            yield PromptPair(text, text.replace("Van", "Key"), " May", " June")


TASK = TaskSpec("an/impossible-task", "an", "Three prompts, which are too few.", draw)
"""


@pytest.fixture
def few_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose task has three prompts."""
    info = tmp_path / "site" / "few-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: few\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[circuits.tasks]\nfew = few_prompts_task:TASK\n")
    (tmp_path / "site" / "few_prompts_task.py").write_text(_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "few_prompts_task", raising=False)


@pytest.mark.seconds
class TestFailing:
    @pytest.mark.usefixtures("few_prompts")
    def test_a_task_that_fails_is_named_and_ends_alone(
        self, registry: Registry, tiny_model: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        account = _make(registry, tiny_model, tasks=(*FEW, "capitals"))
        failed, *_ = account.rows
        assert _statuses(account, "attribution") == ["failed", "run", "run", None, "run", "run"]
        assert _statuses(account, "transfer") == [None, "run", "run", None, "run", "run"]
        assert "at least 8 are needed" in failed["problem"]
        assert account.rows[3]["problem"] == "omitted: this task failed with another seed"
        assert (failed["circuit"], failed["edges"], failed["faithfulness"]) == (None, None, None)
        (warning,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
        assert warning.startswith("an/impossible-task with seed 0 failed, the others continue:")
        assert account.notes == ("8 runs were made, 0 existed already, 1 failed",)
        statuses = Counter(run.status for run in registry.ledger.runs())
        assert statuses == {RunStatus.FINISHED: 8, RunStatus.FAILED: 1}
        again = _make(registry, tiny_model, tasks=(*FEW, "capitals"))
        assert again.notes == ("0 runs were made, 8 existed already, 1 failed",)

    def test_seeds_that_draw_the_same_pairs_are_named(
        self,
        registry: Registry,
        tiny_model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        install_few_pairs(tmp_path, monkeypatch)
        told: dict[str, Any] = {"tasks": ("few/pairs", "ioi"), "prompts": 4, "min_prompts": 1}
        account = _make(registry, tiny_model, controls=0, **told)
        assert not any(row["problem"] for row in account.rows)
        _, line = account.notes
        assert re.fullmatch(
            r"(\d+) of \1 prompt pairs of few/pairs were drawn with more than one seed;"
            " seeds 0 and 1 drew the same pairs and count as one",
            line,
        )
        assert [each.getMessage() for each in caplog.records].count(line) == 1
        again = _make(registry, tiny_model, controls=0, **told)
        assert again.notes == ("all 8 runs exist already; nothing was run", line)

    @pytest.mark.usefixtures("few_prompts")
    def test_where_no_task_gives_a_circuit_there_is_no_matrix(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        with pytest.raises(BadInput, match="no task gave a circuit; tiny-words puts"):
            _make(registry, tiny_model, tasks=FEW[:1])

    @pytest.mark.parametrize(
        ("told", "kind", "text"),
        [
            ({"tasks": ("ioi", "iou")}, NotFound, "did you mean 'ioi'"),
            ({"model": "./gone"}, NotFound, "no model './gone'"),
            ({"edges": 83}, BadInput, "83 edges are requested, but the model has 82"),
        ],
    )
    def test_what_is_wrong_for_all_tasks_ends_it_with_nothing_recorded(
        self,
        registry: Registry,
        tiny_model: Path,
        told: dict[str, Any],
        kind: type[Exception],
        text: str,
    ) -> None:
        with pytest.raises(kind, match=text):
            _make(registry, told.pop("model", tiny_model), **told)
        assert registry.ledger.runs() == ()

    def test_another_model_of_the_same_name_ends_it(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _make(registry, tiny_model, tasks=TASKS[:1], seeds=1, controls=0)
        other = AutoModelForCausalLM.from_pretrained(tiny_model)
        with torch.no_grad():
            other.lm_head.weight.mul_(1.5)
        place = tmp_path / "tiny-words"
        other.save_pretrained(place)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(place)
        with pytest.raises(IncompatibleModel, match="tiny-words"):
            _make(registry, place, tasks=TASKS[:2], seeds=1, controls=0)

    @pytest.mark.parametrize(
        ("told", "text"),
        [
            ({"share": 0.1, "edges": 5}, "edges and share contradict each other"),
            ({"method": "eap", "steps": 3}, "steps are only for"),
            ({"method": "clean-corrupted", "ablation": "zero"}, "clean-corrupted takes gradients"),
            ({"device_map": "auto"}, "device and device_map contradict"),
            ({"seeds": 0}, "greater than or equal to 1"),
            ({"controls": -1}, "greater than or equal to 0"),
        ],
    )
    def test_what_contradicts_itself_is_no_configuration(
        self, told: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(ValueError, match=text):
            _told("m", **told)


class TestProgress:
    def test_time_left_is_known_once_a_run_of_each_kind_that_is_to_come_was_made(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: now)
        runs = NumberedRuns(Silent(), [("a", 1.0), ("b", 5.0), ("a", 1.0), ("b", 50.0)])
        runs.begin()
        now += 7.0
        runs.made()
        runs.begin()
        assert runs.seconds_left() is None
        now += 10.0
        runs.made()
        runs.begin()
        assert runs.seconds_left() == pytest.approx(7.0 + 100.0)
        # It was there already, which says nothing of how long one takes.
        runs.begin()
        assert runs.seconds_left() == pytest.approx(100.0)

    def test_stages_say_which_run_of_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, heard = 100.0, Heard()
        monkeypatch.setattr("time.monotonic", lambda: now)
        runs = NumberedRuns(heard, [("a", 1.0)] * 3)
        runs.begin()
        runs.stage("scoring")
        now += 80.0
        runs.made()
        runs.begin()
        runs.stage("scoring")
        runs.made()
        runs.begin()
        runs.stage("storing")
        assert heard.titles == [
            "run 1 of 3: scoring",
            "run 2 of 3, about 3 min left: scoring",
            "run 3 of 3, about 40 s left: storing",
        ]

    def test_of_many_stages_a_terminal_shows_the_last(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        for name, value in (("LINES", "14"), ("COLUMNS", "100"), ("TERM", "xterm")):
            monkeypatch.setenv(name, value)
        with show_progress() as progress:
            for number in range(40):
                progress.stage(f"stage {number:02}")(1, 2)
            drawn_before = time.monotonic() + 60
            while "stage 39" not in terminal.getvalue():
                assert time.monotonic() < drawn_before
                time.sleep(0.05)

    @pytest.mark.seconds
    def test_a_model_is_loaded_once_while_it_is_asked_for(self, tiny_model: Path) -> None:
        load, heard = KeptModel(), Heard()
        place = ModelPlace(str(tiny_model), device="cpu")
        first = load(place, heard)
        assert load(ModelPlace(str(tiny_model), device="cpu"), heard) is first
        other = load(ModelPlace(str(tiny_model), device="cpu", dtype="float64"), heard)
        assert other is not first
        assert len(heard.titles) == 2


@pytest.mark.seconds
def test_the_command_shows_a_row_for_each_task_and_seed(
    registry: Registry, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--home", str(registry.settings.home), "discover", "matrix",
               "--model", str(tiny_model), "--task", "ioi, capitals", "--seeds", "1",
               "--share", "40%", "--prompts", "8", "--controls", "0", "--method", "eap",
               "--device", "cpu", "--format", "json"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [row["task"] for row in rows] == ["ioi", "capitals"]
    assert {row["circuit"] for row in rows} == {entry.id for entry in registry.circuits()}
    assert {(row["attribution"], row["transfer"]) for row in rows} == {("run", "run")}
    assert said.err.splitlines()[-1] == "note: 4 runs were made, 0 existed already"
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err == "note: all 4 runs exist already; nothing was run\n"
    assert {row["attribution"] for row in json.loads(said.out)} == {"skipped"}
