"""Results of TransformerLens' own attribution, as circuits that can be recorded.

The registry does not import TransformerLens: a result is recognised by its attributes. Two types of
``transformer_lens.tools.analysis`` in its version 4.3 are known:

* :class:`LogitAttribution`, from ``direct_logit_attribution``: the contribution of each part to an
  answer's logit, or to the difference of two, directly through the unembedding. Positive values
  help.
* :class:`PatchAttribution`, from ``attribution_patch``: to first order, the change of a metric of
  the user when a part, or an edge, is patched from the corrupt to the clean prompt.

Both score every part. A part with scores at several positions gets their sum, as if it were patched
at all of them; both quantities are additive.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from registry.circuits.ranking import nodes_by_size
from registry.errors import BadInput
from registry.identifiers import Port, never_feeds, parse_local
from registry.records import Ablation, Edge, Level, Sign

__all__ = ["Attributed", "LogitAttribution", "PatchAttribution", "attributed", "is_attribution"]

_HEAD = re.compile(r"L(\d{1,9})H(\d{1,9})")
_MLP = re.compile(r"(\d{1,9})_mlp_out")
_NO_PART = re.compile(r"remainder|bias|\d{1,9}_attn_out")
_INPUT = frozenset({"embed", "pos_embed"})
_WRITERS = frozenset({"embed", "attn_head_out", "mlp_out"})
_READERS = frozenset({"q_input", "k_input", "v_input", "mlp_in", "logits"})
_TOOL = "transformer_lens"
_LOGITS = "direct_logit_attribution"
_Place = tuple[str, str, Port | None]


@runtime_checkable
class LogitAttribution(Protocol):
    """The result of ``direct_logit_attribution``."""

    @property
    def attribution(self) -> Any:
        """A tensor ``[component]`` or ``[component, prompt]``, in logits."""

    @property
    def labels(self) -> Sequence[str]:
        """``embed``, ``0_mlp_out``, ``L3H7``, ..., as long as the tensor."""

    @property
    def unit(self) -> str:
        """``component``, ``head`` or ``layer``: the units of the decomposition."""


@runtime_checkable
class PatchAttribution(Protocol):
    """The result of ``attribution_patch``; a node has a kind, a layer, a head and a position."""

    @property
    def node_scores(self) -> Mapping[Any, float]:
        """The effect of each part at each position."""

    @property
    def edge_scores(self) -> Mapping[tuple[Any, Any], float]:
        """The effect of each edge at each position; empty if only parts were requested."""


@dataclass(frozen=True)
class Attributed:
    """The content of a circuit from such results.

    Attributes:
        fields: Fields of the circuit, except model, task, prompts and those that the caller gives.
        metric: Name of the metric, unless the caller gives another name.
    """

    fields: Mapping[str, Any]
    metric: str | None = None


@dataclass(frozen=True)
class _Scored:
    """The score of every part, and of every edge if edges were requested."""

    parts: Mapping[str, float]
    parameters: Mapping[str, Any]
    edges: Mapping[_Place, float] = field(default_factory=dict)


def is_attribution(one: Any) -> bool:
    """Whether it is such a result."""
    return isinstance(one, LogitAttribution | PatchAttribution)


def attributed(
    results: Sequence[Any], top: int | None, higher_is_better: bool | None
) -> Iterable[Attributed]:
    """Make one circuit of all logit attributions, and one of each other result.

    For logits, heads (``unit="head"``) and MLPs (``unit="component"``) are two results, and one
    circuit.

    Args:
        results: Results that :func:`is_attribution` accepts.
        top: Number of the strongest parts or edges; None: all parts. Edges always need a number.
        higher_is_better: Direction of the patched metric; that of logits is known.

    Raises:
        BadInput: A result has a part that the registry cannot name, is not finite, or scores a part
            that another result also scores.
    """
    logits = [one for one in results if isinstance(one, LogitAttribution)]
    if logits and higher_is_better is False:
        raise BadInput("higher logits of an answer are better; omit higher_is_better=False")
    if logits:
        yield Attributed(_of_logits(_joined([_read_logits(one) for one in logits]), top), _LOGITS)
    for one in results:
        if not isinstance(one, LogitAttribution):
            yield Attributed(_of_patching(_read_patching(one), top, higher_is_better))


# -- reading a result ------------------------------------------------------------------------------


def _read_logits(result: LogitAttribution) -> _Scored:
    """Each part's share of the logit, the mean over prompts.

    Raises:
        BadInput: It is cumulative, or has several positions, or a label is not a part.
    """
    if result.unit not in ("component", "head"):
        raise BadInput(
            f"direct_logit_attribution with unit={result.unit!r} is cumulative over layers, and not"
            " an attribution to parts; use unit='head' or unit='component'"
        )
    shape = tuple(result.attribution.shape)
    if len(shape) not in (1, 2) or shape[0] != len(result.labels) or 0 in shape:
        raise BadInput(
            f"direct_logit_attribution has the shape {list(shape)} for {len(result.labels)} labels,"
            " expected [component] or [component, prompt]; select one position, such as pos=-1"
        )
    rows = result.attribution.tolist()
    means = [sum(row) / len(row) for row in rows] if len(shape) == 2 else rows
    parts: dict[str, float] = defaultdict(float)
    others: dict[str, float] = {}
    _check_labels(result.labels)
    for label, value in zip(result.labels, means, strict=True):
        name = _part_of(label)
        if name is None:
            others[label] = _finite(value, label)
        else:  # token and position embedding are one input, and their contributions are summed
            parts[name] += _finite(value, label)
    about: dict[str, Any] = {"unit": [result.unit], "no_parts": others}
    if len(shape) == 2:
        about["n_prompts"] = shape[1]
    return _Scored(dict(parts), about)


def _check_labels(labels: Sequence[Any]) -> None:
    """Refuse labels that are not text or occur twice: their scores would be summed.

    Raises:
        BadInput: There is such a label.
    """
    for label, n in Counter(map(_text, labels)).items():
        if n > 1:
            raise BadInput(f"direct_logit_attribution has the label {label!r:.80} twice")


def _text(label: Any) -> str:
    if not isinstance(label, str):
        raise BadInput(f"direct_logit_attribution has a label {label!r:.80}, which is not text")
    return label


def _part_of(label: str) -> str | None:
    """The local name of a label; None for a label that is not a single part.

    Raises:
        BadInput: The label is unknown.
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
    """The parts of several results on one set of prompts.

    Raises:
        BadInput: Two of them score the same part, or their numbers of prompts differ.
    """
    parts: dict[str, float] = {}
    others: dict[str, float] = {}
    units: list[str] = []
    for one in results:
        twice = parts.keys() & one.parts.keys()
        if twice:
            raise BadInput(
                f"{min(twice)} is scored by two of the results; record results of other prompts in"
                " separate calls"
            )
        parts |= one.parts
        others |= one.parameters["no_parts"]
        units += one.parameters["unit"]
    counts = {one.parameters.get("n_prompts") for one in results}
    if len(counts) > 1:
        raise BadInput("the results have different numbers of prompts, so they are not one circuit")
    (n_prompts,) = counts
    more = {} if n_prompts is None else {"n_prompts": n_prompts}
    return _Scored(parts, {"unit": sorted(units), "no_parts": others, **more})


def _read_patching(result: PatchAttribution) -> _Scored:
    """Sums over positions of the scores of parts and edges."""
    for scores in (result.node_scores, result.edge_scores):
        if not isinstance(scores, Mapping):
            raise BadInput(f"attribution_patch's scores are {type(scores).__name__}, not a map")
    parts: dict[str, float] = defaultdict(float)
    for node, score in result.node_scores.items():
        parts[_part(node, _WRITERS)[0]] += _finite(score, str(node))
    edges: dict[_Place, float] = defaultdict(float)
    for (writer, reader), score in result.edge_scores.items():
        edges[_between(writer, reader)] += _finite(score, f"{writer} -> {reader}")
    positions = {node.position for node in result.node_scores}
    about = {"granularity": "edge" if edges else "node", "n_positions": len(positions)}
    sums = {name: _finite(total, name) for name, total in parts.items()}
    between = {at: _finite(total, f"{at[0]} -> {at[1]}") for at, total in edges.items()}
    return _Scored(sums, about, between)


def _between(writer: Any, reader: Any) -> _Place:
    """The edge from a writer to a reader.

    Raises:
        BadInput: One of them is not a part, or no model has such an edge.
    """
    (source, _), (target, port) = _part(writer, _WRITERS), _part(reader, _READERS)
    if never_feeds(parse_local(source), parse_local(target)):
        raise BadInput(
            f"attribution_patch has an edge {source} -> {target}, which is in no model: {source}"
            f" cannot write before {target} reads"
        )
    return source, target, port


def _part(node: Any, kinds: Collection[str]) -> tuple[str, Port | None]:
    """The part of a node of the tool, and the input of the part if it is a reader.

    Args:
        node: A node of the tool.
        kinds: The allowed kinds: those of writers or those of readers.

    Raises:
        BadInput: The node is of another kind.
    """
    if node.kind in _WRITERS | _READERS and node.kind not in kinds:
        does = "reads" if node.kind in _READERS else "writes"
        raise BadInput(
            f"attribution_patch has a node of kind {node.kind!r}, which {does}, but expected is one"
            f" of {', '.join(sorted(kinds))}"
        )
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
    try:
        finite = not isinstance(value, str) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # complex numbers, objects, tensors of several
        finite = False
    if not finite:
        raise BadInput(f"the score of {of[:80]} is {value!r:.80}, not a finite number")
    return float(value)


# -- the circuit of a result -----------------------------------------------------------------------


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
        raise BadInput("scores of all edges are not a circuit yet; give a number, such as top=500")
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
    """Names by absolute effect, the largest first, and the rule by which they were chosen."""
    if not scores:
        raise BadInput("the result does not score any part")
    ranked = sorted(scores, key=lambda name: -abs(scores[name]))
    return ranked[:top], None if top is None else {"top": top, "by": "absolute"}
