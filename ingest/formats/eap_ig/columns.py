"""Graphs of EAP-IG and the MIB circuit track as columns, independent of their format.

Every edge of a model has a score and a mark for membership in the circuit. Nodes may have both too,
and so may the coordinates of a node's output, which the tool calls neurons. Facts that matter here:
a file has no model, task, metric or sign. In a grouped-query model every query head has its own
copy of keys and values. ``cfg.d_model`` may be wrong. A score that is missing or NaN was never
computed, and such an edge stays in the circuit. Exactly 0 is also written for edges that were never
scored. ``Graph.to_json`` and ``Graph.to_pt`` of hannamw/EAP-IG write these graphs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ingest.formats.base import Limits, Said
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from registry.records import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GraphColumns", "Part", "Shape", "coordinates", "left_out", "read_shape"]

_HEAD = re.compile(r"a\d+\.h\d+")
_MLP = re.compile(r"m\d+")
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """A node, or a coordinate of its output, as a file has it.

    Attributes:
        name: Local name.
        marked: Whether it is in the circuit; None if the file does not give it.
        score: With the file's sign; None if it has no score.
    """

    name: str
    marked: bool | None
    score: float | None = None


@dataclass(frozen=True)
class Shape:
    """The description of the model in a graph's ``cfg``.

    Attributes:
        space: Its senders, receivers and edges, keys and values once per query head.
        d_model: As written, which may be wrong; None if it is missing.
        more: Other fields.
    """

    space: EdgeSpace
    d_model: int | None
    more: Mapping[str, Any]

    def model(self, said: Said) -> Model:
        """Return the model as far as the file describes it."""
        fits = self.d_model is not None and self.d_model % self.space.n_heads == 0
        return Model(
            slug=said.need("model", "task"),
            n_layers=self.space.n_layers,
            n_heads=self.space.n_heads,
            d_model=self.d_model if fits else None,
            parallel_attn_mlp=self.space.parallel,
        )


@dataclass(frozen=True, eq=False)
class GraphColumns:
    """The edges of a file as columns, and its parts.

    Attributes:
        rows: Sender of each edge, by its index in the space.
        columns: Receiver of each edge.
        scores: With the file's sign; NaN if there is no score.
        marked: Whether each edge is in the circuit.
        nodes: The nodes that the file lists.
        coordinates: Coordinates of nodes' outputs, if the file lists them.
        notes: Content that was reinterpreted or omitted.
    """

    file: str
    shape: Shape
    rows: NDArray[Any]
    columns: NDArray[Any]
    scores: NDArray[Any]
    marked: NDArray[Any]
    nodes: Sequence[Part] = ()
    coordinates: Sequence[Part] = ()
    notes: Sequence[str] = field(default=())

    @cached_property
    def n_edges(self) -> int:
        """The number of edges in the file."""
        return len(self.scores)

    @cached_property
    def universe_size(self) -> int | None:
        """The number of edges of the model's graph; None if the file does not list all of them.

        If the file has no heads, or no MLPs, the model's graph without them is meant.
        """
        space = self.shape.space
        kinds = self._kinds_listed
        senders = [_kind(name) in kinds for name in space.senders]
        into = [receiver for receiver in space.receivers if _kind(receiver.node) in kinds]
        n_graph = sum(sum(senders[: receiver.n_sources]) for receiver in into)
        return n_graph if kinds & {"a", "m"} and n_graph == self.n_edges else None

    @cached_property
    def n_parts(self) -> int | None:
        """The number of nodes in the file; None if these are not all nodes of the model."""
        kinds = self._kinds_listed
        listed = {part.name for part in self.nodes}
        whole = {name for name in self.shape.space.senders if _kind(name) in kinds}
        return len(self.nodes) if kinds & {"a", "m"} and whole <= listed | {"input"} else None

    @cached_property
    def n_coordinates(self) -> int | None:
        """The number of coordinates in the file; None if some of a site, or sites, are missing."""
        space, width = self.shape.space, self.shape.d_model
        counts = Counter(part.name.partition("#")[0] for part in self.coordinates)
        if width is None or not counts:
            return None
        heads = any(site.endswith(".z") for site in counts)
        mlps = any(not site.endswith(".z") for site in counts)
        whole = {f"{name}.z": width // space.n_heads for name in space.senders
                 if heads and _kind(name) == "a"}  # fmt: skip
        whole |= {name: width for name in space.senders if mlps and _kind(name) == "m"}
        return len(self.coordinates) if counts == whole else None

    @cached_property
    def _kinds_listed(self) -> set[str]:
        """First letters of the parts that nodes and edges name, with ``input`` and ``logits``."""
        import numpy

        space = self.shape.space
        found = {_kind(part.name) for part in self.nodes}
        found |= {_kind(space.senders[row]) for row in numpy.unique(self.rows).tolist()}
        into = numpy.unique(self.columns).tolist()
        return found | {_kind(space.receivers[column].node) for column in into}

    @cached_property
    def scored(self) -> NDArray[Any]:
        """Mask of the edges that have a score."""
        import numpy

        found: NDArray[Any] = numpy.isfinite(self.scores)
        return found

    @cached_property
    def unscored(self) -> bool:
        """Whether no edge has a score other than 0: none was ever scored."""
        return not (self.scores[self.scored] != 0).any()

    @cached_property
    def ranks_edges(self) -> bool:
        """Whether edges have different scores, so they can be selected by score."""
        found = self.scores[self.scored]
        return not self.unscored and bool((found != found[0]).any())

    @cached_property
    def doubts_zeros(self) -> bool:
        """Whether so many scores are exactly 0 that most of these were probably never computed."""
        zeros = int((self.scores == 0).sum())
        return zeros > _MOSTLY * self.n_edges

    @cached_property
    def known(self) -> NDArray[Any]:
        """Mask of the edges whose score was certainly computed."""
        doubtful = self.unscored or self.doubts_zeros
        found: NDArray[Any] = self.scored & ((self.scores != 0) | (not doubtful))
        return found

    def ends(self, at: int) -> tuple[str, str, Any]:
        """Return source, target and port of an edge."""
        receiver = self.shape.space.receivers[self.columns[at]]
        return self.shape.space.senders[self.rows[at]], receiver.node, receiver.port


def read_shape(cfg: Any, file: str, limits: Limits) -> Shape:
    """Read a graph's ``cfg``.

    Raises:
        BadInput: It does not give the numbers of layers and heads, or more than are allowed.
    """
    if not isinstance(cfg, Mapping):
        raise BadInput(f"{file} has no cfg with n_layers and n_heads")
    counts = {name: _count(cfg, name, file) for name in ("n_layers", "n_heads")}
    parallel, d_model = cfg.get("parallel_attn_mlp"), cfg.get("d_model")
    if parallel is not None and not isinstance(parallel, bool):
        raise BadInput(f"{file}: cfg.parallel_attn_mlp is {parallel!r}, neither true nor false")
    layers, heads = counts["n_layers"], counts["n_heads"]
    _check_size(layers, heads, limits, file, parallel=parallel is True)
    known = {*counts, "parallel_attn_mlp", "d_model"}
    return Shape(
        EdgeSpace(layers, heads, heads, parallel is True),
        None if d_model is None else _count(cfg, "d_model", file),
        {
            name: value
            for name, value in cfg.items()
            if name not in known and isinstance(name, str) and _is_plain(value)
        },
    )


def coordinates(
    name: str, marks: Sequence[Any], scores: Sequence[Any] | None, shape: Shape
) -> list[Part] | None:
    """Return coordinates of a node's output, which the tool calls its neurons.

    Those of an MLP are coordinates of its output in the residual stream, not of its hidden layer.
    Those of a head may be coordinates of its weighted values, before the output projection.

    Returns:
        None if the registry has no name for them: of ``input``, of a head's output, or of another
        width.
    """
    if _MLP.fullmatch(name) and len(marks) == (shape.d_model or len(marks)):
        site = name
    elif _HEAD.fullmatch(name) and shape.d_model == len(marks) * shape.space.n_heads > len(marks):
        site = f"{name}.z"
    else:
        return None
    found = [None] * len(marks) if scores is None else scores
    return [
        Part(f"{site}#coordinate[{at}]", bool(mark), score)
        for at, (mark, score) in enumerate(zip(marks, found, strict=True))
    ]


def left_out(neurons: Sequence[tuple[str, int]], shape: Shape) -> list[str]:
    """Return a note on nodes whose neurons, given by number, :func:`coordinates` cannot name."""
    if not neurons:
        return []
    name, _ = neurons[0]
    return [
        f"{sum(n for _, n in neurons):,} neurons of {len(neurons):,} nodes omitted, such as those"
        f" of {name}: only coordinates of an MLP's output (as many as d_model,"
        f" {shape.d_model or 'not given'}) and of a head's values have names here"
    ]


def _kind(name: str) -> str:
    """Return ``a`` for heads, ``m`` for MLPs, ``i`` for the input, ``l`` for the logits."""
    return name[:1]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_size(layers: int, heads: int, limits: Limits, file: str, *, parallel: bool) -> None:
    """Refuse a model that is too large, before any of its parts is named."""
    n_senders, n_receivers = 1 + layers * (heads + 1), layers * (3 * heads + 1) + 1
    before_blocks = layers + (heads + 1) * layers * (layers - 1) // 2
    n_edges = (3 * heads + 1) * before_blocks + n_senders + (0 if parallel else layers * heads)
    # A matrix has about two cells per edge, unless nearly all heads are in few layers.
    most_cells = 4 * max(limits.max_edges, 1_000_000)
    if n_edges > limits.max_edges or n_senders * n_receivers > most_cells:
        raise BadInput(
            f"{file}: a model of {layers:,} layers with {heads:,} heads has {n_edges:,} edges in a"
            f" matrix of {n_senders * n_receivers:,} cells; {limits.max_edges:,} and"
            f" {most_cells:,} are allowed; --max-edges raises that"
        )


def _count(cfg: Mapping[Any, Any], name: str, file: str) -> int:
    value = cfg.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise BadInput(f"{file}: cfg.{name} is {value!r}, not a number of at least 1")
    return value
