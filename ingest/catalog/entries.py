"""One published circuit as a file of the catalogue, with its figures and their sources.

A file is YAML. It names parts by their local names. ``roles`` lists the parts whose function is
known, ``parts`` the others. ``role_edges`` connects roles or parts by a rule: every pair whose
layers allow it. ``edges`` lists single edges by receiver. A file omits what its source does not
give.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from registry.errors import BadIdentifier, BadInput, NotFound
from registry.identifiers import Port, parse_local
from registry.records import Ablation, Json, Level, Number, Record, Slug, Task, Text
from registry.texts.problems import first_problem

__all__ = ["ENDS", "Entry", "Figure", "Role", "RoleEdge", "Verified", "catalogue", "find_entry"]

FOLDER = Path(__file__).parent
ENDS = frozenset({"input", "logits"})
"""The first and last point of the residual stream; part of a circuit if an edge names them."""

ArxivId = Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{4,5}$")]


class Role(Record):
    """Parts with one function at one position.

    Attributes:
        parts: Local names.
        position: Token position at which they act (``END``), if the source gives it.
    """

    parts: tuple[str, ...] = Field(min_length=1)
    position: str | None = None


class RoleEdge(Record):
    """A rule that connects every source with every target that comes after it.

    Attributes:
        sources: Roles or local names; ``from`` in the file.
        targets: Roles or local names; ``to`` in the file.
        ports: Inputs of the receiving heads; none if the source merges them.
    """

    sources: tuple[str, ...] = Field(alias="from", min_length=1)
    targets: tuple[str, ...] = Field(alias="to", min_length=1)
    ports: tuple[Port, ...] = ()


class Figure(Record):
    """A published number.

    Attributes:
        measure: Short name under which it is stored.
        definition: What was measured, in words or as a formula.
        unit: Its unit, unless it is a plain number or share.
        prompts: Number of prompts averaged over.
        task: Slug of its task, if this is not the circuit's task.
        component: Part it is about, if not the whole circuit.
        removed: Parts that were removed before measuring.
        verified: Where it was read.
    """

    measure: Text
    value: Number
    definition: Text
    verified: Text
    unit: str | None = None
    prompts: int | None = Field(None, ge=1)
    task: Slug | None = None
    component: str | None = None
    removed: tuple[str, ...] = ()
    ablation: Ablation | None = None


class Verified(Record):
    """A fact that was read in a primary source, and the place."""

    what: Text
    where: Text


class Entry(Record):
    """A published circuit.

    Attributes:
        name: Name in the catalogue and of the file.
        variant_of: Entry of which this is another version.
        citation: Authors and year.
        arxiv: arXiv numbers of the papers.
        roles: Parts by their role.
        parts: Parts without a role.
        edges: Senders by receiver, with its port if it is a head: ``a9.h6<k>``.
        selection: Rule by which the parts were chosen, if there is one.
        notes: What a user of the circuit should know.
    """

    name: Slug
    title: Text
    variant_of: Slug | None = None
    model: str
    task: Task
    level: Literal[Level.NODE, Level.EDGE]
    metric: str | None = None
    higher_is_better: bool | None = None
    ablation: Ablation | None = None
    citation: Text
    arxiv: tuple[ArxivId, ...] = ()
    roles: Mapping[str, Role] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()
    role_edges: tuple[RoleEdge, ...] = ()
    edges: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    selection: Json | None = None
    figures: tuple[Figure, ...] = ()
    verified: tuple[Verified, ...] = Field(min_length=1)
    notes: tuple[Text, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """Local names of all parts, those with a role first."""
        return (*(part for role in self.roles.values() for part in role.parts), *self.parts)

    @property
    def reference(self) -> str:
        """The citation with the papers' numbers, in one line."""
        numbers = ", ".join(f"arXiv {number}" for number in self.arxiv)
        return f"{self.citation} ({numbers})" if numbers else self.citation

    @field_validator("roles")
    @classmethod
    def _roles_are_no_parts(cls, roles: Mapping[str, Role]) -> Mapping[str, Role]:
        for name in roles:
            if name in ENDS:
                raise BadIdentifier(name, "a role; input and logits are parts")
        return roles

    @model_validator(mode="after")
    def _parts_appear_once(self) -> Entry:
        members = self.members
        for part in members:
            parse_local(part)
            if members.count(part) > 1 or part in ENDS:
                raise BadIdentifier(part, "a part that is listed once; input and logits never are")
        return self

    @model_validator(mode="after")
    def _edges_join_what_is_listed(self) -> Entry:
        known = {*self.members, *self.roles, *ENDS}
        ends = [end for rule in self.role_edges for end in (*rule.sources, *rule.targets)]
        ends += [end for senders in self.edges.values() for end in senders]
        ends += [receiver.partition("<")[0] for receiver in self.edges]
        for end in ends:
            if end not in known:
                raise BadIdentifier(end, f"a role or part of {self.name}")
        if bool(ends) is not (self.level is Level.EDGE):
            raise BadInput(f"{self.name} has the level {self.level}, which does not fit its edges")
        return self


@cache
def catalogue() -> Mapping[str, Entry]:
    """All entries by name.

    Raises:
        BadInput: A file is malformed; it is named.
    """
    paths = {path.stem: path for path in FOLDER.glob("*.yaml")}
    return {name: read_entry(paths[name]) for name in sorted(paths)}


def find_entry(name: str) -> Entry:
    """Return the entry with this name.

    Raises:
        NotFound: No entry has this name; the text gives the nearest names, or all.
    """
    entries = catalogue()
    if name in entries:
        return entries[name]
    nearest = get_close_matches(name.casefold(), entries, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}" if nearest else f"the entries are {', '.join(entries)}"
    raise NotFound("published circuit", name, hint)


def read_entry(path: Path) -> Entry:
    """Read one file.

    Raises:
        BadInput: It is malformed, or its name differs from the entry's name.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        entry = Entry.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{path.name} cannot be read: {error}") from error
    except (ValidationError, BadInput) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise BadInput(f"{path.name} is not an entry of the catalogue: {why}") from error
    if entry.name != path.stem:
        raise BadInput(f"{path.name} names its circuit {entry.name!r}; both names must agree")
    return entry
