"""``circuits doctor``: check every part of an installation and a registry, and suggest remedies."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import Format, FormatOption, show_rows
from registry.cli.session import session
from registry.errors import CircuitsError
from registry.plugins import find
from registry.rows import Rows
from registry.texts.nouns import counted

if TYPE_CHECKING:
    from registry.registry import Registry, Status
    from registry.settings.local import LocalSettings, Settings
    from registry.upkeep.damage import Damage

__all__ = ["Check", "State", "commands", "examine"]

_EXTRAS = {
    "discover": ("torch", "transformers", "transformer_lens"),
    "postgres": ("psycopg",),
    "plots": ("matplotlib",),
    "parquet": ("pyarrow",),
}
_SAMPLE = 50
_NAMED, _DIGITS = 3, 12
_LOW_BYTES, _TOO_LOW_BYTES = 2_000_000_000, 200_000_000


class State(StrEnum):
    """The state of a part."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """The finding about one part, and the advice if there is a problem."""

    part: str
    state: State
    finding: str
    advice: str = ""


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    thorough: Annotated[
        bool, typer.Option("--thorough", help=f"Verify every artifact, not only {_SAMPLE}.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Check a model instead: load it and report whether its circuits can be found.",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Check every part and suggest remedies.

    The only change it makes is to record dead runs as interrupted. The exit code is 1 if any check
    fails.

    \b
    circuits doctor
    circuits doctor --thorough --format json
    circuits doctor --model EleutherAI/pythia-70m
    """
    if model is not None:
        checks = list(find("circuits.checks", "model")(model))
    else:
        checks = list(examine(session(context).local_settings, thorough=thorough))
    rows = tuple((check.part, check.state, check.finding, check.advice) for check in checks)
    show_rows(Rows(("part", "state", "finding", "advice"), rows), format)
    if any(check.state is State.FAIL for check in checks):
        raise typer.Exit(1)


def examine(settings: Callable[[], LocalSettings], *, thorough: bool = False) -> Iterator[Check]:
    """Check the installation, then all parts of the registry that can be reached.

    Args:
        settings: Returns the registry's settings, or raises the reason why there are none.
        thorough: Verify every artifact rather than a sample.
    """
    from registry.registry import Registry

    yield _python()
    yield from (_extra(name, modules) for name, modules in _EXTRAS.items())
    yield _queries()
    yield from _plugins()
    try:
        local = settings()
    except CircuitsError as error:
        yield Check("settings", State.FAIL, str(error))
        return
    found, refused = local.settings, local.refused_stores
    yield Check("settings", State.OK, f"home {found.home}")
    yield _trust(local)
    yield _permissions(found.home)
    yield _disk(found.home)
    if "ledger" in refused:
        return
    schema = _schema(found)
    yield schema
    if schema.state is State.FAIL:
        return
    try:
        with Registry.open(settings=found) as registry:
            yield _pages(registry)
            yield _runs(registry)
            if "artifacts" not in refused:
                yield from _artifacts(registry, thorough=thorough)
            if "graph" not in refused:
                yield from _graph(registry)
    except CircuitsError as error:
        yield Check("registry", State.FAIL, str(error))


# -- the installation ------------------------------------------------------------------------------


def _python() -> Check:
    where = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if os.name == "posix":
        return Check("python", State.OK, where)
    return Check("python", State.WARN, where, "Linux and macOS are supported")


def _extra(name: str, modules: tuple[str, ...]) -> Check:
    absent = [module for module in modules if find_spec(module) is None]
    if not absent:
        return Check(f"extra {name}", State.OK, "installed")
    # Extras are optional: a feature that needs a missing extra reports it.
    advice = f"if you need it: pip install 'circuit-registry[{name}]'"
    return Check(f"extra {name}", State.OK, f"not installed ({', '.join(absent)})", advice)


def _queries() -> Check:
    from registry.catalogue import load_catalogue

    try:
        return Check("queries", State.OK, f"{len(load_catalogue())} named queries")
    except CircuitsError as error:
        return Check("queries", State.FAIL, str(error), "repair or uninstall that package")


def _plugins() -> Iterator[Check]:
    from registry.plugin_checks import check_plugins

    n_others, faults = check_plugins()
    for fault in faults:
        yield Check("plug-ins", State.WARN, str(fault), "it is skipped until then")
    if not faults:
        yield Check("plug-ins", State.OK, f"{n_others} of other packages")


# -- the registry ----------------------------------------------------------------------------------


def _trust(local: LocalSettings) -> Check:
    if local.refused:
        advice = f"circuits trust {shlex.quote(str(local.settings.home))}"
        return Check("trust", State.FAIL, local.refusal(), advice)
    return Check("trust", State.OK, "leads only to places that you named or accepted")


def _permissions(home: Path) -> Check:
    if os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Check("permissions", State.OK, f"{home} is readable and writable")
    if os.access(home, os.R_OK | os.X_OK):
        advice = "to record, make the folder or its mount writable"
        return Check("permissions", State.WARN, f"{home} is read-only", advice)
    advice = f"make it yours: chown -R {_user()} {home}"
    return Check("permissions", State.FAIL, f"{home} is not writable for {_user()}", advice)


def _user() -> str:
    import getpass

    return getpass.getuser()


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(home).free
    finding = f"{free / 1e9:.1f} GB free at {home}"
    if free >= _LOW_BYTES:
        return Check("disk", State.OK, finding)
    state = State.FAIL if free < _TOO_LOW_BYTES else State.WARN
    return Check("disk", state, finding, "free some space; 'circuits gc' lists unused artifacts")


def _schema(settings: Settings) -> Check:
    from registry.registry import Registry

    where = settings.describe()["ledger"]
    try:
        pending = Registry.migrate(settings, check_only=True)
    except CircuitsError as error:
        return Check("ledger", State.FAIL, str(error), "see --ledger and CIRCUITS_LEDGER")
    if pending:
        finding = f"{len(pending)} revisions are pending in {where}"
        return Check("ledger", State.FAIL, finding, "circuits migrate")
    return Check("ledger", State.OK, f"{where} is up to date")


def _pages(registry: Registry) -> Check:
    try:
        registry.ledger.require_sound()
    except CircuitsError as error:
        return Check("ledger pages", State.FAIL, str(error), "restore a backup into a new folder")
    return Check("ledger pages", State.OK, "sound")


def _runs(registry: Registry) -> Check:
    """Whether the runs recorded as running are alive; dead runs are recorded as interrupted."""
    from registry.lives import LONGEST_SILENCE, Standing, standing

    try:
        ended = registry.interrupt_dead_runs()
        lives = registry.ledger.lives()
    except CircuitsError as error:
        return Check("runs", State.FAIL, str(error), "see --ledger and CIRCUITS_LEDGER")
    silent = [run for run, life in lives.items() if standing(life) is Standing.SILENT]
    finding = f"{len(lives)} running"
    if ended:
        named = ", ".join(run[:_DIGITS] for run in ended[:_NAMED])
        finding += f"; {len(ended)} had died and are interrupted now: {named}"
    if silent:
        hours = LONGEST_SILENCE.total_seconds() / 3600
        named = ", ".join(run[:_DIGITS] for run in silent[:_NAMED])
        finding += f"; {len(silent)} silent for more than {hours:.0f} hours: {named}"
        return Check("runs", State.WARN, finding, "check again later; they are interrupted then")
    return Check("runs", State.OK, finding)


def _artifacts(registry: Registry, *, thorough: bool) -> Iterator[Check]:
    """The artifacts that records need, and those originals that are stored; then the others."""
    try:
        found = registry.damage(sample=None if thorough else _SAMPLE, not_stored=True)
        known = registry.ledger.artifacts() | registry.ledger.source_files()
    except CircuitsError as error:
        advice = "see --artifacts and CIRCUITS_ARTIFACTS"
        yield Check("artifacts", State.FAIL, str(error), advice)
        return
    bad = [damage for damage in found if damage.is_certain]
    not_stored = [damage for damage in found if not damage.is_certain]
    n_known = len(known) - len(not_stored)
    if bad:
        are = "artifact is" if n_known == 1 else f"artifacts {'is' if len(bad) == 1 else 'are'}"
        finding = f"{len(bad)} of {n_known} {are} bad: {_first(bad)}"
        yield Check("artifacts", State.FAIL, finding, _MEND)
    else:
        n_read = n_known if thorough else min(_SAMPLE, n_known)
        yield Check("artifacts", State.OK, f"verified {n_read} of {n_known}, none is missing")
    if not_stored:
        # The ledger does not know whether it had them: a bundle may come without originals.
        are = "is" if len(not_stored) == 1 else "are"
        finding = f"{counted(len(not_stored), 'original')} {are} not stored: {_first(not_stored)}"
        yield Check("originals", State.WARN, finding, _MEND)


def _first(found: Sequence[Damage]) -> str:
    more = f" (and {len(found) - _NAMED} more)" if len(found) > _NAMED else ""
    return "; ".join(str(damage) for damage in found[:_NAMED]) + more


_MEND = "circuits mend BACKUP.zip, a bundle, or the original files"
_SYNC = "circuits sync"
_REBUILD = "circuits rebuild"


def _graph(registry: Registry) -> Iterator[Check]:
    status = registry.status()
    if status.pending:
        advice = _SYNC if status.sync_helps else "recording continues; repair the graph first"
        yield Check("pending", State.WARN, f"{status.pending} changes are not in the graph", advice)
    else:
        yield Check("pending", State.OK, "nothing is pending")
    for one in status.put_aside[:_NAMED]:
        yield Check("put aside", State.WARN, str(one), f"repair the cause, then {_SYNC}")
    if not status.graph.startswith("ready"):
        then = f"then {_SYNC}" if status.sync_helps else "follow the finding"
        yield Check("graph", State.FAIL, status.graph, f"recording continues; {then}")
        return
    yield _circuits_in_graph(registry, status)
    if not registry.settings.graph_is_embedded:
        yield _graph_limits(registry)


def _circuits_in_graph(registry: Registry, status: Status) -> Check:
    rows = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id ORDER BY id").expecting(id="string")
    in_graph = {row["id"] for row in rows}
    # Superseded circuits stay in the graph; retracted circuits are removed from it.
    kept = {entry.id for entry in registry.circuits() if entry.labels.state != "retracted"}
    kept -= {one.change.key for one in status.put_aside}
    if in_graph == kept:
        return Check("graph", State.OK, f"{status.graph}; holds all {len(kept)} circuits")
    finding = f"{len(kept - in_graph)} circuits are missing, {len(in_graph - kept)} too many"
    if status.pending:
        return Check("graph", State.WARN, finding, _SYNC)
    return Check("graph", State.FAIL, finding, _REBUILD)


_OF_ALL, _OF_ONE = "dbms.memory.transaction.total.max", "db.memory.transaction.max"
_JAVA, _ENDS_WITHOUT_MEMORY = "server.jvm.additional", "-XX:+ExitOnOutOfMemoryError"


def _graph_limits(registry: Registry) -> Check:
    """Whether one statement can use all of the server's memory, and the consequence if it does."""
    part, advice = "graph limits", "see 'Limits' in docs/production.md"
    try:
        limits = registry.graph_limits()
    except CircuitsError as error:
        return Check(part, State.WARN, str(error), advice)
    if not limits:
        return Check(part, State.WARN, "the server does not show its memory limits", advice)
    open_ended = [name for name in (_OF_ALL, _OF_ONE) if limits.get(name, "0")[:1] in ("0", "")]
    if open_ended:
        return Check(part, State.WARN, f"no limit is set by {' and '.join(open_ended)}", advice)
    if _ENDS_WITHOUT_MEMORY not in limits.get(_JAVA, ""):
        finding = f"the server runs on when out of memory: {_JAVA} lacks {_ENDS_WITHOUT_MEMORY}"
        return Check(part, State.WARN, finding, advice)
    finding = f"{limits[_OF_ONE]} of memory for a statement, {limits[_OF_ALL]} for all"
    return Check(part, State.OK, finding)
