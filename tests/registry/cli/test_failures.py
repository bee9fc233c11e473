"""Everything that goes wrong: one line, the right exit code, nothing stored."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from registry import Registry, errors
from registry.cli.failures import Failure, describe
from registry.graph.base import Statement
from registry.graph.open import open_graph
from registry.records import Edit
from tests import examples
from tests.patience import answers_within
from tests.registry.cli.conftest import IOI, IOI_TOO, Cli

FAULTS = [
    ("lst", 2, "no command 'lst'; did you mean 'list'?"),
    ("xyzzy", 2, "no command 'xyzzy'; 'circuits --help' lists them"),
    ("list --taks ioi", 2, "--taks"),
    ("--nonsense list", 2, "--nonsense"),
    ("list --format xml", 2, "'xml' is not one of 'table', 'json', 'csv'"),
    ("list --state gone", 2, "--state is 'gone'; it must be one of active, superseded, retracted"),
    ("list --limit 0", 2, "--limit"),
    ("import x --top 0", 2, "'--top': must be at least 1"),
    ("import x --node-threshold 1.5", 2, "'--node-threshold': must be at most 1"),
    ("import x --top many", 2, "'--top': must be a whole number"),
    ("discover edge-attribution --top 20", 2, "No such option: --top; here it is --edges"),
    ("list --model gtp2", 1, "no model 'gtp2'; nearest: gpt2"),
    ("list --task iio", 1, "no task 'iio'; nearest: ioi"),
    ("show", 2, "Missing argument 'CIRCUIT'"),
    ("show xyz", 2, "'xyz' is not the start of a circuit's id"),
    ("show 000000", 1, "no circuit '000000'"),
    ("tag 000000 x", 1, "no circuit '000000'"),
    (f"tag {IOI.id} ' '", 2, "' ' is not a tag"),
    (f"note {IOI.id} ''", 2, "the note is empty"),
    (f"note {IOI.id} 'half \udcff'", 2, "notes.0: must be text that can be"),
    (f"tag {IOI.id} 'half-\udcff'", 2, "tags.0: must be text that can be"),
    (f"retract {IOI.id}", 2, "--reason"),
    (f"retract {IOI.id} --reason ''", 2, "a retraction needs a reason"),
    (f"retract {IOI.id} --reason x --superseded-by {IOI.id}", 2, "cannot supersede itself"),
    (f"retract {IOI.id} --reason x --superseded-by 00000", 1, "no circuit '00000'"),
    ("query nothing", 1, "no query 'nothing'; known: "),
    ("query nothing --about", 1, "no query 'nothing'; known: "),
    ("query circuits-of-task", 2, "needs task"),
    ("query circuits-of-task taks=ioi", 2, "no parameter 'taks'; it takes"),
    ("query circuits-of-task ioi", 2, "parameter 'ioi' is not KEY=VALUE"),
    ("query circuits-of-task task=iio", 1, "no task 'iio'; nearest: ioi"),
    ("query where-used component=gpt2/x9", 2, "'x9'"),
    ("cypher ''", 2, "the statement is empty"),
    ("cypher 'RETURN $n AS n' --param n", 2, "--param 'n' is not KEY=VALUE"),
    ("cypher 'RETURN $n AS n' --param n=NaN", 2, "NaN is not a valid value: numbers are finite"),
    ("cypher 'RETURN $n AS n' --param n=1 --param n=2", 2, "--param n is given twice"),
    ("cypher 'MATCH (n'", 1, ""),
    ("cypher 'CREATE (n:Circuit {id: $i})' --param i=x", 1, ""),
    ("cypher 'MATCH (n) DETACH DELETE n'", 1, ""),
    ("cypher \"LOAD CSV FROM 'file:///etc/hosts' AS l RETURN l\"", 1, ""),
    ("edits show 0000", 1, "no edit '0000'"),
    ("edits list --circuit 0000", 1, "no circuit '0000'"),
    ("edits attach --editor ROME", 2, "which model was edited? Give --model, or --circuit"),
    (f"edits attach --circuit {IOI.id}", 2, "editor: missing"),
    (f"edits attach --circuit {IOI.id} --editor R --component x9", 2, "'x9'"),
    (f"edits attach --circuit {IOI.id} --editor R --component a99.h0", 2, "a99.h0"),
    (f"edits attach --circuit {IOI.id} --editor R --restriction all", 2, "restriction: "),
    ("edits attach --model gtp2 --editor R", 1, "no model 'gtp2'; nearest: gpt2"),
    (f"edits attach --circuit {IOI.id} --editor R --outcome efficacy", 2, "is not KEY=VALUE"),
    (f"edits attach --circuit {IOI.id} --editor R --outcome metrik=a", 2, "no field 'metrik'"),
    (f"edits attach --circuit {IOI.id} --editor R --outcome task=ioi", 2, "metric: missing"),
    (
        f"edits attach --circuit {IOI.id} --editor R --outcome metric=a,after=much",
        2,
        "outcomes.0: after: must be a number",
    ),
    (
        f"edits attach --circuit {IOI.id} --editor R --outcome metric=a,after=nan",
        2,
        "outcomes.0: after: must be a finite number",
    ),
    ("edits attach --file absent.yaml", 2, "absent.yaml cannot be read: No such file"),
    ("backup .", 2, "exists already"),
    ("backup no/such/folder/x.zip", 1, "no/such/folder/x.zip"),
    ("restore absent.zip", 2, "absent.zip does not exist"),
    ("--home elsewhere list", 1, "no registry in "),
    ("--ledger mysql://h/d list", 2, "--ledger is 'mysql://h/d'; it must be sqlite:///PATH"),
    ("--graph redis://h list", 2, "--graph is 'redis://h'; it must be kglite:///PATH"),
    ("--ledger postgresql://me:secret@h/d list", 2, "set CIRCUITS_LEDGER instead"),
    ("--log-level loud list", 2, "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
    ("--log-file no/such/folder/log list", 2, "--log-file no/such/folder/log: No such file"),
]
EDIT_FILES = {
    "broken.json": ('{"editor": ', 2, "broken.json is not JSON: "),
    "nan.json": ('{"editor": "R", "request": {"a": NaN}}', 2, "NaN is not a valid value"),
    "broken.yaml": ("editor: [", 2, "broken.yaml is not YAML: "),
    "list.yaml": ("- ROME", 2, "list.yaml must hold one edit"),
    "unknown.yaml": ("editr: ROME", 2, "unknown.yaml: no field 'editr'; there are model, editor"),
    "missing.yaml": ("model: gpt2", 2, "missing.yaml: editor: missing"),
    "type.yaml": (
        "{model: gpt2, editor: [1]}",
        2,
        "type.yaml: editor: must be text",
    ),
    "text.yaml": ("{model: gpt2, editor: R, circuits: abc}", 2, "circuits must be a list of texts"),
    "date.yaml": (
        "{model: gpt2, editor: R, request: {when: 2026-01-31}}",
        2,
        "date.yaml: ",
    ),
    "outcomes.yaml": ("{model: gpt2, editor: R, outcomes: 3}", 2, "outcomes must be a list"),
    "outcome.yaml": ("{model: gpt2, editor: R, outcomes: [3]}", 2, "outcomes.0 must be fields"),
    "nested.yaml": (
        "{model: gpt2, editor: R, outcomes: [{metric: a}, {metric: b, before: low}]}",
        2,
        "nested.yaml: outcomes.1: before: must be a number",
    ),
    "binary.yaml": ("\udcff", 2, "binary.yaml cannot be read: it is not UTF-8 text"),
}


def stored(home: Path) -> list[object]:
    with Registry.open(home) as registry:
        return list(registry.ledger.dump())


def assert_one_line(answer_err: str) -> None:
    assert answer_err.startswith("error: ")
    assert answer_err.count("\n") == 1
    assert answer_err.endswith("\n")


@pytest.mark.parametrize(("command", "code", "says"), FAULTS)
def test_a_fault_is_one_line_with_its_exit_code_and_stores_nothing(
    command: str, code: int, says: str, cli: Cli, filled: Path
) -> None:
    before = stored(filled)
    answer = cli(*shlex.split(command))
    assert_one_line(answer.err)
    assert says in answer.err
    assert answer.code == code
    assert answer.out == ""
    assert stored(filled) == before


@pytest.mark.parametrize("name", EDIT_FILES)
def test_a_malformed_edit_file_names_the_field_and_stores_nothing(
    name: str, cli: Cli, filled: Path, tmp_path: Path
) -> None:
    text, code, says = EDIT_FILES[name]
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    before = stored(filled)
    answer = cli("edits", "attach", "--file", name)
    assert_one_line(answer.err)
    assert says in answer.err
    assert answer.code == code
    assert stored(filled) == before


def test_an_edit_of_one_model_is_not_aimed_at_a_circuit_of_another(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        registry.record(examples.circuit(9, model="gpt2-medium"))
    answer = cli("edits", "attach", "--model", "gpt2-medium", "--editor", "R", "--circuit", IOI.id)
    assert answer.err == "error: the edit is of gpt2-medium, but it targeted a circuit of gpt2\n"
    foreign = cli(
        *("edits", "attach", "--circuit", IOI.id, "--editor", "R"),
        *("--component", "gpt2-medium/a1.h1"),
    )
    assert "is not of the edited model gpt2" in foreign.err


@pytest.mark.parametrize("command", ["list", "status", "sync", "cypher 'RETURN 1'", "gc"])
def test_without_a_registry_the_line_says_how_to_make_one(command: str, cli: Cli) -> None:
    answer = cli(*shlex.split(command))
    assert_one_line(answer.err)
    assert "run 'circuits init' to make one here" in answer.err
    assert answer.code == 1


def test_a_prefix_that_fits_two_circuits_is_bad_input(cli: Cli, filled: Path) -> None:
    answer = cli("show", "")
    assert_one_line(answer.err)
    assert answer.code == 2


@pytest.mark.parametrize(
    "command", ["query circuits-of-task task=ioi", "cypher 'RETURN 1 AS n'", "sync", "rebuild"]
)
def test_a_graph_out_of_reach_stops_what_reads_it_with_one_line(
    command: str, cli: Cli, filled: Path
) -> None:
    answer = cli("--graph", "bolt://127.0.0.1:1", *shlex.split(command))
    assert_one_line(answer.err)
    assert answer.code == 1
    assert cli("--graph", "bolt://127.0.0.1:1", "list").code == 0


def test_doctor_fails_where_a_part_fails_and_says_what_to_do(cli: Cli, filled: Path) -> None:
    def failing() -> dict[str, str]:
        answer = cli("doctor", "--thorough", "--format", "json")
        failed = [row for row in json.loads(answer.out) if row["state"] == "fail"]
        assert answer.code == (1 if failed else 0)
        return {row["part"]: row["advice"] for row in failed}

    assert failing() == {}
    (filled / "circuits.toml").write_text('graph = "bolt://127.0.0.1:1"')
    assert failing() == {"trust": f"circuits trust {filled}"}
    assert cli("trust").code == 0
    assert failing() == {"graph": "recording continues; then circuits sync"}
    (filled / "circuits.toml").unlink()
    document = next(path for path in (filled / "artifacts").rglob("*") if IOI.id[4:] in path.name)
    document.chmod(0o644)
    document.write_bytes(b"something else")
    assert failing() == {"artifacts": "circuits mend BACKUP.zip, a bundle, or the original files"}
    (filled / "circuits.toml").write_text("graph_password = 'x'")
    assert set(failing()) == {"settings"}


def test_doctor_sees_a_graph_that_is_behind_and_sync_mends_it(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        before = (filled / "graph.kgl").read_bytes()
        registry.record(examples.circuit(9))
        assert registry.status().pending == 0
    # As if the file had been put back from an old copy.
    (filled / "graph.kgl").write_bytes(before)
    answer = cli("doctor", "--format", "json")
    rows = {row["part"]: row for row in json.loads(answer.out)}
    assert (rows["pending"]["state"], rows["pending"]["advice"]) == ("warn", "circuits sync")
    assert rows["graph"]["finding"] == "1 circuits are missing, 0 too many"
    assert "not yet in the graph" in cli("cypher", "RETURN 1 AS one").err
    assert cli("sync").code == 0
    after = {row["part"]: row for row in json.loads(cli("doctor", "--format", "json").out)}
    assert (after["pending"]["state"], after["graph"]["state"]) == ("ok", "ok")


def test_doctor_sees_a_graph_that_lacks_a_circuit(cli: Cli, filled: Path) -> None:
    with open_graph(f"kglite://{filled / 'graph.kgl'}", writing=True) as graph:
        graph.write(
            [Statement("MATCH (c:Circuit) WHERE c.id = $id DETACH DELETE c", {"id": IOI.id})]
        )
        graph.checkpoint()
    answer = cli("doctor", "--format", "json")
    assert [row for row in json.loads(answer.out) if row["state"] == "fail"] == [
        {
            "part": "graph",
            "state": "fail",
            "finding": "1 circuits are missing, 0 too many",
            "advice": "circuits rebuild",
        }
    ]
    assert cli("rebuild").code == 0
    assert cli("doctor").code == 0


def test_doctor_without_a_registry_checks_the_installation(cli: Cli) -> None:
    answer = cli("doctor")
    assert answer.code == 1
    assert "run 'circuits init'" in answer.out


# -- exceptions to lines ---------------------------------------------------------------------------


def all_errors(root: type[errors.CircuitsError]) -> set[type[errors.CircuitsError]]:
    return {root}.union(*(all_errors(kind) for kind in root.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(all_errors(errors.CircuitsError), key=str))
def test_every_error_of_ours_becomes_a_line_and_bad_input_alone_is_usage(
    kind: type[errors.CircuitsError],
) -> None:
    n_values = len(inspect.signature(kind).parameters) if "__init__" in vars(kind) else 1
    failure = describe(kind(*["given"] * n_values))
    assert failure.line.startswith("error: ")
    assert "given" in failure.line
    assert failure.exit_code == (2 if issubclass(kind, errors.BadInput) else 1)


def test_a_line_is_one_line_and_shows_no_password() -> None:
    failure = describe(errors.LedgerError("no answer from\n  postgresql://me:secret@host/db"))
    assert failure.line == "error: no answer from postgresql://me:***@host/db"


def test_a_full_disk_is_named() -> None:
    failure = describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"))
    assert failure.line.startswith("error: no space left on the device: /data/x; free some")
    assert failure.exit_code == 1


def test_other_faults_of_the_system_say_what_and_where() -> None:
    failure = describe(PermissionError(errno.EACCES, "Permission denied", "/data/x"))
    assert (failure.line, failure.exit_code) == ("error: Permission denied: /data/x", 1)


def test_a_record_that_does_not_fit_names_field_and_number_of_faults() -> None:
    with pytest.raises(ValidationError) as caught:
        Edit.model_validate({"model": "gpt2", "editor": 3, "restriction": "all"})
    failure = describe(caught.value)
    assert failure.line == ("error: editor: must be text, is 3 (and 1 more)")
    assert failure.exit_code == 2


def test_a_fault_of_our_own_says_how_to_see_where() -> None:
    failure = describe(RuntimeError("oops"))
    assert failure.exit_code == 1
    assert failure.line.startswith("error: RuntimeError: oops (an error in this program; ")


def test_debugging_shows_the_traceback(cli: Cli, filled: Path) -> None:
    answer = cli("--log-level", "debug", "show", "000000")
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: no circuit '000000'")


def test_the_log_file_holds_the_traceback_and_no_password(
    cli: Cli, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITS_LEDGER", "postgresql://me:secret@127.0.0.1:1/db")
    answer = cli("--log-file", "log.txt", "list")
    assert_one_line(answer.err)
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" in log
    assert "secret" not in log + answer.err


# -- processes -------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "registry", *arguments]


def test_a_reader_that_leaves_ends_the_command_quietly(filled: Path) -> None:
    process = subprocess.Popen(
        command("cypher", "UNWIND range(1, 90000) AS n RETURN n", "--format", "csv"),
        cwd=filled.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_output_onto_a_full_disk_is_one_line(filled: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("list"),
            cwd=filled.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line(done.stderr)
    assert "no space left" in done.stderr
    assert done.returncode == 1


def test_ctrl_c_is_one_line_and_exit_code_130(filled: Path) -> None:
    script = (
        "import sys; from registry.cli.main import main; "
        "print('started', file=sys.stderr, flush=True); sys.exit(main(['cypher', '-']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=filled.parent,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    time.sleep(0.5)  # it loads, or waits for the statement, for ever
    for _ in range(10):  # a library that is being loaded may swallow one
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
            break
    _, complaints = process.communicate(timeout=60)
    assert complaints == "interrupted\n"
    assert process.returncode == 130


def test_ctrl_c_that_comes_while_a_library_is_loaded_is_ctrl_c() -> None:
    # As Python 3.11 wraps what is raised while a class is being made.
    wrapped = RuntimeError("Error calling __set_name__ on 'Field' instance")
    wrapped.__cause__ = KeyboardInterrupt()
    assert describe(wrapped) == Failure("interrupted", 130)
    other = RuntimeError("another fault")
    other.__cause__ = ValueError("of its own")
    assert describe(other).exit_code == 1


def test_a_statement_is_stopped_at_its_time_limit(cli: Cli, filled: Path) -> None:
    text = "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b RETURN count(*)"
    with answers_within(20):
        answer = cli("cypher", text, "--timeout", "0.5")
    assert_one_line(answer.err)
    assert answer.code == 1


def test_ids_of_both_circuits_differ_from_the_start() -> None:
    # What the ambiguous and unknown prefixes above rely on.
    assert IOI.id[:4] != IOI_TOO.id[:4]
    assert not IOI.id.startswith("0000")
