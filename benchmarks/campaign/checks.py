"""Check the state after a round: ``python -m campaign.checks FOLDER [BACKUP BEGAN_AT]``.

It prints one line of JSON: the losses and faults, and the number of checked things. A given backup
is restored into a separate folder, and must have everything that was acknowledged before it began.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from campaign.journal import Entry, read_journals
from campaign.parts import LOOK_AT_ALL, is_whole
from registry import Registry
from registry.errors import CircuitsError, GraphBusy, GraphUnavailable
from registry.records import CircuitState

__all__ = ["Found", "acknowledged"]

_STORED = re.compile(r".*/([0-9a-f]{2})/([0-9a-f]{62})")
_PATIENCE_SECONDS = 90.0
_QUERY_SECONDS = 600.0
_MAX_ROWS = 10**7
_MADE_UP = {"type", "name"}
"""Properties that the embedded engine invents, and ``title`` on nodes other than circuits."""

NODES = """
MATCH (n) WHERE NOT n:Registry RETURN labels(n) AS labels, n.id AS id, properties(n) AS properties
"""
LINKS = """
MATCH (a)-[r]->(b)
RETURN a.id AS source, type(r) AS kind, properties(r) AS properties, b.id AS target
"""


@dataclass
class Found:
    """Results of the checks.

    Attributes:
        losses: Records that were acknowledged and are missing.
        faults: All other faults.
        looked_at: Number of checked things of each kind.
    """

    losses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)


def acknowledged(entries: Iterable[Entry], *, before: float | None = None) -> list[Entry]:
    """Acknowledged records, or only those before a time (seconds since 1970)."""
    return [
        entry
        for entry in entries
        if entry["what"] == "acknowledged" and (before is None or entry["at"] < before)
    ]


def check_round(folder: Path, found: Found) -> None:
    """Check a round's registry: records, artifacts, and the graph after sync and rebuild."""
    entries = [*read_journals(folder)]
    with Registry.open() as registry:
        _patiently(registry.sync)
        _check_records(registry, acknowledged(entries), found)
        _check_graph(registry, "after sync", found)
        synced = _contents(registry)
        _patiently(registry.rebuild)
        _check_graph(registry, "after rebuild", found)
        _compare(synced, _contents(registry), found)
        _check_files(registry.settings.home / "artifacts", found)
    doctor = subprocess.run(
        [sys.executable, "-m", "registry", "doctor"], capture_output=True, text=True, check=False
    )
    if doctor.returncode:
        found.faults.append(f"doctor: {doctor.stdout} {doctor.stderr}")


def check_backup(folder: Path, backup: Path, began_at: float, found: Found) -> None:
    """Restore a backup, and check that it has all that was acknowledged before it began."""
    with Registry.restore(backup, folder / f"restored-{backup.stem}") as registry:
        promised = acknowledged(read_journals(folder), before=began_at)
        _check_records(registry, promised, found)
        _patiently(registry.sync)
        _check_graph(registry, f"after restoring {backup.name}", found)


def _patiently(work: Callable[[], Any]) -> None:
    """Retry until the process that was killed last has released the graph."""
    ends_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            work()
        except (GraphBusy, GraphUnavailable):
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.5)
        else:
            return


def _check_records(registry: Registry, promised: list[Entry], found: Found) -> None:
    held = _Held(registry)
    for entry in promised:
        if not held.holds(entry):
            found.losses.append(f"{entry['record']} {entry['id']} is gone: {entry}")
    addresses = sorted(registry.ledger.artifacts() | registry.ledger.source_files())
    for address in addresses:
        _check_artifact(registry, address, found)
    found.looked_at["artifacts referred to"] = len(addresses)
    found.looked_at["what was acknowledged"] = len(promised)


def _check_artifact(registry: Registry, address: str, found: Found) -> None:
    try:
        registry.artifact(address)
    except CircuitsError as error:
        found.losses.append(f"artifact {address} cannot be read: {error}")


class _Held:
    """Content of the ledger."""

    def __init__(self, registry: Registry) -> None:
        ledger = registry.ledger
        self._registry = registry
        self._circuits = {entry.id: entry for entry in registry.circuits()}
        self._evaluations = {one.id for one in ledger.evaluations()}
        self._edits = {edit.id for edit in ledger.edits()}
        self._sources = ledger.source_files()

    def holds(self, entry: Entry) -> bool:
        """Whether an acknowledged record exists."""
        key = entry["id"]
        match entry["record"]:
            case "circuit":
                return key in self._circuits and self._registry.circuit(key).circuit.id == key
            case "evaluation":
                return key in self._evaluations
            case "artifact":
                return self._registry.has_artifact(key)
            case "tag":
                return entry["text"] in self._circuits[key].labels.tags
            case "note":
                return entry["text"] in self._circuits[key].labels.notes
            case "retraction":
                return self._circuits[key].labels.state is CircuitState.RETRACTED
            case "edit":
                outcomes = {one.id for one in self._registry.outcomes(key)}
                return key in self._edits and entry["outcome"] in outcomes
            case "import":
                return key in self._sources and self._registry.has_artifact(key)
            case other:
                raise ValueError(f"nobody acknowledges a {other}")


def _check_graph(registry: Registry, when: str, found: Found) -> None:
    """Check that the graph has exactly the circuits that are not retracted, each complete."""
    rows = registry.cypher(
        LOOK_AT_ALL, timeout_seconds=_QUERY_SECONDS, max_rows=_MAX_ROWS
    ).to_dicts()
    in_graph = {row["id"]: row for row in rows}
    live = {
        entry.id: (entry.n_nodes, entry.n_edges)
        for entry in registry.circuits()
        if entry.labels.state is not CircuitState.RETRACTED
    }
    found.looked_at["circuits in the graph"] = len(live)
    for key in sorted(live.keys() - in_graph.keys()):
        found.faults.append(f"{when}: circuit {key} is not in the graph")
    for key in sorted(in_graph.keys() - live.keys()):
        found.faults.append(f"{when}: circuit {key} is in the graph and should not be")
    for key in sorted(live.keys() & in_graph.keys()):
        row = in_graph[key]
        if not is_whole(row) or (row["n_nodes"], row["n_edges"]) != live[key]:
            found.faults.append(f"{when}: a circuit is not whole: {row}, in the ledger {live[key]}")
    (evaluations,) = registry.cypher("MATCH (e:Evaluation) RETURN count(e) AS n").values[0]
    kept = sum(one.circuit in live for one in registry.ledger.evaluations())
    if evaluations != kept:
        found.faults.append(f"{when}: {evaluations} evaluations in the graph, {kept} recorded")


def _contents(registry: Registry) -> Counter[str]:
    """All nodes and relationships with their properties, except the graph's marker."""

    def rows(text: str) -> Iterator[dict[str, Any]]:
        answer = registry.cypher(text, timeout_seconds=_QUERY_SECONDS, max_rows=_MAX_ROWS)
        yield from answer.to_dicts()

    nodes = (
        repr((sorted(n["labels"]), n["id"], _own(n["properties"], n["labels"])))
        for n in rows(NODES)
    )
    links = (
        repr((k["source"], k["kind"], k["target"], _own(k["properties"]))) for k in rows(LINKS)
    )
    return Counter([*nodes, *links])


def _own(properties: dict[str, Any], labels: Iterable[str] = ()) -> list[tuple[str, Any]]:
    made_up = _MADE_UP if "Circuit" in labels else _MADE_UP | {"title"}
    return sorted((key, value) for key, value in properties.items() if key not in made_up)


def _compare(synced: Counter[str], rebuilt: Counter[str], found: Found) -> None:
    found.looked_at["nodes and relationships"] = rebuilt.total()
    for what, difference in (("more", synced - rebuilt), ("less", rebuilt - synced)):
        if difference:
            first = min(difference)
            found.faults.append(
                f"sync gives {difference.total()} nodes and relationships {what} than rebuild,"
                f" such as {first}"
            )


def _check_files(artifacts: Path, found: Found) -> None:
    n_files = 0
    for path in artifacts.rglob("*"):
        match = _STORED.fullmatch(path.as_posix())
        if match:
            n_files += 1
            if hashlib.sha256(path.read_bytes()).hexdigest() != match[1] + match[2]:
                found.faults.append(f"the file {match[1]}/{match[2]} has another hash")
    found.looked_at["files of artifacts"] = n_files


def main() -> None:
    """Run the checks of the command line."""
    folder, *backup = sys.argv[1:]
    found = Found()
    if backup:
        check_backup(Path(folder), Path(backup[0]), float(backup[1]), found)
    else:
        check_round(Path(folder), found)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
