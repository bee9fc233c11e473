"""Names as users type them, turned into the names that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from registry.aliases import resolve_component, resolve_model
from registry.errors import NotFound
from registry.identifiers import parse_component, parse_connection
from registry.ledger.base import Ledger

__all__ = ["known_model", "known_task", "resolvers"]


def known_model(ledger: Ledger, name: str) -> str:
    """Return the slug of a recorded model, given it or an alias.

    Raises:
        NotFound: No model goes by that name; the hint names the nearest.
    """
    return _known("model", resolve_model(name), [model.slug for model in ledger.models()])


def known_task(ledger: Ledger, name: str, *, or_family: bool = False) -> str:
    """Return the slug of a recorded task, or with ``or_family`` the first part of several.

    Raises:
        NotFound: No task goes by that name; the hint names the nearest.
    """
    slugs = [task.slug for task in ledger.tasks()]
    families = {slug.rpartition("/")[0] for slug in slugs} - {""} if or_family else set()
    return _known("task", name, [*slugs, *families])


def resolvers(ledger: Ledger) -> dict[str, Callable[[str], str]]:
    """How a query's parameters of each type become what the graph stores."""
    return {
        "model": lambda name: known_model(ledger, name),
        "task": lambda name: known_task(ledger, name),
        "circuit": ledger.circuit_id,
        "edit": lambda prefix: ledger.edit(prefix).id,
        "component": lambda text: str(parse_component(resolve_component(text))),
        "connection": lambda text: str(parse_connection(resolve_component(text))),
    }


def _known(kind: str, name: str, names: Iterable[str]) -> str:
    known = sorted(set(names))
    if name in known:
        return name
    nearest = get_close_matches(name, known, n=3, cutoff=0.4)
    listed = ", ".join(nearest or known[:5])
    hint = f"{'nearest' if nearest else 'recorded are'}: {listed}"
    raise NotFound(kind, name, hint if listed else "nothing is recorded yet")
