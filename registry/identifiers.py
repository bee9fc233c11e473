"""Names of a model's parts: parse, format and order them.

The grammar is one string per part, shared by files, tables, the graph and options::

    component  = MODEL "/" LOCAL               gpt2/a9.h6
    connection = MODEL "/" LOCAL "->" LOCAL    gpt2/a9.h6->a10.h7<k>

A local name is a :class:`Local`: a kind with its indices. ``str()`` formats, :func:`parse_local`,
:func:`parse_component` and :func:`parse_connection` read. Two different parts never share a name,
and a name that parses formats back to itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from registry.errors import BadIdentifier

__all__ = [
    "PORTS",
    "Component",
    "Connection",
    "Kind",
    "Local",
    "Port",
    "can_feed",
    "node_key",
    "parse_component",
    "parse_connection",
    "parse_local",
    "parse_model",
    "parse_node_key",
    "ports_of",
    "sort_key",
    "split_connection",
    "to_component_level",
]

Port = Literal["q", "k", "v"]
PORTS: tuple[Port, ...] = ("q", "k", "v")


class Kind(StrEnum):
    """What sort of part a name denotes; the graph's ``Component.kind``."""

    INPUT = "input"
    EMBED = "embed"
    POS_EMBED = "pos_embed"
    HEAD = "head"
    KV_HEAD = "kv_head"
    MLP = "mlp"
    NEURON = "neuron"
    SUBSPACE = "subspace"
    FEATURE = "feature"
    ERROR = "error"
    LOGITS = "logits"
    LOGIT = "logit"


_NUMBER = r"(?:0|[1-9]\d{0,8})"
_WORD = r"[A-Za-z0-9][A-Za-z0-9_.\-]*"
_MODEL = re.compile(r"[a-z0-9][a-z0-9._\-]*(?:@[A-Za-z0-9][A-Za-z0-9._\-]*)?", re.ASCII)
_SITE = (
    rf"m{_NUMBER}(?:\.hidden)?"
    rf"|a{_NUMBER}\.h{_NUMBER}\.[qkvz]"
    rf"|a{_NUMBER}\.kv{_NUMBER}\.[kv]"
    rf"|l{_NUMBER}\.(?:resid_mid|resid_post|attn_out|mlp_out)"
    r"|l0\.resid_pre"
)
_LOCAL_FORMS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        (Kind.INPUT, r"input"),
        (Kind.EMBED, r"embed"),
        (Kind.POS_EMBED, r"pos_embed"),
        (Kind.LOGITS, r"logits"),
        (Kind.LOGIT, rf"logits\[(?P<index>{_NUMBER})\]"),
        (Kind.MLP, rf"m(?P<layer>{_NUMBER})"),
        (Kind.NEURON, rf"m(?P<layer>{_NUMBER})\.n(?P<index>{_NUMBER})"),
        (Kind.HEAD, rf"a(?P<layer>{_NUMBER})\.h(?P<head>{_NUMBER})"),
        (Kind.KV_HEAD, rf"a(?P<layer>{_NUMBER})\.kv(?P<head>{_NUMBER})"),
        (Kind.SUBSPACE, rf"(?P<site>{_SITE})#(?P<basis>{_WORD})\[(?P<index>{_NUMBER})\]"),
        (Kind.FEATURE, rf"(?P<site>{_SITE})\.f(?P<index>{_NUMBER})#(?P<basis>{_WORD})"),
        (Kind.ERROR, rf"(?P<site>{_SITE})\.error#(?P<basis>{_WORD})"),
    )
)
_SITE_LAYER = re.compile(rf"[aml](?P<layer>{_NUMBER})(?:\.(?:h|kv)(?P<head>{_NUMBER}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Local:
    """A part of a model, without the model's name.

    Attributes:
        kind: What sort of part.
        layer: Block it lies in; None for ``input``, ``embed``, ``pos_embed``, ``logits``.
        head: Query head of a head, key/value head of a group, or the head a site belongs to.
        index: Neuron, feature, subspace or vocabulary entry.
        site: Where a basis or dictionary reads, as written (``l8.resid_post``).
        basis: Name of that basis or dictionary.
    """

    kind: Kind
    layer: int | None = None
    head: int | None = None
    index: int | None = None
    site: str | None = None
    basis: str | None = None

    def __str__(self) -> str:
        match self.kind:
            case Kind.LOGIT:
                return f"logits[{self.index}]"
            case Kind.MLP:
                return f"m{self.layer}"
            case Kind.NEURON:
                return f"m{self.layer}.n{self.index}"
            case Kind.HEAD:
                return f"a{self.layer}.h{self.head}"
            case Kind.KV_HEAD:
                return f"a{self.layer}.kv{self.head}"
            case Kind.SUBSPACE:
                return f"{self.site}#{self.basis}[{self.index}]"
            case Kind.FEATURE:
                return f"{self.site}.f{self.index}#{self.basis}"
            case Kind.ERROR:
                return f"{self.site}.error#{self.basis}"
            case _:
                return str(self.kind)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a named model: ``gpt2/a9.h6``."""

    model: str
    local: Local

    def __str__(self) -> str:
        return f"{self.model}/{self.local}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A place where one part can feed another: ``gpt2/a9.h6->a10.h7<k>``.

    ``port`` says which input of an attention head is meant; without one, a source has merged the
    head's inputs (``gpt2/a9.h6->a10.h7``: at least one of them). Other receivers have one input.
    """

    model: str
    source: Local
    target: Local
    port: Port | None = None

    def __str__(self) -> str:
        port = f"<{self.port}>" if self.port else ""
        return f"{self.model}/{self.source}->{self.target}{port}"


def parse_model(text: str) -> str:
    """Return ``text`` if it is a model's slug, ``slug`` or ``slug@revision``.

    Raises:
        BadIdentifier: It holds capitals before the ``@``, spaces, slashes or other characters.
    """
    if not _MODEL.fullmatch(text):
        raise BadIdentifier(text, "a model's name: lower-case letters, digits, '.', '_', '-'")
    return text


@lru_cache(maxsize=65_536)  # circuits name the same few thousand parts again and again
def parse_local(text: str) -> Local:
    """Read a part's name within its model.

    Raises:
        BadIdentifier: The grammar has no such name. ``l9.resid_pre`` is written ``l8.resid_post``.
    """
    for kind, pattern in _LOCAL_FORMS:
        found = pattern.fullmatch(text)
        if found:
            return _build(kind, found.groupdict())
    raise BadIdentifier(
        text, "a component such as input, a9.h6, a4.kv2, m3, m3.n17 or l8.resid_post#basis[2]"
    )


def parse_component(text: str) -> Component:
    """Read ``MODEL/LOCAL``.

    Raises:
        BadIdentifier: The model or the local part does not follow the grammar.
    """
    model, slash, local = text.partition("/")
    if not slash:
        raise BadIdentifier(text, "a component with its model, such as gpt2/a9.h6")
    return Component(parse_model(model), parse_local(local))


@lru_cache(maxsize=65_536)
def parse_connection(text: str) -> Connection:
    """Read ``MODEL/LOCAL->LOCAL``, with ``<q>``, ``<k>`` or ``<v>`` where a head's input is told.

    Raises:
        BadIdentifier: A part is malformed, or a port is given that the target does not have.
    """
    source_text, arrow, target_text = text.partition("->")
    if not arrow:
        raise BadIdentifier(text, "a connection such as gpt2/a9.h6->a10.h7<k>")
    source = parse_component(source_text)
    bare, port = _split_port(target_text)
    target = parse_local(bare)
    if port is not None and port not in ports_of(target):
        raise BadIdentifier(text, _port_hint(target))
    return Connection(source.model, source.local, target, port)


def split_connection(id: str) -> tuple[str, str, str, Port | None]:
    """Model, source, target and port of a connection's name that is known to be one."""
    model, _, rest = id.partition("/")
    source, _, target = rest.partition("->")
    return model, source, *_split_port(target)


def node_key(local: str | Local, position: str | None = None) -> str:
    """Name a node within a circuit: its component, and ``@position`` where it has one."""
    return f"{local}@{position}" if position is not None else str(local)


@lru_cache(maxsize=65_536)  # and the same nodes, once for each of their edges
def parse_node_key(key: str) -> tuple[Local, str | None]:
    """Undo :func:`node_key`.

    Raises:
        BadIdentifier: The part before ``@`` is no component.
    """
    local, at, position = key.partition("@")
    return parse_local(local), position if at else None


def can_feed(
    source: Local, target: Local, port: str | None = None, *, parallel_attn_mlp: bool = False
) -> bool:
    """Tell whether ``source`` writes to the residual stream before ``target`` reads it there.

    Blocks run in order, attention before the MLP; with ``parallel_attn_mlp`` (GPT-NeoX, GPT-J)
    both read the block's input, so neither feeds the other within a block. Structural links
    (``a4.kv2`` to its query heads) are not connections and give False.

    Args:
        source: The part that writes.
        target: The part that reads.
        port: Input of an attention head that is meant, None for any; keys and values of a query
            head in a grouped model are read at the key/value head, which is the caller's business.
        parallel_attn_mlp: Attention and MLP of a block read the same input.
    """
    if port is not None and port not in ports_of(target):
        return False
    if target.kind in _NEVER_READ:
        return False
    if source.kind in {Kind.LOGITS, Kind.LOGIT, Kind.KV_HEAD}:
        return False
    return _written_at(source) < _read_at(target, parallel_attn_mlp=parallel_attn_mlp)


def ports_of(local: Local) -> tuple[Port, ...]:
    """Inputs of a part that have names: those of heads; other parts have one input, without."""
    if local.kind is Kind.HEAD:
        return PORTS
    return ("k", "v") if local.kind is Kind.KV_HEAD else ()


@lru_cache(maxsize=65_536)
def sort_key(local: Local) -> tuple[int, int, str, int, int, str]:
    """Key that orders parts as the forward pass runs them, then by head or index."""
    absent = -1
    return (
        _written_at(local),
        _KIND_ORDER[local.kind],
        local.site or "",
        absent if local.head is None else local.head,
        absent if local.index is None else local.index,
        local.basis or "",
    )


def to_component_level(local: Local) -> Local:
    """Fold the token and position embeddings onto ``input``; other parts stay what they are."""
    return Local(Kind.INPUT) if local.kind in {Kind.EMBED, Kind.POS_EMBED} else local


_KIND_ORDER = {kind: place for place, kind in enumerate(Kind)}
_NEVER_READ = frozenset({Kind.INPUT, Kind.EMBED, Kind.POS_EMBED})
# Moments of one block, in the order of a sequential block. Sublayers stand at even ones; the
# residual stream itself is read and written at one odd moment between them.
_STEPS = 8
_READS_ATTENTION, _WRITES_ATTENTION, _READS_MLP, _WRITES_MLP = range(0, _STEPS, 2)
_RESIDUAL_STEPS = {
    "resid_pre": _READS_ATTENTION - 1,
    "resid_mid": _WRITES_ATTENTION + 1,
    "resid_post": _WRITES_MLP + 1,
}
_AT_LOGITS = 2**40
_BEFORE_BLOCKS = -2


def _build(kind: Kind, groups: dict[str, str | None]) -> Local:
    site, basis = groups.get("site"), groups.get("basis")
    if site is not None:
        place = _SITE_LAYER.match(site)
        groups = {**(place.groupdict() if place else {}), "index": groups.get("index")}
    layer, head, index = (_number(groups.get(name)) for name in ("layer", "head", "index"))
    return Local(kind, layer, head, index, site, basis)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _split_port(text: str) -> tuple[str, Port | None]:
    for port in PORTS:
        if text.endswith(f"<{port}>"):
            return text[: -len(port) - 2], port
    return text, None


def _port_hint(target: Local) -> str:
    ports = ports_of(target)
    if not ports:
        return f"a connection: {target} has one input and takes no port"
    named = ", ".join(f"<{port}>" for port in ports)
    return f"a connection: {target} needs one of {named}, or none where they were merged"


def _written_at(local: Local) -> int:
    if local.kind in {Kind.LOGITS, Kind.LOGIT}:
        return _AT_LOGITS
    if local.layer is None:
        return _BEFORE_BLOCKS
    return _STEPS * local.layer + _step(local, _WRITES_ATTENTION, _WRITES_MLP)


def _read_at(local: Local, *, parallel_attn_mlp: bool) -> int:
    if local.layer is None:
        return _AT_LOGITS
    reads_mlp = _READS_ATTENTION if parallel_attn_mlp else _READS_MLP
    return _STEPS * local.layer + _step(local, _READS_ATTENTION, reads_mlp)


def _step(local: Local, in_attention: int, in_mlp: int) -> int:
    """Place a part in its block; ``attn_out`` and ``mlp_out`` stand where their sublayer does."""
    place = local.site or str(local)
    residual = _RESIDUAL_STEPS.get(place.rpartition(".")[2])
    if residual is not None:
        return residual
    return in_attention if place.startswith("a") or place.endswith("attn_out") else in_mlp
