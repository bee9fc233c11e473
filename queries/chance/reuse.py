"""How many tasks would use a part by chance: the null of reuse, one probability for each task.

**Components.** A task uses some number of a layer's heads. The null chooses that number of heads at
random, independently for each task. The probability that a task uses a head is then the share of
the layer's heads that the task uses. This is exact. A layer has one MLP, and the model has one
input: for these the null leaves no choice, and p is 1 wherever they are used.

**Connections.** For each task, the null draws circuits in which every sender and every receiver has
the same number of edges (:mod:`queries.chance.degrees`), independently of other tasks. The
probability that a task uses a connection is the share of the draws that have it.

In both cases the number of tasks that use a part is a sum of independent events with known
probabilities (Poisson binomial), so that every combination of the tasks' draws is counted, not only
those drawn together. A share of draws is ``(b + 1) / (n + 1)``, which is conservative. It is 0 for
connections that the degrees forbid.

Significance does not mean that a part does the same thing in the tasks. The null also assumes that
all heads of a layer, or all edges between a model's hubs, are equally likely to be chosen. Tasks
that share a prompt format, or a method that favours some parts for every task, make parts look
general.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queries.chance.chance import corrected
from queries.chance.degrees import Draws, draw_circuits
from queries.chance.layers import by_layer_and_kind, layer_and_kind, n_parts
from registry.identifiers import can_feed, parse_connection, parse_local
from registry.records import Model

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["UseByChance", "components_by_chance", "connections_by_chance", "number_of_tasks"]


@dataclass(frozen=True, slots=True)
class UseByChance:
    """What the null predicts for parts.

    Attributes:
        expected: Mean number of tasks that use a part, by its local name. Parts that the null does
            not cover are omitted.
        p: Probability that at least as many tasks use it as observed.
        q: p corrected for all parts of the model (Benjamini & Hochberg 1995). Parts that no task
            uses count too, because they would have been tested as well.
        spread: Expected number of parts that are used by no task, one, two, and so on to all.
    """

    expected: Mapping[str, float]
    p: Mapping[str, float]
    q: Mapping[str, float]
    spread: tuple[float, ...]


def components_by_chance(used: Mapping[str, Collection[str]], model: Model) -> UseByChance:
    """Compare the number of tasks that use a component with random ones of its layer and kind.

    Args:
        used: Local names of the components that each task uses.
        model: Gives how many parts of each kind a layer has. Kinds that it does not give, such as
            features, are omitted.
    """
    import numpy

    groups = [by_layer_and_kind(names) for names in used.values()]
    n_tasks = _n_tasks(used)
    expected: dict[str, float] = {}
    p: dict[str, float] = {}
    spread = numpy.zeros(len(used) + 1)
    n_tested = 0
    for group in sorted(set().union(*groups), key=str):
        size = n_parts(group[1], model)
        if size is None or max(counts[group] for counts in groups) > size:
            continue
        shares = numpy.array([[counts[group] / size] for counts in groups])
        chances = number_of_tasks(shares)[:, 0]
        spread += size * chances
        n_tested += size
        for name in n_tasks:
            part = parse_local(name)
            if layer_and_kind(part) == group:
                expected[name] = float(shares.sum())
                p[name] = min(1.0, float(chances[n_tasks[name] :].sum()))
    return UseByChance(expected, p, _corrected(p, n_tested), tuple(spread.tolist()))


def connections_by_chance(
    used: Mapping[str, Collection[str]], n: int, seed: int, *, parallel_attn_mlp: bool = False
) -> UseByChance:
    """Compare the number of tasks that use a connection with circuits of the same degrees.

    Args:
        used: Local names of the connections that each task uses, at least one.
        n: Number of circuits to draw for each task.
        seed: Equal seeds give equal numbers, for any names of tasks.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: As from :func:`queries.chance.degrees.draw_circuits`.
    """
    import numpy

    drawn = [
        draw_circuits(used[task], n, seeds, parallel_attn_mlp=parallel_attn_mlp)
        for task, seeds in _seeds(used, seed).items()
    ]
    space = _Space.of(drawn, parallel_attn_mlp=parallel_attn_mlp)
    counts = numpy.stack([space.count(draws) for draws in drawn])
    possible = numpy.stack([space.possible(draws) for draws in drawn])
    expected = counts.sum(0) / n
    chances = number_of_tasks(numpy.where(possible, (counts + 1) / (n + 1), 0.0))
    at_least = numpy.minimum(1.0, chances[::-1].cumsum(0)[::-1])
    n_tasks = _n_tasks(used)
    places = {name: space.place(name) for name in n_tasks}
    p = {name: float(at_least[n_tasks[name], at]) for name, at in places.items()}
    some = possible.any(0)
    return UseByChance(
        expected={name: float(expected[at]) for name, at in places.items()},
        p=p,
        q=_corrected(p, int(some.sum())),
        spread=tuple(number_of_tasks(counts[:, some] / n).sum(1).tolist()),
    )


def number_of_tasks(shares: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Probabilities of each number of independent events.

    Args:
        shares: Probability of each event, ``[task, part]``.

    Returns:
        ``[number, part]``, for numbers from 0 to the number of tasks; columns sum to 1.
    """
    import numpy

    found = numpy.zeros((len(shares) + 1, shares.shape[1]))
    found[0] = 1.0
    for share in shares:
        found[1:] = found[1:] * (1 - share) + found[:-1] * share
        found[0] *= 1 - share
    return found


@dataclass(frozen=True, eq=False)
class _Space:
    """All senders and receivers of some circuits, and which of them the model can connect.

    Attributes:
        senders: Index of each sender, by local name.
        receivers: Index of each receiver, by local name with its port.
        allowed: Whether the model can connect them, ``[sender, receiver]``.
    """

    senders: Mapping[str, int]
    receivers: Mapping[str, int]
    allowed: NDArray[numpy.bool_]

    @classmethod
    def of(cls, drawn: Sequence[Draws], *, parallel_attn_mlp: bool) -> _Space:
        import numpy

        senders = sorted({name for draws in drawn for name in draws.senders})
        receivers = sorted({name for draws in drawn for name in draws.receivers})
        sources = [parse_local(name) for name in senders]
        targets = [parse_connection(f"m/input->{name}") for name in receivers]
        allowed = [
            can_feed(source, one.target, one.port, parallel_attn_mlp=parallel_attn_mlp)
            for source in sources
            for one in targets
        ]
        return cls(
            {name: at for at, name in enumerate(senders)},
            {name: at for at, name in enumerate(receivers)},
            numpy.array(allowed, dtype=bool).reshape(len(senders), len(receivers)),
        )

    def place(self, connection: str) -> int:
        """Index of a connection among all pairs of a sender and a receiver."""
        sender, _, receiver = connection.partition("->")
        return self.senders[sender] * len(self.receivers) + self.receivers[receiver]

    def count(self, draws: Draws) -> NDArray[numpy.int64]:
        """Number of draws that have each connection, by its index."""
        import numpy

        found = numpy.zeros(self.allowed.shape, dtype=numpy.int64)
        shape = len(draws.senders), len(draws.receivers)
        counts = numpy.bincount(draws.cells.ravel(), minlength=shape[0] * shape[1])
        found[self._corner(draws)] = counts.reshape(shape)
        return found.reshape(-1)

    def possible(self, draws: Draws) -> NDArray[numpy.bool_]:
        """Whether a draw could have each connection, by index."""
        import numpy

        found = numpy.zeros_like(self.allowed)
        found[self._corner(draws)] = True
        return (found & self.allowed).reshape(-1)

    def _corner(self, draws: Draws) -> tuple[NDArray[numpy.intp], ...]:
        import numpy

        return numpy.ix_(
            [self.senders[name] for name in draws.senders],
            [self.receivers[name] for name in draws.receivers],
        )


def _n_tasks(used: Mapping[str, Collection[str]]) -> Counter[str]:
    """Number of tasks that use each part."""
    return Counter(name for names in used.values() for name in set(names))


def _seeds(used: Mapping[str, Collection[str]], seed: int) -> Mapping[str, list[int]]:
    """Seeds of each task's draws, by content: independent of the tasks' names and order."""
    found, times = {}, Counter[int]()
    for task, names in used.items():
        digest = hashlib.sha256("\n".join(sorted(set(names))).encode()).digest()
        content = int.from_bytes(digest[:8])
        found[task] = [seed, content, times[content]]  # equal circuits need separate draws
        times[content] += 1
    return found


def _corrected(p: Mapping[str, float], n_tested: int) -> Mapping[str, float]:
    """Adjust p-values; parts without a p-value were tested too, and count with p = 1."""
    if not p:
        return {}
    adjusted = corrected([*p.values(), *[1.0] * (n_tested - len(p))])
    return dict(zip(p, adjusted[: len(p)], strict=True))
