"""Results of TransformerLens' own attribution, as circuits that can be kept.

The registry knows no TransformerLens: a result is known by what it has. Two kinds are known, those
of ``transformer_lens.tools.analysis`` in its version 4.3:

* :class:`LogitAttribution`, what ``direct_logit_attribution`` returns: what each part adds to an
  answer's logit, or to the difference of two, through the unembedding alone. A positive one helps.
* :class:`PatchAttribution`, what ``attribution_patch`` returns: to first order, what patching a
  part, or an edge, from the corrupt to the clean prompt changes of a metric of the user's own.

Both score every part. A part that was scored at several positions has the sum over them, as when it
is patched at all of them; both quantities add up.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from registry.errors import BadInput
from registry.identifiers import Port
from registry.ranking import nodes_by_size
from registry.records import Ablation, Edge, Level, Sign

__all__ = ["Attributed", "LogitAttribution", "PatchAttribution", "attributed", "is_attribution"]

_HEAD = re.compile(r"L(\d{1,9})H(\d{1,9})")
_MLP = re.compile(r"(\d{1,9})_mlp_out")
_NO_PART = re.compile(r"remainder|bias|\d{1,9}_attn_out")
_INPUT = frozenset({"embed", "pos_embed"})
_TOOL = "transformer_lens"
_LOGITS = "direct_logit_attribution"
_Place = tuple[str, str, Port | None]


@runtime_checkable
class LogitAttribution(Protocol):
    """What ``direct_logit_attribution`` returns."""

    @property
    def attribution(self) -> Any:
        """A tensor ``[component]`` or ``[component, prompt]``, in logits."""

    @property
    def labels(self) -> Sequence[str]:
        """``embed``, ``0_mlp_out``, ``L3H7``, ..., as long as the tensor."""

    @property
    def unit(self) -> str:
        """``component``, ``head`` or ``layer``: what it was taken apart into."""


@runtime_checkable
class PatchAttribution(Protocol):
    """What ``attribution_patch`` returns; a node has a kind, a layer, a head and a position."""

    @property
    def node_scores(self) -> Mapping[Any, float]:
        """The effect of each part at each position."""

    @property
    def edge_scores(self) -> Mapping[tuple[Any, Any], float]:
        """The effect of each edge at each position; empty where parts were asked for."""


@dataclass(frozen=True)
class Attributed:
    """What a circuit has of such results.

    Attributes:
        fields: Of the circuit, but model, task, prompts and what its caller says.
        metric: What it is measured in, where its caller gives it no other name.
    """

    fields: Mapping[str, Any]
    metric: str | None = None


@dataclass(frozen=True)
class _Scored:
    """The score of every part, and of every edge where these were asked for."""

    parts: Mapping[str, float]
    parameters: Mapping[str, Any]
    edges: Mapping[_Place, float] = field(default_factory=dict)


def is_attribution(one: Any) -> bool:
    """Whether it is such a result."""
    return isinstance(one, LogitAttribution | PatchAttribution)


def attributed(
    results: Sequence[Any], top: int | None, higher_is_better: bool | None
) -> Iterable[Attributed]:
    """One circuit of all attributions of logits that are given, and one of each other result.

    Of logits, heads (``unit="head"``) and MLPs (``unit="component"``) are two results, and one
    circuit.

    Args:
        results: As :func:`is_attribution` knows them.
        top: Take so many of the strongest; None: all parts. Edges are never taken all.
        higher_is_better: Which way the metric of patching improves; that of logits is known.

    Raises:
        BadInput: A result is of what the registry has no name for, is not finite, or scores what
            another one scores as well.
    """
    logits = [one for one in results if isinstance(one, LogitAttribution)]
    if logits and higher_is_better is False:
        raise BadInput("more of an answer's logit is better; leave out higher_is_better=False")
    if logits:
        yield Attributed(_of_logits(_joined([_read_logits(one) for one in logits]), top), _LOGITS)
    for one in results:
        if not isinstance(one, LogitAttribution):
            yield Attributed(_of_patching(_read_patching(one), top, higher_is_better))


# -- what a result says ----------------------------------------------------------------------------


def _read_logits(result: LogitAttribution) -> _Scored:
    """Each part's share of the logit, the mean over prompts.

    Raises:
        BadInput: It is cumulative, or taken at several positions, or a label is of no part.
    """
    if result.unit not in ("component", "head"):
        raise BadInput(
            f"direct_logit_attribution with unit={result.unit!r} adds up layer by layer, and is no"
            " attribution to parts; use unit='head' or unit='component'"
        )
    shape = tuple(result.attribution.shape)
    if len(shape) > 2 or not shape or shape[0] != len(result.labels):
        raise BadInput(
            f"direct_logit_attribution has the shape {list(shape)} for {len(result.labels)} labels,"
            " expected [component] or [component, prompt]; take one position, such as pos=-1"
        )
    rows = result.attribution.tolist()
    means = [sum(row) / len(row) for row in rows] if len(shape) == 2 and shape[1] else rows
    parts: dict[str, float] = defaultdict(float)
    others: dict[str, float] = {}
    for label, value in zip(result.labels, means, strict=True):
        name = _part_of(label)
        if name is None:
            others[label] = _finite(value, label)
        else:  # the token and the position embedding are one input, and their shares add up
            parts[name] += _finite(value, label)
    about: dict[str, Any] = {"unit": [result.unit], "no_parts": others}
    if len(shape) == 2:
        about["n_prompts"] = shape[1]
    return _Scored(dict(parts), about)


def _part_of(label: str) -> str | None:
    """The local name of a label; None for what is no single part.

    Raises:
        BadInput: Nobody knows what it is.
    """
    if found := _HEAD.fullmatch(label):
        return f"a{int(found[1])}.h{int(found[2])}"
    if found := _MLP.fullmatch(label):
        return f"m{int(found[1])}"
    if label in _INPUT:
        return "input"
    if _NO_PART.fullmatch(label):
        return None
    raise BadInput(f"direct_logit_attribution has a label {label!r:.80}, which names no part")


def _joined(results: Sequence[_Scored]) -> _Scored:
    """The parts of several results of one set of prompts.

    Raises:
        BadInput: Two of them score one part, or they are of different numbers of prompts.
    """
    parts: dict[str, float] = {}
    others: dict[str, float] = {}
    units: list[str] = []
    for one in results:
        twice = parts.keys() & one.parts.keys()
        if twice:
            raise BadInput(
                f"{min(twice)} is scored by two of the results; record those of other prompts in"
                " calls of their own"
            )
        parts |= one.parts
        others |= one.parameters["no_parts"]
        units += one.parameters["unit"]
    counts = {one.parameters.get("n_prompts") for one in results}
    if len(counts) > 1:
        raise BadInput("the results are of different numbers of prompts, and no one circuit's")
    (n_prompts,) = counts
    more = {} if n_prompts is None else {"n_prompts": n_prompts}
    return _Scored(parts, {"unit": sorted(units), "no_parts": others, **more})


def _read_patching(result: PatchAttribution) -> _Scored:
    """Sums over positions of what parts and edges are scored."""
    parts: dict[str, float] = defaultdict(float)
    for node, score in result.node_scores.items():
        parts[_part(node)[0]] += _finite(score, str(node))
    edges: dict[_Place, float] = defaultdict(float)
    for (writer, reader), score in result.edge_scores.items():
        place = (_part(writer)[0], *_part(reader))
        edges[place] += _finite(score, f"{writer} -> {reader}")
    positions = {node.position for node in result.node_scores}
    about = {"granularity": "edge" if edges else "node", "n_positions": len(positions)}
    return _Scored(dict(parts), about, dict(edges))


def _part(node: Any) -> tuple[str, Port | None]:
    """The part that a node of the tool is, and the input of it that a reader is.

    Raises:
        BadInput: It is of no kind that is known.
    """
    match node.kind:
        case "embed":
            return "input", None
        case "attn_head_out":
            return f"a{node.layer}.h{node.head}", None
        case "q_input":
            return f"a{node.layer}.h{node.head}", "q"
        case "k_input":
            return f"a{node.layer}.h{node.head}", "k"
        case "v_input":
            return f"a{node.layer}.h{node.head}", "v"
        case "mlp_out" | "mlp_in":
            return f"m{node.layer}", None
        case "logits":
            return "logits", None
    raise BadInput(f"attribution_patch has a node of kind {node.kind!r:.80}, which names no part")


def _finite(value: Any, of: str) -> float:
    if not math.isfinite(value):
        raise BadInput(f"the score of {of[:80]} is {value}, no finite number")
    return float(value)


# -- what a circuit has of it ----------------------------------------------------------------------


def _of_logits(scored: _Scored, top: int | None) -> dict[str, Any]:
    parts, selection = _strongest(scored.parts, top)
    return {
        "method": "direct-logit-attribution",
        "parameters": {"tool": _TOOL, "effect_unit": "logit", **scored.parameters},
        "higher_is_better": True,
        "ablation": Ablation.NONE,
        "sign": Sign.HELPS_POSITIVE,
        "level": Level.NODE,
        "selection": selection,
        "universe_size": len(scored.parts),
        "nodes": nodes_by_size({name: scored.parts[name] for name in parts}),
    }


def _of_patching(scored: _Scored, top: int | None, higher_is_better: bool | None) -> dict[str, Any]:
    if scored.edges and top is None:
        raise BadInput("scores of all edges are no circuit yet; say how many to take, as top=500")
    turned = -1.0 if higher_is_better is False else 1.0
    common = {
        "parameters": {"tool": _TOOL, "effect_unit": "metric", **scored.parameters},
        "higher_is_better": higher_is_better,
        "ablation": Ablation.RESAMPLE,
        "sign": Sign.UNKNOWN if higher_is_better is None else Sign.HELPS_POSITIVE,
    }
    effects = {name: turned * score for name, score in scored.parts.items()}
    if not scored.edges:
        parts, selection = _strongest(effects, top)
        return {
            **common,
            "method": "attribution-patching",
            "level": Level.NODE,
            "selection": selection,
            "universe_size": len(effects),
            "nodes": nodes_by_size({name: effects[name] for name in parts}),
        }
    places, selection = _strongest(scored.edges, top)
    ends = dict.fromkeys(end for place in places for end in place[:2])
    return {
        **common,
        "method": "edge-attribution-patching",
        "level": Level.EDGE,
        "kv_heads": "per-query-head",
        "selection": selection,
        "universe_size": len(scored.edges),
        "nodes": nodes_by_size({name: effects.get(name) for name in ends}),
        "edges": tuple(
            Edge(
                source=place[0],
                target=place[1],
                port=place[2],
                effect=turned * scored.edges[place],
                rank=rank,
            )
            for rank, place in enumerate(places, 1)
        ),
    }


_Name = TypeVar("_Name", str, _Place)


def _strongest(
    scores: Mapping[_Name, float], top: int | None
) -> tuple[list[_Name], dict[str, Any] | None]:
    """Names by size, the largest first, and by what rule they were taken."""
    if not scores:
        raise BadInput("the result scores no part")
    ranked = sorted(scores, key=lambda name: -abs(scores[name]))
    return ranked[:top], None if top is None else {"top": top, "by": "absolute"}
