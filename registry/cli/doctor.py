"""``circuits doctor``: check every part of an installation and a registry, and say what to do."""

from __future__ import annotations

import os
import platform
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.output import Format, FormatOption, show_rows
from registry.cli.session import session
from registry.errors import CircuitsError
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.registry import Registry
    from registry.settings import Settings

__all__ = ["Check", "State", "commands", "examine"]

_EXTRAS = {
    "discover": ("torch", "transformers", "transformer_lens"),
    "postgres": ("psycopg",),
    "plots": ("matplotlib",),
    "parquet": ("pyarrow",),
}
_SAMPLE = 50
_LOW_BYTES, _TOO_LOW_BYTES = 2_000_000_000, 200_000_000


class State(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one part, and what to do where it is not well."""

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
        bool, typer.Option("--thorough", help=f"Verify every artifact, not {_SAMPLE} of them.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Check every part and say what to do.

    Changes nothing. The exit code is 1 if anything fails.

    \b
    circuits doctor
    circuits doctor --thorough --format json
    """
    checks = list(examine(session(context).settings, thorough=thorough))
    rows = tuple((check.part, check.state, check.finding, check.advice) for check in checks)
    show_rows(Rows(("part", "state", "finding", "advice"), rows), format)
    if any(check.state is State.FAIL for check in checks):
        raise typer.Exit(1)


def examine(settings: Callable[[], Settings], *, thorough: bool = False) -> Iterator[Check]:
    """Check the installation, then as much of the registry as can be reached.

    Args:
        settings: Gives the registry's settings, or raises why there are none.
        thorough: Verify every artifact rather than a sample.
    """
    from registry.registry import Registry

    yield _python()
    yield from (_extra(name, modules) for name, modules in _EXTRAS.items())
    yield _queries()
    yield from _plugins()
    try:
        found = settings()
    except CircuitsError as error:
        yield Check("settings", State.FAIL, str(error))
        return
    yield Check("settings", State.OK, f"home {found.home}")
    yield _permissions(found.home)
    yield _disk(found.home)
    schema = _schema(found)
    yield schema
    if schema.state is State.FAIL:
        return
    try:
        with Registry.open(settings=found) as registry:
            yield _artifacts(registry, thorough=thorough)
            yield _pending(registry)
            yield _graph(registry)
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
    # An extra is a choice: without it, what needs it says so.
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
        yield Check("plug-ins", State.WARN, str(fault), "until then it is left out")
    if not faults:
        yield Check("plug-ins", State.OK, f"{n_others} of other packages")


# -- the registry ----------------------------------------------------------------------------------


def _permissions(home: Path) -> Check:
    if os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Check("permissions", State.OK, f"{home} is readable and writable")
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


def _artifacts(registry: Registry, *, thorough: bool) -> Check:
    known = sorted(registry.ledger.artifacts())
    chosen = known if thorough else random.Random().sample(known, min(_SAMPLE, len(known)))
    faults = []
    for address in chosen:
        try:
            registry.artifact(address)
        except CircuitsError as error:
            faults.append(str(error))
    if faults:
        finding = f"{len(faults)} of {len(chosen)} artifacts are bad; the first: {faults[0]}"
        return Check("artifacts", State.FAIL, finding, "restore them from a backup")
    return Check("artifacts", State.OK, f"verified {len(chosen)} of {len(known)}")


def _pending(registry: Registry) -> Check:
    if pending := registry.ledger.pending_count():
        return Check("outbox", State.WARN, f"{pending} changes are not in the graph", _SYNC)
    return Check("outbox", State.OK, "nothing is pending")


_SYNC = "circuits sync"
_REBUILD = "circuits rebuild"


def _graph(registry: Registry) -> Check:
    state = registry.status().graph
    if not state.startswith("ready"):
        return Check("graph", State.FAIL, state, f"recording goes on; then {_SYNC}")
    rows = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id ORDER BY id")
    in_graph = {row["id"] for row in rows}
    # Superseded circuits stay in the graph, retracted ones leave it.
    kept = {entry.id for entry in registry.circuits() if entry.labels.state != "retracted"}
    if in_graph == kept:
        return Check("graph", State.OK, f"{state}; holds all {len(kept)} circuits")
    finding = f"{len(kept - in_graph)} circuits are missing, {len(in_graph - kept)} too many"
    if registry.ledger.pending_count():
        return Check("graph", State.WARN, finding, _SYNC)
    return Check("graph", State.FAIL, finding, _REBUILD)
