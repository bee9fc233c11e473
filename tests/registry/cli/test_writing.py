"""Commands that change a registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry import Registry
from registry.ledger.base import Batch
from registry.records import CircuitState, SourceFile
from tests.registry.cli.conftest import EDIT, IOI, IOI_TOO, NUMERALS, Cli

BY_HAND = {
    "model": "gpt2",
    "editor": "MEMIT",
    "restriction": "circuit",
    "components": ["a9.h6", "gpt2/m5"],
    "request": {"subject": "Eiffel Tower", "target_new": " Rome"},
    "circuits": [IOI.id[:10]],
    "outcomes": [
        {"metric": "efficacy", "protocol": "generation", "before": 0.1, "after": 0.9},
        {"metric": "specificity", "task": "sequence/numerals", "after": 0.5, "n_prompts": 20},
    ],
}


def test_init_makes_a_registry_that_commands_below_it_find(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("init").err == f"registry in {tmp_path / '.circuits'}\n"
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert json.loads(cli("status", "--format", "json").out)["registry"]["home"] == str(
        tmp_path / ".circuits"
    )


def test_init_keeps_the_options_it_was_given(cli: Cli, tmp_path: Path) -> None:
    assert cli("--graph", "kglite:///elsewhere.kgl", "init", "project").code == 0
    answer = cli("--home", "project", "status", "--format", "json")
    assert json.loads(answer.out)["registry"]["graph"] == f"kglite:///{tmp_path}/elsewhere.kgl"
    assert list((tmp_path / "project").rglob("*.kgl*")) == []


def test_init_again_keeps_what_is_there(cli: Cli, filled: Path) -> None:
    assert cli("init").code == 0
    assert len(json.loads(cli("list", "--format", "json").out)) == 3


def test_init_that_fails_leaves_no_home(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = cli("--ledger", "sqlite:///file/ledger.sqlite", "init")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert not (tmp_path / ".circuits").exists()


def test_tags_are_added_and_removed(cli: Cli, filled: Path) -> None:
    assert cli("tag", IOI.id[:8], "b", "a").err == "tags: a, b, final\n"
    assert cli("tag", IOI.id[:8], "a", "final", "--remove").err == "tags: b\n"
    assert cli("tag", IOI.id[:8], "b", "--remove").err == "tags: none\n"


def test_notes_are_kept_in_order(cli: Cli, filled: Path) -> None:
    cli("note", IOI.id[:8], "first")
    cli("note", IOI.id[:8], "second")
    with Registry.open(filled) as registry:
        assert registry.circuit(IOI.id).entry.labels.notes == ("first", "second")


def test_a_newer_circuit_supersedes(cli: Cli, filled: Path) -> None:
    answer = cli("retract", IOI.id, "--reason", "more prompts", "--superseded-by", IOI_TOO.id[:9])
    assert answer.err == "now superseded\n"
    with Registry.open(filled) as registry:
        labels = registry.circuit(IOI.id).entry.labels
    assert (labels.state, labels.superseded_by) == (CircuitState.SUPERSEDED, IOI_TOO.id)


def test_a_retracted_circuit_leaves_the_answers_and_stays_on_record(cli: Cli, filled: Path) -> None:
    assert cli("retract", IOI.id, "--reason", "wrong prompts").err == "now retracted\n"
    found = json.loads(cli("query", "circuits-of-task", "task=ioi", "--format", "json").out)
    assert {row["circuit"] for row in found} == {IOI_TOO.id}
    assert "wrong prompts" in cli("show", IOI.id).out


def test_an_edit_is_attached_from_options(cli: Cli, filled: Path) -> None:
    answer = cli(
        *("edits", "attach", "--circuit", IOI.id[:9], "--circuit", NUMERALS.id[:9]),
        *("--editor", "ROME", "--component", "m7", "--component", "gpt2/a9.h6"),
        *("--request", "subject=Paris", "--hyperparameter", "layers=[5, 6]"),
        *("--restriction", "layers", "--note", "by hand"),
        *("--outcome", "metric=efficacy,protocol=teacher-forced,before=0.1,after=0.9,task=ioi"),
        *("--outcome", '{"metric": "fluency, overall", "after": 2, "n_prompts": 7}'),
        *("--format", "json"),
    )
    with Registry.open(filled) as registry:
        edit = registry.edit(json.loads(answer.out)["edit"])
        outcomes = registry.outcomes(edit.id)
    assert edit.model == "gpt2"
    assert set(edit.circuits) == {IOI.id, NUMERALS.id}
    assert edit.components == ("m7", "a9.h6")
    assert edit.request == {"subject": "Paris"}
    assert edit.hyperparameters == {"layers": [5, 6]}
    assert (edit.restriction, edit.note) == ("layers", "by hand")
    assert {(o.metric, o.protocol, o.task, o.before, o.after, o.n_prompts) for o in outcomes} == {
        ("efficacy", "teacher-forced", "ioi", 0.1, 0.9, None),
        ("fluency, overall", "unknown", None, None, 2.0, 7),
    }


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_an_edit_is_attached_from_a_file_and_found_by_what_it_puts_at_risk(
    kind: str, cli: Cli, filled: Path, tmp_path: Path
) -> None:
    import yaml

    path = tmp_path / f"edit.{kind}"
    path.write_text(json.dumps(BY_HAND) if kind == "json" else yaml.safe_dump(BY_HAND))
    answer = cli("edits", "attach", "--file", str(path), "--format", "json")
    identifier = json.loads(answer.out)["edit"]
    at_risk = cli("query", "tasks-at-risk", f"edit={identifier[:8]}", "--format", "json")
    assert at_risk.code == 0, at_risk.err
    touched = json.loads(cli("edits", "list", "--circuit", IOI.id, "--format", "json").out)
    assert {row["edit"] for row in touched} == {identifier, EDIT.id}
    shown = json.loads(cli("edits", "show", identifier, "--format", "json").out)
    assert [o["metric"] for o in shown["outcomes"]] == ["efficacy", "specificity"]


def test_the_same_edit_again_changes_nothing(cli: Cli, filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(BY_HAND))
    once = cli("edits", "attach", "--file", str(path))
    assert cli("edits", "attach", "--file", str(path)) == once
    assert len(json.loads(cli("edits", "list", "--format", "json").out)) == 2


def test_options_go_before_the_file(cli: Cli, filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(BY_HAND))
    answer = cli("edits", "attach", "--file", str(path), "--editor", "ROME", "--format", "json")
    with Registry.open(filled) as registry:
        assert registry.edit(json.loads(answer.out)["edit"]).editor == "ROME"


def test_a_task_that_only_an_outcome_names_is_mentioned(cli: Cli, filled: Path) -> None:
    answer = cli(
        *("edits", "attach", "--circuit", IOI.id, "--editor", "ROME"),
        *("--outcome", "metric=efficacy,after=1,task=zsre"),
    )
    assert answer.err == "task 'zsre' is new in this registry\n"


def test_rebuild_and_sync_say_what_they_did(cli: Cli, filled: Path) -> None:
    before = cli("query", "circuits-of-task", "task=ioi").out
    assert cli("rebuild").err.startswith("projected ")
    assert cli("query", "circuits-of-task", "task=ioi").out == before
    assert cli("sync").err == "nothing was pending\n"


def test_rebuild_keeps_another_address_or_says_that_it_did_not(
    cli: Cli, filled: Path, tmp_path: Path
) -> None:
    other = f"kglite:///{tmp_path}/other.kgl"
    told = cli("--graph", other, "rebuild").err
    assert f"graph = {other!r} is not in {filled / 'circuits.toml'}" in told
    assert "--graph" not in cli("rebuild").err
    assert cli("status", "--format", "json").out.count("other.kgl") == 0
    assert "is not in" not in cli("--graph", other, "rebuild", "--save").err
    assert json.loads(cli("status", "--format", "json").out)["registry"]["graph"] == other
    again = f"kglite:///{tmp_path}/again.kgl"
    cli("--graph", again, "rebuild", "--save")
    lines = (filled / "circuits.toml").read_text().splitlines()
    assert [line for line in lines if line.startswith("graph")] == [f'graph = "{again}"']


def test_rebuild_keeps_an_address_of_the_environment(
    cli: Cli, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"kglite:///{tmp_path}/other.kgl"
    with monkeypatch.context() as patched:
        patched.setenv("CIRCUITS_GRAPH", other)
        assert cli("rebuild", "--save").code == 0
    assert json.loads(cli("status", "--format", "json").out)["registry"]["graph"] == other
    assert cli("sync").err == "nothing was pending\n"


def test_init_says_which_addresses_an_old_home_does_not_keep(
    cli: Cli, filled: Path, tmp_path: Path
) -> None:
    other = f"kglite:///{tmp_path}/other.kgl"
    assert f"graph = {other!r} is not in" in cli("--graph", other, "init").err
    assert "is not in" not in cli("--graph", other, "init", "new").err


def test_what_is_damaged_is_left_out_named_and_mended(
    cli: Cli, filled: Path, tmp_path: Path
) -> None:
    assert cli("mend", str(filled)).err.endswith("no artifact is damaged\n")
    assert cli("backup", "whole.zip").code == 0
    (filled / "artifacts" / IOI.id[:2] / IOI.id[2:]).write_bytes(b"x")
    refused = cli("backup", "all.zip")
    assert refused.code == 1
    assert f"the document of circuit {IOI.id[:12]}" in refused.err
    assert "--skip-damaged" in refused.err
    assert (
        f"skipped: artifact {IOI.id[:12]} is damaged"
        in cli("backup", "--skip-damaged", "some.zip").err
    )
    assert cli("rebuild").code == 0
    assert f"not in the graph: circuit {IOI.id[:12]}" in cli("sync").err
    assert IOI.id[:12] in cli("status").out
    partly = cli("restore", "some.zip", "new")
    assert "3 artifacts are not in the backup" in partly.err  # two are originals
    nothing = cli("mend", "some.zip")
    assert nothing.code == 1
    assert f"still artifact {IOI.id[:12]} is damaged" in nothing.err
    assert cli("mend", "some.zip", "whole.zip").err.endswith("mended 1 artifact\n")
    assert cli("sync").err == "nothing was pending\n"
    assert cli("doctor", "--thorough").code == 0
    assert cli("mend", "nowhere.zip").code == 2


def test_an_original_that_is_damaged_or_deleted_is_named_and_mended(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".circuits"
    monkeypatch.chdir(tmp_path)
    with Registry.init(home) as registry:
        Path("heads.csv").write_text("heads")
        address = registry.store_file(Path("heads.csv"))
        file = SourceFile(name="heads.csv", sha256=address, format="table")
        registry.record(Batch(imported=[file]))

    def row(part: str) -> dict[str, str]:
        rows = json.loads(cli("doctor", "--thorough", "--format", "json").out)
        return next((row for row in rows if row["part"] == part), {})

    path = home / "artifacts" / address[:2] / address[2:]
    path.write_bytes(b"bad")
    named = f"artifact {address[:12]} is damaged: the original of heads.csv"
    assert row("artifacts")["finding"].startswith(f"1 of 1 artifact is bad: {named}")
    assert row("artifacts")["state"] == "fail"
    assert named in cli("backup", "all.zip").err
    assert cli("mend", "heads.csv").err == "mended 1 artifact\n"
    assert row("artifacts")["finding"] == "verified 1 of 1, none is missing"
    path.unlink()
    named = f"artifact {address[:12]} is not stored: the original of heads.csv"
    assert row("artifacts")["finding"] == "verified 0 of 0, none is missing"
    assert row("originals")["state"] == "warn"
    assert row("originals")["finding"].startswith(f"1 original is not stored: {named}")
    assert cli("doctor").code == 0
    backup = cli("backup", "all.zip")
    assert (backup.code, f"skipped: {named}" in backup.err) == (0, True)
    assert "1 artifact is not in the backup" in cli("restore", "all.zip", "new").err
    nothing = cli("mend", "all.zip")
    assert (nothing.code, f"still {named}" in nothing.err) == (0, True)
    assert cli("mend", "heads.csv").err == "mended 1 artifact\n"
    assert row("originals") == {}


def test_a_restore_leaves_a_graph_in_use_alone(cli: Cli, filled: Path, tmp_path: Path) -> None:
    assert cli("backup", "all.zip").code == 0
    graph = f"kglite:///{filled / 'graph.kgl'}"
    refused = cli("--graph", graph, "restore", "all.zip", "new")
    assert refused.code == 1
    assert "is not changed: it is not empty" in refused.err
    assert not (tmp_path / "new" / ".circuits").exists()
    assert cli("--graph", graph, "restore", "--overwrite-graph", "all.zip", "new").code == 0
    assert cli("query", "circuits-of-task", "task=ioi").code == 1
    assert cli("rebuild", "--overwrite-graph").code == 0
    assert cli("query", "circuits-of-task", "task=ioi").code == 0


def test_what_a_graph_out_of_reach_missed_comes_with_the_next_sync(cli: Cli, filled: Path) -> None:
    (away := ("--graph", "bolt://127.0.0.1:1"))
    answer = cli(*away, "retract", IOI.id, "--reason", "wrong")
    assert answer.code == 0
    assert "warning: " in answer.err
    assert "pending" in answer.err
    assert cli(*away, "query", "circuits-of-task", "task=ioi").code == 1
    assert cli("sync").err == "projected 1 change\n"


def test_migrate_says_what_is_pending_and_applies_it(cli: Cli, filled: Path) -> None:
    assert cli("migrate", "--check").err == "nothing is pending\n"
    for file in filled.glob("ledger.sqlite*"):
        file.unlink()
    (filled / "artifacts").rename(filled / "of the ledger that was lost")
    (filled / "ledger.sqlite").touch()
    pending = cli("migrate", "--check")
    assert pending.code == 1
    assert "pending; 'circuits migrate' applies" in pending.err
    assert pending.out.splitlines()[0] == "revision"
    assert cli("list").code == 1
    assert cli("migrate").err.startswith("applied ")
    assert cli("list").code == 0


def test_a_backup_is_restored_elsewhere(cli: Cli, filled: Path, tmp_path: Path) -> None:
    before = cli("list", "--format", "json").out
    assert "\nwrote all.zip: " in cli("backup", "all.zip").err
    (tmp_path / "new").mkdir()
    answer = cli("restore", "all.zip", "new")
    assert answer.err.startswith(f"restored 3 circuits into {tmp_path / 'new' / '.circuits'}\n")
    assert cli("--home", "new", "list", "--format", "json").out == before
    assert cli("--home", "new", "query", "circuits-of-task", "task=ioi").code == 0


def test_a_file_that_is_no_backup_leaves_no_home(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    answer = cli("restore", "notes.txt", "new")
    assert answer.code == 2
    assert not (tmp_path / "new" / ".circuits").exists()


def test_two_processes_may_collect_garbage_at_once(filled: Path) -> None:
    with Registry.open(filled) as registry:
        for number in range(200):
            registry.store_artifact(str(number).encode())
    code = "import sys; from registry import Registry\nwith Registry.open(sys.argv[1]) as registry:"
    code += "\n    print(registry.gc(apply=True, grace_seconds=0).deleted)"
    command = [sys.executable, "-c", code, str(filled)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["True\n"] * 2
    with Registry.open(filled) as registry:
        assert registry.gc(grace_seconds=0).addresses == ()
        assert registry.damage() == []


def test_gc_lists_first_and_deletes_when_told(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        address = registry.store_artifact(b"nobody needs this")
    [path] = [path for path in (filled / "artifacts").rglob("*") if path.name.endswith(address[4:])]
    hours_ago = time.time() - 2 * 3600
    os.utime(path, (hours_ago, hours_ago))
    assert json.loads(cli("gc", "--format", "json").out) == [{"artifact": address}]
    assert path.exists()
    assert cli("gc", "--apply").err == "1 artifact, 17 bytes deleted\n"
    assert not path.exists()
    assert cli("doctor", "--thorough").code == 0


def test_gc_counts_what_killed_imports_left_and_deletes_it_when_told(
    cli: Cli, filled: Path
) -> None:
    left = [filled / "artifacts" / ".unfinished" / name for name in ("a-1", "b-2", "c-3")]
    left[0].parent.mkdir(exist_ok=True)
    for path in left:
        path.write_bytes(b"half")
    for path in left[:2]:
        os.utime(path, (hours_ago := time.time() - 2 * 3600, hours_ago))
    listed = cli("gc")
    assert listed.out.splitlines() == ["artifact", ".unfinished/a-1", ".unfinished/b-2"]
    assert listed.err == "2 unfinished files, 8 bytes to delete with --apply\n"
    assert all(path.exists() for path in left)
    assert cli("gc", "--apply").err == "2 unfinished files, 8 bytes deleted\n"
    assert [path for path in left if path.exists()] == left[2:]  # it may be in use
    assert cli("gc", "--apply").err == "every artifact is in use\n"
