"""Turn names that users type into stored names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry.errors import NotFound
from registry.identifiers import parse_component, parse_connection
from registry.ledger.base import Ledger
from registry.models.aliases import MODEL_ALIASES, resolve_component, resolve_model
from registry.texts.words import nearest_names

__all__ = ["known_model", "known_task", "names_of_model", "resolvers"]


def known_model(ledger: Ledger, name: str) -> str:
    """Return the slug of a recorded model, given the slug or an alias.

    Raises:
        NotFound: No model has that name; the hint gives similar names.
    """
    return _known("model", resolve_model(name), [model.slug for model in ledger.models()])


def names_of_model(ledger: Ledger, name: str) -> frozenset[str]:
    """All names of a model in a job's configuration: its slug, aliases, and its source.

    The model need not be recorded yet: the first run of a model may still be computing.
    """
    slug = resolve_model(name)
    aliases = {alias for alias, of in MODEL_ALIASES.items() if of == slug}
    sources = {model.source for model in ledger.models() if model.slug == slug and model.source}
    return frozenset({name, slug, *aliases, *sources})


def known_task(ledger: Ledger, name: str, *, or_family: bool = False) -> str:
    """Return the slug of a recorded task, or with ``or_family`` the first part of several.

    Raises:
        NotFound: No task has that name; the hint gives similar names.
    """
    slugs = [task.slug for task in ledger.tasks()]
    families = {slug.rpartition("/")[0] for slug in slugs} - {""} if or_family else set()
    return _known("task", name, [*slugs, *families])


def resolvers(ledger: Ledger) -> dict[str, Callable[[str], str]]:
    """Functions that turn a query's parameters of each type into stored names."""
    return {
        "model": lambda name: known_model(ledger, name),
        "task": lambda name: known_task(ledger, name),
        "circuit": ledger.circuit_id,
        "edit": lambda prefix: ledger.edit(prefix).id,
        "component": lambda text: str(parse_component(resolve_component(text))),
        "connection": lambda text: str(parse_connection(resolve_component(text))),
    }


def _known(kind: str, name: str, names: Iterable[str]) -> str:
    known = set(names)
    if name in known:
        return name
    raise NotFound(kind, name, nearest_names(name, known))
