"""Positions of the parts of a drawn circuit: layers from left to right, heads above, MLPs below.

This is a layered layout. The column of a part depends on when it runs: attention before the MLP of
a block, norms at the place where they are applied, ``input`` first, ``logits`` last. Layers without
parts take no space. A part is moved up and down in its lane until as few edges as possible run
behind other parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from registry.identifiers import Kind, Local, parse_local, sort_key

__all__ = ["BOX_HEIGHT", "BOX_WIDTH", "PORT_OFFSET", "Layout", "curves", "lay_out"]

Array = NDArray[np.float64]

BOX_WIDTH = 0.92
BOX_HEIGHT = 0.5
PORT_OFFSET: Mapping[str | None, float] = {"q": 0.14, "k": 0.0, "v": -0.14, None: 0.0}
"""How far above a box's middle an edge enters it, by port."""

_ATTENTION_LEVELS = tuple(0.75 * level for level in range(6))
_MLP_LEVELS = (-1.1, -1.8, -2.5)
_END_LEVEL = 0.0
_COLUMN = 1.12
_STEP = 0.5
_SAMPLES = np.linspace(0.0, 1.0, 16)[:, None]
_PASSES = 3
_MARGIN = 0.05
_APART = 0.1
_ATTENTION_KINDS = frozenset({Kind.HEAD, Kind.KV_HEAD})


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in drawing units; a unit is a fixed number of inches.

    Attributes:
        places: Middle of each part's box, by local name.
        layers: For each layer with parts its number, left and right border.
        bottom: Lower border of the lowest box or line.
        top: Upper border of the highest box or line.
        left: Left border.
        right: Right border.
    """

    places: Mapping[str, tuple[float, float]]
    layers: tuple[tuple[int, float, float], ...]
    bottom: float
    top: float
    left: float
    right: float


def lay_out(names: Iterable[str], edges: Sequence[tuple[str, str, str | None]]) -> Layout:
    """Place parts so that edges run from left to right and are rarely hidden.

    Equal input gives equal positions.

    Args:
        names: Local names of the parts.
        edges: Source, target and port of every edge; both ends are in ``names``.
    """
    ordered = sorted(set(names), key=lambda name: sort_key(parse_local(name)))
    locals_ = [parse_local(name) for name in ordered]
    columns = _columns(locals_)
    index = {name: place for place, name in enumerate(ordered)}
    ends = np.array([(index[s], index[t]) for s, t, _ in edges], dtype=int).reshape(-1, 2)
    offsets = np.array([PORT_OFFSET[port] for _, _, port in edges])
    heights = _heights(locals_, columns, ends, offsets)
    middles = np.column_stack([columns, heights])
    # Lines curve beyond the boxes.
    reach = _on_curves(curves(middles[ends[:, 0]], middles[ends[:, 1]], offsets))[..., 1]
    places = dict(zip(ordered, zip(columns, heights, strict=True), strict=True))
    return Layout(
        places=places,
        layers=tuple(_bands(locals_, columns)),
        bottom=float(min([*heights, *reach.min(axis=1)], default=0.0)) - BOX_HEIGHT / 2,
        top=float(max([*heights, *reach.max(axis=1)], default=0.0)) + BOX_HEIGHT / 2,
        left=-_COLUMN / 2,
        right=max(columns, default=0.0) + _COLUMN / 2,
    )


def curves(starts: Array, ends: Array, offsets: Array) -> Array:
    """Control points of the cubic lines between boxes.

    Args:
        starts: ``edge xy``, middles of the source boxes.
        ends: ``edge xy``, middles of the target boxes.
        offsets: ``edge``, distance above the middle at which they enter (:data:`PORT_OFFSET`).

    Returns:
        ``edge 4 xy``.
    """
    x0, y0 = starts[:, 0] + BOX_WIDTH / 2, starts[:, 1]
    x1, y1 = ends[:, 0] - BOX_WIDTH / 2, ends[:, 1] + offsets
    span = x1 - x0
    reach = np.maximum(0.35, 0.4 * span)
    # Lines along one level would be hidden by the boxes between their ends, so they curve outwards.
    outwards = np.where(np.minimum(y0, y1) < 0, -1.0, 1.0) * (0.5 + 0.07 * span)
    bow = np.where((span > _COLUMN) & (np.abs(y1 - y0) < BOX_HEIGHT), outwards, 0.0)
    points = ((x0, y0), (x0 + reach, y0 + bow), (x1 - reach, y1 + bow), (x1, y1))
    return np.stack([np.stack(point, axis=-1) for point in points], axis=1)


def _columns(locals_: Sequence[Local]) -> list[float]:
    """Horizontal position of each part; parts of one layer and lane share a column.

    A column is more than one box width after the previous column of another layer, so that every
    box is within the band of its layer. Within a layer that is the distance to the previous column
    of its lane; a column is only :data:`_STEP` after the previous column of the other lane.
    """
    place: dict[_Step, float] = {}
    last = {"attention": -_COLUMN, "mlp": -_COLUMN}
    before, layer = -_COLUMN, None
    for step in sorted({_step(local) for local in locals_}):
        lanes = _LANES[step[1]]
        apart = _STEP if step[0] == layer else _COLUMN
        x = max(before + apart, *(last[lane] + _COLUMN for lane in lanes))
        place[step] = before = x
        layer = step[0]
        last.update(dict.fromkeys(lanes, x))
    return [place[_step(local)] for local in locals_]


_Step = tuple[int, int]
_ENDS, _TO_ATTENTION, _IN_ATTENTION, _ATTENTION, _AFTER_ATTENTION, _TO_MLP, _MLP, _AFTER_MLP = (
    range(8)
)
_LANES = {
    _ENDS: ("attention", "mlp"),
    **dict.fromkeys(range(_TO_ATTENTION, _TO_MLP), ("attention",)),
    **dict.fromkeys(range(_TO_MLP, _AFTER_MLP + 1), ("mlp",)),
}
_NORMS = {
    "ln1": _TO_ATTENTION,
    "q_norm": _IN_ATTENTION,
    "k_norm": _IN_ATTENTION,
    "ln1_post": _AFTER_ATTENTION,
    "ln2": _TO_MLP,
    "ln2_post": _AFTER_MLP,
}
_LAST = 1_000_000
_AFTER_BLOCKS = {Kind.NORM: _LAST, Kind.UNEMBED: _LAST + 1, Kind.LOGITS: _LAST + 2,
                 Kind.LOGIT: _LAST + 2}  # fmt: skip


def _step(local: Local) -> _Step:
    """When a part runs, as layer and order within the layer."""
    if local.layer is None:
        return (_AFTER_BLOCKS.get(local.kind, -1), _ENDS)
    if local.norm is not None:
        return (local.layer, _NORMS[local.norm])
    return (local.layer, _ATTENTION if _is_attention(local) else _MLP)


def _is_attention(local: Local) -> bool:
    if local.norm is not None:
        return _NORMS[local.norm] < _TO_MLP
    place = local.site or str(local)
    return local.kind in _ATTENTION_KINDS or place.startswith("a") or place.endswith("attn_out")


def _bands(
    locals_: Sequence[Local], columns: Sequence[float]
) -> Iterator[tuple[int, float, float]]:
    """Each layer with its borders, halfway to the columns of its neighbours.

    Columns of different layers are :data:`_COLUMN` apart, so borders run between boxes.
    """
    reach: dict[int, list[float]] = {}
    for local, x in zip(locals_, columns, strict=True):
        layer = _step(local)[0] if local.layer is None else local.layer
        reach.setdefault(layer, []).append(x)
    layers = sorted(reach)
    for place, layer in enumerate(layers):
        if 0 <= layer < _LAST:
            left, right = min(reach[layer]), max(reach[layer])
            before = max(reach[layers[place - 1]]) if place else left - _COLUMN
            after = min(reach[layers[place + 1]]) if place + 1 < len(layers) else right + _COLUMN
            yield layer, (before + left) / 2, (right + after) / 2


def _choices(local: Local, crowd: int) -> tuple[float, ...]:
    if local.layer is None:
        return tuple(_END_LEVEL + 0.75 * place for place in range(crowd))
    if _is_attention(local):
        return (*_ATTENTION_LEVELS, *(0.75 * level for level in range(6, crowd)))
    return (*_MLP_LEVELS, *(_MLP_LEVELS[-1] - 0.7 * place for place in range(1, crowd - 1)))


def _heights(
    locals_: Sequence[Local], columns: Sequence[float], ends: NDArray[np.int_], offsets: Array
) -> list[float]:
    """Move every part in turn to the level of its lane that hides least, until none moves."""
    crowd = Counter(map(_step, locals_))
    choices = [_choices(local, crowd[_step(local)]) for local in locals_]
    taken: Counter[_Step] = Counter()
    middles = np.zeros((len(locals_), 2))
    middles[:, 0] = columns
    for index, local in enumerate(locals_):
        middles[index, 1] = choices[index][taken[_step(local)]]
        taken[_step(local)] += 1
    for _ in range(_PASSES):
        before = middles.copy()
        for index, options in enumerate(choices):
            costs = [_cost(middles, ends, offsets, index, option) for option in options]
            middles[index, 1] = options[int(np.argmin(costs))]
        if np.array_equal(before, middles):
            break
    return [float(height) for height in middles[:, 1]]


def _cost(
    middles: Array, ends: NDArray[np.int_], offsets: Array, index: int, level: float
) -> float:
    """Cost of part ``index`` at ``level``: hidden edges, and small terms that keep edges short."""
    middles = middles.copy()
    middles[index, 1] = level
    apart = np.abs(np.delete(middles, index, axis=0) - middles[index])
    touching = (apart[:, 0] < BOX_WIDTH + _APART) & (apart[:, 1] < BOX_HEIGHT + _APART)
    mine = (ends == index).any(axis=1)
    lengths = np.abs(middles[ends[mine, 0], 1] - middles[ends[mine, 1], 1])
    hidden = _hidden(middles, ends, offsets, mine, index)
    return float(1000 * touching.sum() + hidden + 0.15 * lengths.sum() + 0.02 * abs(level))


def _hidden(
    middles: Array, ends: NDArray[np.int_], offsets: Array, mine: NDArray[np.bool_], index: int
) -> int:
    """Number of edge points behind boxes, counting only what depends on part ``index``."""
    reach = np.array([BOX_WIDTH / 2 + _MARGIN, BOX_HEIGHT / 2 + _MARGIN])
    control = curves(middles[ends[:, 0]], middles[ends[:, 1]], offsets)
    points = _on_curves(control)
    behind_mine = (np.abs(points[~mine] - middles[index]) < reach).all(axis=-1).sum()
    others = (np.abs(points[mine][:, :, None] - middles) < reach).all(axis=-1)
    own = np.zeros((int(mine.sum()), len(middles)), dtype=bool)
    np.put_along_axis(own, ends[mine], True, axis=1)
    return int(behind_mine + (others & ~own[:, None]).sum())


def _on_curves(control: Array) -> Array:
    """Sample the curves: ``edge sample xy`` from ``edge 4 xy``."""
    t = _SAMPLES
    a, b, c, d = (control[:, None, place] for place in range(4))
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
