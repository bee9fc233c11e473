"""Names of a model's parts: parse, format and order them.

The grammar is one string per part, shared by files, tables, the graph and options::

    component  = MODEL "/" LOCAL               gpt2/a9.h6
    connection = MODEL "/" LOCAL "->" LOCAL    gpt2/a9.h6->a10.h7<k>

A local name is a :class:`Local`: a kind with its indices. ``str()`` formats it, and
:func:`parse_local`, :func:`parse_component` and :func:`parse_connection` read names. Two different
parts never share a name, and a parsed name is formatted back to itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from registry.errors import BadIdentifier

__all__ = [
    "LAST_NORM",
    "NORMS",
    "PORTS",
    "STREAM_NORMS",
    "Component",
    "Connection",
    "Kind",
    "Local",
    "Port",
    "can_feed",
    "never_feeds",
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
NORMS = ("ln1", "q_norm", "k_norm", "ln1_post", "ln2", "ln2_post")
"""Norms of a block by TransformerLens' names, in the order in which a block applies them."""
STREAM_NORMS = tuple(norm for norm in NORMS if norm not in ("q_norm", "k_norm"))
"""The norms of :data:`NORMS` outside attention and MLP; the others are inside attention."""
LAST_NORM = "ln_final"
"""The norm after the last block."""


class Kind(StrEnum):
    """The kind of part that a name denotes; the graph's ``Component.kind``."""

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
    NORM = "norm"
    UNEMBED = "unembed"


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
        (Kind.NORM, rf"l(?P<layer>{_NUMBER})\.(?P<norm>{'|'.join(NORMS)})"),
        (Kind.NORM, rf"(?P<norm>{LAST_NORM})"),
        (Kind.UNEMBED, r"unembed"),
    )
)
_SITE_LAYER = re.compile(rf"[aml](?P<layer>{_NUMBER})(?:\.(?:h|kv)(?P<head>{_NUMBER}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Local:
    """A part of a model, without the model's name.

    Attributes:
        kind: Kind of part.
        layer: Block that it is in; None for ``input``, ``embed``, ``pos_embed``, ``ln_final``,
            ``unembed``, ``logits``.
        head: Query head of a head, key/value head of a group, or the head that a site belongs to.
        index: Neuron, feature, subspace or vocabulary entry.
        site: The site that a basis or dictionary reads, as written (``l8.resid_post``).
        basis: Name of that basis or dictionary.
        norm: The norm: one of :data:`NORMS`, or :data:`LAST_NORM`.
    """

    kind: Kind
    layer: int | None = None
    head: int | None = None
    index: int | None = None
    site: str | None = None
    basis: str | None = None
    norm: str | None = None

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
            case Kind.NORM:
                return f"{self.norm}" if self.layer is None else f"l{self.layer}.{self.norm}"
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
    """A link by which one part can feed another: ``gpt2/a9.h6->a10.h7<k>``.

    ``port`` gives the input of an attention head. Without a port, the source of the circuit has
    merged the head's inputs (``gpt2/a9.h6->a10.h7``: at least one of them). Other receivers have
    one input.
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
        BadIdentifier: It contains capitals before the ``@``, spaces, slashes or other characters.
    """
    if not _MODEL.fullmatch(text):
        raise BadIdentifier(text, "a model's name: lower-case letters, digits, '.', '_', '-'")
    return text


@lru_cache(maxsize=65_536)  # circuits name the same few thousand parts repeatedly
def parse_local(text: str) -> Local:
    """Read a part's name within its model.

    Raises:
        BadIdentifier: The grammar has no such name. ``l9.resid_pre`` is written ``l8.resid_post``.
    """
    for kind, pattern in _LOCAL_FORMS:
        found = pattern.fullmatch(text)
        if found:
            return _build(kind, found.groupdict())
    meant = _meant_by(text)
    raise BadIdentifier(
        text,
        "a component such as input, a9.h6, a4.kv2, m3, m3.n17, l5.ln1 or l8.resid_post#basis[2]"
        + (f"; did you mean {meant!r}?" if meant else ""),
    )


_LIKE_A_HEAD = re.compile(r"(?:head[._ ]?|[al])?(\d{1,4})(?:[._ ]?h|[._])(\d{1,4})", re.IGNORECASE)
_LIKE_AN_MLP = re.compile(r"l\d{1,4}[._ ]?mlp|mlp[._ ]?\d{1,4}", re.IGNORECASE)


def _meant_by(text: str) -> str:
    """Our name of a part in a spelling that others use, such as L9H6; empty if there is none."""
    if head := _LIKE_A_HEAD.fullmatch(text):
        return f"a{int(head[1])}.h{int(head[2])}"
    numbers = re.findall(r"\d+", text) if _LIKE_AN_MLP.fullmatch(text) else []
    return f"m{int(numbers[0])}" if numbers else ""


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
    """Read ``MODEL/LOCAL->LOCAL``, with ``<q>``, ``<k>`` or ``<v>`` if a head's input is given.

    Raises:
        BadIdentifier: A part is malformed, or the target does not have the given port.
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
    """Model, source, target and port of a valid connection name."""
    model, _, rest = id.partition("/")
    source, _, target = rest.partition("->")
    return model, source, *_split_port(target)


def node_key(local: str | Local, position: str | None = None) -> str:
    """Name a node within a circuit: its component, and ``@position`` if it has one."""
    return f"{local}@{position}" if position is not None else str(local)


@lru_cache(maxsize=65_536)  # and the same nodes, once for each of their edges
def parse_node_key(key: str) -> tuple[Local, str | None]:
    """Undo :func:`node_key`.

    Raises:
        BadIdentifier: The part before ``@`` is not a component.
    """
    local, at, position = key.partition("@")
    return parse_local(local), position if at else None


def can_feed(
    source: Local, target: Local, port: str | None = None, *, parallel_attn_mlp: bool = False
) -> bool:
    """Whether ``source`` writes to the residual stream before ``target`` reads it there.

    Blocks run in order, attention before the MLP. With ``parallel_attn_mlp`` (GPT-NeoX, GPT-J)
    both read the block's input, so neither feeds the other within a block. The result is False for
    structural links (``a4.kv2`` to its query heads), which are not connections. It is also False
    for parts that have only parameters: norms and ``unembed`` are on the path between parts, and
    are not an end of it.

    Args:
        source: The part that writes.
        target: The part that reads.
        port: Input of an attention head, None for any. In a grouped model, keys and values of a
            query head are read at the key/value head; the caller must handle this.
        parallel_attn_mlp: Attention and MLP of a block read the same input.
    """
    if port is not None and port not in ports_of(target):
        return False
    if target.kind in _NEVER_READ or source.kind in _ON_THE_WAY:
        return False
    if source.kind in {Kind.LOGITS, Kind.LOGIT, Kind.KV_HEAD}:
        return False
    return _written_at(source) < _read_at(target, parallel_attn_mlp=parallel_attn_mlp)


def never_feeds(source: Local, target: Local) -> bool:
    """Whether no model has such a connection, for any order within its blocks.

    :func:`can_feed` assumes that a block runs attention before the MLP, or both at once. Here a
    block may run in any order, so within one layer only parts that read and write at the same point
    are excluded. Positions make no difference.
    """
    if target.kind in _NEVER_READ or source.kind in _ON_THE_WAY:
        return True
    if source.kind in {Kind.LOGITS, Kind.LOGIT} or source == target:
        return True
    if source.layer is None or target.layer is None:
        return False
    if source.layer != target.layer:
        return source.layer > target.layer
    alike = source.kind is target.kind and source.kind in _WHOLE
    same_site = source.site is not None and source.site == target.site
    last = source.site is not None and source.site.endswith("resid_post")
    return alike or same_site or last or target.site == "l0.resid_pre"


def ports_of(local: Local) -> tuple[Port, ...]:
    """Named inputs of a part: those of heads; other parts have one input without a name."""
    if local.kind is Kind.HEAD:
        return PORTS
    return ("k", "v") if local.kind is Kind.KV_HEAD else ()


@lru_cache(maxsize=65_536)
def sort_key(local: Local) -> tuple[int, int, str, int, int, str]:
    """Key that orders parts as in the forward pass, then by head or index."""
    absent = -1
    return (
        _written_at(local),
        _KIND_ORDER[local.kind],
        local.site or local.norm or "",
        absent if local.head is None else local.head,
        absent if local.index is None else local.index,
        local.basis or "",
    )


def to_component_level(local: Local) -> Local:
    """Fold the token and position embeddings to ``input``; other parts stay as they are."""
    return Local(Kind.INPUT) if local.kind in {Kind.EMBED, Kind.POS_EMBED} else local


_KIND_ORDER = {kind: place for place, kind in enumerate(Kind)}
_WHOLE = frozenset({Kind.HEAD, Kind.KV_HEAD, Kind.MLP, Kind.NEURON})
"""Within one layer and kind, these read the same input and add to it in parallel."""
_ON_THE_WAY = frozenset({Kind.NORM, Kind.UNEMBED})
_NEVER_READ = frozenset({Kind.INPUT, Kind.EMBED, Kind.POS_EMBED}) | _ON_THE_WAY
# Moments of one block, in the order of a sequential block. Sublayers are at even moments; the
# residual stream itself is read and written at an odd moment between them.
_STEPS = 8
_READS_ATTENTION, _WRITES_ATTENTION, _READS_MLP, _WRITES_MLP = range(0, _STEPS, 2)
_RESIDUAL_STEPS = {
    "resid_pre": _READS_ATTENTION - 1,
    "resid_mid": _WRITES_ATTENTION + 1,
    "resid_post": _WRITES_MLP + 1,
}
_NORM_STEPS = {
    "ln1": _READS_ATTENTION,
    "q_norm": _READS_ATTENTION + 1,
    "k_norm": _READS_ATTENTION + 1,
    "ln1_post": _WRITES_ATTENTION,
    "ln2": _READS_MLP,
    "ln2_post": _WRITES_MLP,
}
_AT_LOGITS = 2**40
_AT_UNEMBED = _AT_LOGITS - 1
_AT_LAST_NORM = _AT_LOGITS - 2
_BEFORE_BLOCKS = -2


def _build(kind: Kind, groups: dict[str, str | None]) -> Local:
    site, basis = groups.get("site"), groups.get("basis")
    if site is not None:
        place = _SITE_LAYER.match(site)
        groups = {**(place.groupdict() if place else {}), "index": groups.get("index")}
    layer, head, index = (_number(groups.get(name)) for name in ("layer", "head", "index"))
    return Local(kind, layer, head, index, site, basis, groups.get("norm"))


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
    return f"a connection: {target} needs one of {named}, or none if they were merged"


def _written_at(local: Local) -> int:
    if local.kind in {Kind.LOGITS, Kind.LOGIT}:
        return _AT_LOGITS
    if local.kind is Kind.UNEMBED:
        return _AT_UNEMBED
    if local.layer is None:
        return _AT_LAST_NORM if local.kind is Kind.NORM else _BEFORE_BLOCKS
    return _STEPS * local.layer + _step(local, _WRITES_ATTENTION, _WRITES_MLP)


def _read_at(local: Local, *, parallel_attn_mlp: bool) -> int:
    if local.layer is None:
        return _AT_LOGITS
    reads_mlp = _READS_ATTENTION if parallel_attn_mlp else _READS_MLP
    return _STEPS * local.layer + _step(local, _READS_ATTENTION, reads_mlp)


def _step(local: Local, in_attention: int, in_mlp: int) -> int:
    """Position of a part in its block; ``attn_out`` and ``mlp_out`` are at their sublayers."""
    if local.norm is not None:
        return _NORM_STEPS[local.norm]
    place = local.site or str(local)
    residual = _RESIDUAL_STEPS.get(place.rpartition(".")[2])
    if residual is not None:
        return residual
    return in_attention if place.startswith("a") or place.endswith("attn_out") else in_mlp
