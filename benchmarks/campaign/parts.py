"""Work of the processes of a campaign, in steps, through the registry's public interface."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from synthetic import make_circuit

from campaign.stage import LASTING, PASSING, Stage, planted_content
from registry import Registry
from registry.cli.main import main as command_line
from registry.records import Circuit, CircuitState, Edit, Evaluation, Outcome

__all__ = ["LOOK_AT_ALL", "PLAYED", "Player", "is_whole"]

_LARGEST_SEED = 2**48
_SHARE_OF_PAUSES, _LONGEST_PAUSE_SECONDS = 0.5, 0.6
"""Of writers: they write in bursts, and the registry stays small enough to be rebuilt."""
_GC_GRACE_SECONDS = 600.0
"""Longer than a round: only artifacts with an older, faked date are ever deleted."""
_PLANTED_AGE_SECONDS = 2 * _GC_GRACE_SECONDS

_COUNTS = """
OPTIONAL MATCH (c)-[:HAS_NODE]->(n:Node)
WITH c, count(n) AS nodes
OPTIONAL MATCH (c)-[:HAS_NODE]->(:Node)-[e:EDGE]->(:Node)
WITH c, nodes, count(e) AS edges
OPTIONAL MATCH (c)-[u:USES]->(:Connection)
WITH c, nodes, edges, count(u) AS uses
RETURN c.id AS id, c.n_nodes AS n_nodes, nodes, c.n_edges AS n_edges, edges, uses ORDER BY id
"""
LOOK_AT_ALL = "MATCH (c:Circuit)" + _COUNTS
"""Actual and expected numbers of nodes and edges of each circuit, in one statement."""
_LOOK = "MATCH (c:Circuit) WHERE c.task = $task" + _COUNTS
"""The same numbers for circuits that are never retracted.

In Neo4j a running statement sees later commits. If a circuit is removed during the statement, its
node may be read before and its parts after the removal.
"""
_OF_REBUILDING = ("rebuil", "made again")
"""Text of the warning about an incomplete graph."""
_READS_A_NOTE = 5
_SHARE_COMPARED_WITH_LEDGER = 0.1
_LONGEST_LOOKING_AWAY_SECONDS = 0.15
"""Readers without a pause would use all processors."""


class Player(Protocol):
    """A part, done by one process."""

    def step(self, registry: Registry) -> None:
        """Do one step; the caller records errors and continues."""
        ...


class Writer:
    """Records, measures, labels, retracts and edits circuits, and logs acknowledgements."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._draw = stage.draw
        self._ways: dict[Callable[[Registry], None], float] = {
            self._record: 8,
            self._record_with_evaluation: 3,
            self._record_with_scores: 3,
            self._evaluate: 2,
            self._tag: 3,
            self._note: 1,
            self._retract: 1,
            self._attach_edit: 2,
        }

    def step(self, registry: Registry) -> None:
        """Write one change, unless the round is quiet."""
        self._stage.wait_while_quiet()
        (way,) = self._draw.choices([*self._ways], [*self._ways.values()])
        way(registry)
        if self._draw.random() < _SHARE_OF_PAUSES:
            self._stage.pause(0.0, _LONGEST_PAUSE_SECONDS)

    def _new_circuit(self, scores: str | None = None) -> Circuit:
        return make_circuit(
            self._draw.randrange(_LARGEST_SEED),
            task=self._draw.choice((LASTING, LASTING, PASSING)),
            n_edges=self._draw.randint(5, 60),
            scores=scores,
        )

    def _acknowledged(self, record: str, **details: Any) -> None:
        self._stage.journal.note("acknowledged", record=record, **details)

    def _some_circuit(self, registry: Registry, **filters: Any) -> str | None:
        found = registry.circuits(limit=30, **filters)
        return self._draw.choice(found).id if found else None

    def _record(self, registry: Registry) -> None:
        circuit = self._new_circuit()
        registry.record(circuit)
        self._acknowledged("circuit", id=circuit.id)

    def _record_with_evaluation(self, registry: Registry) -> None:
        circuit = self._new_circuit()
        evaluation = self._evaluation(circuit.id, circuit.task)
        registry.record(circuit, evaluation)
        self._acknowledged("circuit", id=circuit.id)
        self._acknowledged("evaluation", id=evaluation.id)

    def _record_with_scores(self, registry: Registry) -> None:
        """Record with scores that ``gc`` could delete now: they had no references before."""
        scores = registry.store_artifact(planted_content(self._stage.n_planted))
        circuit = self._new_circuit(scores)
        registry.record(circuit)
        self._acknowledged("circuit", id=circuit.id)
        self._acknowledged("artifact", id=scores)

    def _evaluate(self, registry: Registry) -> None:
        if circuit := self._some_circuit(registry):
            evaluation = self._evaluation(circuit, LASTING)
            registry.record(evaluation)
            self._acknowledged("evaluation", id=evaluation.id)

    def _evaluation(self, circuit: str, task: str) -> Evaluation:
        value = self._draw.random()
        return Evaluation(circuit=circuit, task=task, measure="faithfulness", value=value)

    def _tag(self, registry: Registry) -> None:
        if circuit := self._some_circuit(registry):
            tag = f"t{self._draw.randrange(_LARGEST_SEED)}"
            registry.tag(circuit, add=[tag])
            self._acknowledged("tag", id=circuit, text=tag)

    def _note(self, registry: Registry) -> None:
        if circuit := self._some_circuit(registry):
            text = f"seen by {self._stage.name} at {time.time()}"
            registry.note(circuit, text)
            self._acknowledged("note", id=circuit, text=text)

    def _retract(self, registry: Registry) -> None:
        if circuit := self._some_circuit(registry, task=PASSING, state=CircuitState.ACTIVE):
            registry.retract(circuit, reason="was to pass")
            self._acknowledged("retraction", id=circuit)

    def _attach_edit(self, registry: Registry) -> None:
        if circuit := self._some_circuit(registry):
            edit = Edit(
                model="gpt2",
                editor="ROME",
                request={"number": self._draw.randrange(_LARGEST_SEED)},
                components=("m5",),
                circuits=(circuit,),
            )
            outcome = Outcome(edit=edit.id, metric="efficacy", task=LASTING, after=1.0)
            registry.attach_edit(edit, [outcome])
            self._acknowledged("edit", id=edit.id, outcome=outcome.id)


class Reader:
    """Checks that every circuit is complete, and that none disappears without a warning."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._most = 0
        self._reads = 0
        self._warnings: list[str] = []
        logging.getLogger("registry").addHandler(_Listener(self._warnings))

    def step(self, registry: Registry) -> None:
        """Look once."""
        recorded = 0
        if self._stage.draw.random() < _SHARE_COMPARED_WITH_LEDGER:
            recorded = len(registry.circuits(task=LASTING))
        self._warnings.clear()
        found = registry.cypher(_LOOK, {"task": LASTING}).to_dicts()
        if halves := [row for row in found if not is_whole(row)]:
            of_rebuild = any(word in text for text in self._warnings for word in _OF_REBUILDING)
            self._note("half", of_rebuild, n=len(halves), first=halves[0])
        expected = max(self._most, recorded)
        if len(found) < expected:
            self._note("fall", bool(self._warnings), expected=expected, found=len(found))
        self._most = max(self._most, len(found))
        registry.query("shared-components", tasks=[LASTING, PASSING])
        self._reads += 1
        if self._reads % _READS_A_NOTE == 0:
            self._stage.journal.note("reads", n=_READS_A_NOTE)
        self._stage.pause(0.0, _LONGEST_LOOKING_AWAY_SECONDS)

    def _note(self, what: str, warned: bool, **details: Any) -> None:
        self._stage.journal.note(what, warned=warned, warnings=self._warnings, **details)


class _Listener(logging.Handler):
    """Collects the warnings of the registry."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        self._warnings.append(record.getMessage())


def is_whole(row: dict[str, Any]) -> bool:
    """Whether a row of :data:`LOOK_AT_ALL` has all nodes and edges of its circuit."""
    edges: int = row["n_edges"]
    return bool(row["nodes"] == row["n_nodes"] and row["edges"] == row["uses"] == edges)


class Syncer:
    """Projects pending changes."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def step(self, registry: Registry) -> None:
        """Project all of them."""
        registry.sync()
        self._stage.pause(0.0, 1.0)


class Rebuilder:
    """Rebuilds the graph repeatedly."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def step(self, registry: Registry) -> None:
        """Rebuild it once."""
        registry.rebuild()
        self._stage.journal.note("rebuilt")
        self._stage.pause(0.5, 8.0)


class BackupMaker:
    """Writes backups, and logs the complete ones."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._n = 0

    def step(self, registry: Registry) -> None:
        """Write one."""
        self._n += 1
        path = self._stage.folder / f"{self._stage.name}-{self._n}.zip"
        began_at = time.time()
        registry.backup(path)
        self._stage.journal.note("backup", path=str(path), began_at=began_at)
        self._stage.pause(1.0, 4.0)


class Collector:
    """Makes artifacts with old dates, and deletes artifacts without references."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def step(self, registry: Registry) -> None:
        """Make some, let writers use them, and collect."""
        for number in range(self._stage.n_planted + 1, self._stage.n_planted + 4):
            address = registry.store_artifact(planted_content(number))
            path = registry.settings.home / "artifacts" / address[:2] / address[2:]
            old = time.time() - _PLANTED_AGE_SECONDS
            os.utime(path, (old, old))
            # Writers store the same content only after this, so the new dates they set are kept.
            self._stage.has_planted(number)
            self._stage.pause(0.0, 0.3)
        collected = registry.gc(apply=True, grace_seconds=_GC_GRACE_SECONDS)
        self._stage.journal.note("collected", n=len(collected.addresses))


class Importer:
    """Imports tables of edges by the command, and logs which were recorded."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def step(self, registry: Registry) -> None:
        """Write one more file, and import it."""
        del registry  # the command opens the registry itself
        self._stage.wait_while_quiet()
        number = self._stage.draw.randrange(_LARGEST_SEED)
        path = self._stage.folder / f"table-{number}.csv"
        path.write_text(_table(make_circuit(number, task=LASTING, n_edges=20)))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = command_line(["import", str(path), "--model", "gpt2", "--task", LASTING,
                                 "--method", "synthetic"])  # fmt: skip
        if code == 0:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._stage.journal.note("acknowledged", record="import", id=sha256)
        elif code == 1 and "Traceback" not in said.getvalue():
            self._stage.journal.note("error", kind="of the command", text=said.getvalue().strip())
        else:
            self._stage.journal.note("fault", text=f"import ended with {code}: {said.getvalue()}")
        self._stage.pause(0.2, 1.5)


def _table(circuit: Circuit) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["source", "target", "port", "effect"])
    rows.writerows([edge.source, edge.target, edge.port, edge.effect] for edge in circuit.edges)
    return text.getvalue()


PLAYED: dict[str, Callable[[Stage], Player]] = {
    "write": Writer,
    "read": Reader,
    "sync": Syncer,
    "rebuild": Rebuilder,
    "backup": BackupMaker,
    "gc": Collector,
    "import": Importer,
}
"""By the name of ``campaign.plan.Part``."""
