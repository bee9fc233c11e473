"""Links of an attribution graph, checked, as arrays: a long prompt's graph has tens of millions.

Links name nodes by ids, and a feature of layer 0 and an error of another layer may have the same
id. The nodes of such a link are known if only one pair of nodes can be joined: no link ends at
errors or tokens, and no link runs backwards or within a part of a layer. The other cases follow
from the order in which circuit-tracer writes links, if all other links of the file have this order:
by target and then by source, in the order of the list of nodes.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from ingest.formats.attribution_graph.nodes import FileNode, NodeType, read_number, shortened
from ingest.formats.base import Limits
from ingest.formats.reading import OddScores, check_count
from registry.errors import BadInput

if TYPE_CHECKING:
    import numpy

__all__ = ["BLOCK", "FileLink", "JoinedLinks", "LinkReader", "Links", "blocks"]

BLOCK = 1 << 20  # links that are processed together; the results for a block are then released
_ENOUGH_IN_ORDER = 10  # number of ordered links that cannot be ordered by chance
_MOST_PAIRS = 64  # pairs that are tried for a link; at most two nodes have one id of the tool
_MOST_CHOICES = 1024  # combinations for consecutive ambiguous links that are tried together
_NUMBERS = {float, int, type(None)}
_Pair = tuple[int, int]  # source and target, by index in the list of nodes
_Named = tuple[str, str, float | None]  # source, target and weight as in the file


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link between two nodes, by their indices in the list; None: no weight is given."""

    source: int
    target: int
    weight: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Links(Sequence[FileLink]):
    """Links in the file's order.

    Attributes:
        source: Indices in the list of nodes, ``[link]``, 32 bits each.
        target: Also indices in the list of nodes.
        weight: ``[link]``, 64 bits each; NaN if no weight is given.
    """

    source: numpy.ndarray[Any, Any]
    target: numpy.ndarray[Any, Any]
    weight: numpy.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, at: int) -> FileLink: ...

    @overload
    def __getitem__(self, at: slice) -> Links: ...

    def __getitem__(self, at: int | slice) -> FileLink | Links:
        if isinstance(at, slice):
            return Links(self.source[at], self.target[at], self.weight[at])
        weight = float(self.weight[at])
        return FileLink(
            int(self.source[at]), int(self.target[at]), None if math.isnan(weight) else weight
        )


@dataclass(frozen=True, slots=True)
class JoinedLinks:
    """The links of a file, with the nodes that they join.

    Attributes:
        ambiguous: Links that fit two nodes with one id: source, target and weight as in the file.
        dangling: Number of links with an end that is not a node.
        repeated: Number of links that are given twice with the same weight.
    """

    links: Links
    ambiguous: Sequence[_Named]
    dangling: int
    repeated: int


def blocks(n_links: int) -> Iterator[slice]:
    """Yield ranges that cover this many links, :data:`BLOCK` at a time."""
    return (slice(at, at + BLOCK) for at in range(0, n_links, BLOCK))


class LinkReader:
    """Receives a file's links in batches, and finds the nodes that they join.

    Args:
        nodes: All nodes of the file.
        name: The file's name.
        limits: Number of links that may have ids of several nodes.
    """

    def __init__(self, nodes: Sequence[FileNode], name: str, limits: Limits) -> None:
        self._nodes, self._name, self._limits = nodes, name, limits
        self._places: dict[str, list[int]] = defaultdict(list)
        for at, node in enumerate(nodes):
            self._places[node.id].append(at)
        self._ids = list(self._places)
        self._codes = {id: code for code, id in enumerate(self._ids)}
        self._sources, self._targets, self._weights = array("i"), array("i"), array("d")
        self._n_read = 0
        self.odd = OddScores()

    def __len__(self) -> int:
        return self._n_read

    def add(self, batch: Sequence[Any]) -> None:
        """Add links as they are in the file.

        Raises:
            BadInput: A link is malformed.
        """
        if not self._add_plain(batch):
            for at, one in enumerate(batch, self._n_read):
                self._add_one(one, f"{self._name}, link {at}")
        self._n_read += len(batch)

    def _add_plain(self, batch: Sequence[Any]) -> bool:
        """Add well-formed links all at once; add none if one of them is malformed."""
        code = self._codes.get
        try:
            sources = [code(one["source"]) for one in batch]
            targets = [code(one["target"]) for one in batch]
            weights = [one.get("weight") for one in batch]
            if None in sources or None in targets or not set(map(type, weights)) <= _NUMBERS:
                return False
            if not math.isfinite(sum(one for one in weights if one is not None)):
                return False  # one of them is not a number, or nearly all are very large
            numbers = array("d", [math.nan if one is None else one for one in weights])
        except (TypeError, KeyError, AttributeError, OverflowError):
            return False
        self._sources.extend(sources)  # type: ignore[arg-type] # none of them is None
        self._targets.extend(targets)  # type: ignore[arg-type]
        self._weights.extend(numbers)
        return True

    def _add_one(self, raw: Any, where: str) -> None:
        source, target, weight = _ends(raw, where, self.odd)
        if source in self._codes and target in self._codes:
            self._sources.append(self._codes[source])
            self._targets.append(self._codes[target])
            self._weights.append(math.nan if weight is None else weight)

    def joined(self) -> JoinedLinks:
        """Return the links with the nodes that they join.

        Raises:
            BadInput: A link is given twice with different weights, very many links are ambiguous,
                or a link cannot exist in any model.
        """
        import numpy as np

        dangling = self._n_read - len(self._sources)
        links = Links(
            np.asarray(self._sources, dtype=np.int32),  # the same memory
            np.asarray(self._targets, dtype=np.int32),
            np.asarray(self._weights, dtype=np.float64),
        )
        links, ambiguous = self._placed(links)
        links, repeated = self._once(links)
        self._check_order(links)
        return JoinedLinks(links, ambiguous, dangling, repeated)

    def _check_order(self, links: Links) -> None:
        """Refuse a link that runs backwards or within a part, into a token or out of a logit.

        Nodes of an unknown type may be anywhere, and the order of attention and MLP in a layer
        depends on the model.
        """
        import numpy as np

        layer = np.array([_layer(node) for node in self._nodes])
        attention = np.array([node.attention for node in self._nodes])
        for part in blocks(len(links)):
            source, target = links.source[part], links.target[part]
            together = (layer[source] == layer[target]) & (attention[source] == attention[target])
            for at in np.flatnonzero(together | (layer[source] > layer[target]))[:1].tolist():
                ends = (shortened(self._nodes[int(one[at])].id) for one in (source, target))
                raise BadInput(
                    f"{self._name}: the link {' -> '.join(ends)} is in no model: its source writes"
                    " only after its target has read"
                )

    def _placed(self, links: Links) -> tuple[Links, list[_Named]]:
        """Replace ids by nodes' indices; links that fit several nodes are omitted and listed."""
        import numpy as np

        shared = [places for places in self._places.values() if len(places) > 1]
        place = np.array([p[0] if len(p) == 1 else -1 for p in self._places.values()], np.int32)
        open_ = np.empty(0, np.intp)
        if shared:
            open_ = np.flatnonzero((place[links.source] < 0) | (place[links.target] < 0))
            what = "links with ids of several nodes"
            check_count(len(open_), what, self._name, self._limits)
        named = [
            (self._ids[links.source[at]], self._ids[links.target[at]], links[at].weight)
            for at in open_.tolist()
        ]
        for part in blocks(len(links)):
            for ends in (links.source, links.target):
                ends[part] = place[ends[part]]
        if not named:
            return links, []
        pairs = [_pairs(self._places[one[0]], self._places[one[1]], self._nodes) for one in named]
        chosen = _chosen(links, dict(zip(open_.tolist(), pairs, strict=True)), len(self._nodes))
        keep = np.ones(len(links), dtype=bool)
        for at in open_.tolist():
            pair = chosen[at]
            keep[at] = pair is not None
            if pair is not None:
                links.source[at], links.target[at] = pair
        left = [one for at, one in zip(open_.tolist(), named, strict=True) if not keep[at]]
        return _kept(links, keep), left

    def _once(self, links: Links) -> tuple[Links, int]:
        """Return each link once, the first of those with the same nodes."""
        import numpy as np

        if _ascending(links, len(self._nodes)):
            return links, 0
        alike = self._alike(links)
        if not len(alike):
            return links, 0
        keys = _keys(links, len(self._nodes), alike)
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        order = alike[order]
        weight, before = links.weight[order[again]], links.weight[order[again - 1]]
        differ = (weight != before) & ~(np.isnan(weight) & np.isnan(before))
        if differ.any():
            link = links[int(order[again[differ]].min())]
            source, target = self._nodes[link.source].id, self._nodes[link.target].id
            raise BadInput(
                f"{self._name}: {shortened(source)} -> {shortened(target)} is given twice with"
                " different weights"
            )
        keep = np.ones(len(links), dtype=bool)
        keep[order[again]] = False
        return _kept(links, keep), len(again)

    def _alike(self, links: Links) -> numpy.ndarray[Any, Any]:
        """Return which links join the same nodes as another link."""
        import numpy as np

        keys = _keys(links, len(self._nodes))
        keys.sort()
        twice = np.unique(keys[1:][keys[1:] == keys[:-1]])
        del keys
        if not len(twice):
            return twice
        found = [
            np.flatnonzero(np.isin(_keys(links, len(self._nodes), part), twice)) + part.start
            for part in blocks(len(links))
        ]
        return np.concatenate(found)


def _layer(node: FileNode) -> float:
    """Return a node's order among layers: tokens first, logits last; NaN: unknown."""
    ends = {
        NodeType.TOKEN: -math.inf, NodeType.LOGIT: math.inf, NodeType.OTHER: math.nan,
    }  # fmt: skip
    return ends.get(node.type, float(node.layer or 0))


def _kept(links: Links, keep: numpy.ndarray[Any, Any]) -> Links:
    return Links(links.source[keep], links.target[keep], links.weight[keep])


def _keys(
    links: Links, n_nodes: int, which: slice | numpy.ndarray[Any, Any] = slice(None)
) -> numpy.ndarray[Any, Any]:
    """Return a number for each link that orders links by target, then by source."""
    import numpy as np

    keys = links.target[which].astype(np.int64)
    keys *= n_nodes
    keys += links.source[which]
    return keys


def _ends(raw: Any, where: str, odd: OddScores) -> _Named:
    if not isinstance(raw, dict):
        raise BadInput(f"{where} is no object with source, target and weight")
    source, target = raw.get("source"), raw.get("target")
    if not isinstance(source, str) or not isinstance(target, str):
        raise BadInput(
            f"{where}: source and target are {shortened(source)} and {shortened(target)}"
        )
    weight = read_number(raw.get("weight"), f"{where}: weight")
    return source, target, odd.taken(weight, f"{shortened(source)} -> {shortened(target)}")


def _pairs(
    sources: Sequence[int], targets: Sequence[int], nodes: Sequence[FileNode]
) -> list[_Pair]:
    """Return the node pairs that a link's ids allow; none if there are very many."""
    if len(sources) * len(targets) > _MOST_PAIRS:
        return []
    return [
        (source, target)
        for target in targets
        for source in sources
        if nodes[target].type in {NodeType.FEATURE, NodeType.LOGIT}
        and nodes[source].moment < nodes[target].moment
    ]


def _chosen(
    links: Links, options: Mapping[int, Sequence[_Pair]], n_nodes: int
) -> dict[int, _Pair | None]:
    """Return the pair that each link joins, of those that it may join; None if undecided.

    Args:
        links: All links; links with options have no indices yet.
        options: The pairs that a link may join, by link.
        n_nodes: Number of nodes in the file.
    """
    import numpy as np

    chosen = {at: pairs[0] if len(pairs) == 1 else None for at, pairs in options.items()}
    for at, pair in chosen.items():
        links.source[at], links.target[at] = pair or (-1, -1)
    open_ = [at for at, pair in chosen.items() if pair is None]
    certain = np.ones(len(links), dtype=bool)
    certain[open_] = False
    enough = np.count_nonzero(certain) >= _ENOUGH_IN_ORDER
    if not open_ or not enough or not _ascending(_kept(links, certain), n_nodes):
        return chosen
    for _, group in itertools.groupby(enumerate(open_), lambda one: one[1] - one[0]):
        run = [at for _, at in group]
        choices = [options[at] for at in run]
        if _few(choices):
            before, after = (_certain(links, at) for at in (run[0] - 1, run[-1] + 1))
            fits = [
                pairs
                for pairs in itertools.product(*choices)
                if _in_order([*before, *pairs, *after])
            ]
            if len(fits) == 1:
                chosen.update(zip(run, fits[0], strict=True))
    return chosen


def _certain(links: Links, at: int) -> list[_Pair]:
    """Return the pair of a neighbouring link, if it is certain; none beyond the ends."""
    if not 0 <= at < len(links):
        return []
    return [(int(links.source[at]), int(links.target[at]))]


def _few(choices: Sequence[Sequence[_Pair]]) -> bool:
    """Return whether all combinations can be tried."""
    n_ways = 1
    for pairs in choices:
        n_ways *= len(pairs)
        if n_ways > _MOST_CHOICES:
            return False
    return True


def _in_order(pairs: Sequence[_Pair]) -> bool:
    return all(one[::-1] < other[::-1] for one, other in itertools.pairwise(pairs))


def _ascending(links: Links, n_nodes: int) -> bool:
    """Return whether the links are in the order of the tool, without duplicates."""
    last = -1
    for part in blocks(len(links)):
        keys = _keys(links, n_nodes, part)
        if keys[0] <= last or not (keys[1:] > keys[:-1]).all():
            return False
        last = int(keys[-1])
    return True
