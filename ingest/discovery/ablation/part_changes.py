"""Replacing chosen parts of many runs at once: the numbers, the positions and the hooks.

The prompts of a batch are repeated for each set of parts, and all run together: row
``i * batch + j`` is prompt ``j`` with set ``i`` replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.batches import PromptBatch, PromptPairs
from ingest.discovery.model.sites import INPUT, POSITIONS, Place, heads_side_by_side, places_of
from registry.errors import BadInput

__all__ = ["Changes", "Part", "PositionNames", "ReadPart", "read_part"]

At = int | str | None
PositionNames = Mapping[str, Sequence[int | Sequence[int]]]
"""Positions by name: one or several per prompt, counted from its first token."""
_ORTHONORMAL = 1e-3
_SAME_SPAN = 1e-6


@dataclass(frozen=True, eq=False)
class Part:
    """A part to be ablated.

    Attributes:
        name: A component (``a0.h1``, ``a0.kv1``, ``m2``, ``m2.n17``, ``input``), a norm
            (``l2.ln1``, ``ln_final``), meaning its output, or a site (``l3.resid_post``).
        at: One position: a number, counted from the first token, or from the last if it is
            negative; or the name of positions that differ between prompts. None: all.
        basis: Orthonormal directions ``[width, direction]`` of the subspace, if only it is
            replaced. None: everything at that site.
    """

    name: str
    at: At = None
    basis: Tensor | None = None

    def __repr__(self) -> str:
        where = "" if self.at is None else f"@{self.at}"
        span = "" if self.basis is None else f", {self.basis.shape[-1]} directions of it"
        return f"<Part {self.name}{where}{span}>"


@dataclass(frozen=True, eq=False)
class ReadPart:
    """A part whose sites in the model are known."""

    places: tuple[Place, ...]
    at: At
    basis: Tensor | None

    @property
    def layer(self) -> int:
        """The lowest block whose output changes when the part is ablated."""
        return min(place.layer for place in self.places)


def read_part(
    model: Any, anatomy: Anatomy, part: Part | str, subspaces: Mapping[str, Tensor]
) -> ReadPart:
    """Find the sites of a part, which is given as an object or by its name.

    Examples of names: ``a0.h1``, ``m2@subject``, ``l3.resid_post#ndm[2]@-1``.

    Raises:
        BadInput: There is no such part, or its basis does not fit this site.
    """
    if isinstance(part, str):
        name, _, at = part.partition("@")
        basis = subspaces.get(name)
        if basis is None and "#" in name:
            raise BadInput(f"{name!r} is not among subspaces; give its directions there")
        place = int(at) if at.removeprefix("-").isdecimal() else at or None
        part = Part(name.partition("#")[0], place, basis)
    places = places_of(model, anatomy, part.name)
    if part.basis is not None:
        _check_basis(part.name, part.basis, places)
    return ReadPart(places, part.at, part.basis)


def _check_basis(name: str, basis: Tensor, places: Sequence[Place]) -> None:
    if len(places) > 1:
        raise BadInput(f"{name} is keys and values; name only one site: {name}.k or {name}.v")
    width = places[0].width
    if basis.ndim != 2 or basis.shape[0] != width or not 1 <= basis.shape[1] <= width:
        raise BadInput(
            f"a basis at {name} must be [{width}, direction], with at most {width} directions; got "
            f"{list(basis.shape)}"
        )
    wide = basis.detach().double().cpu()
    off = float((wide.mT @ wide - torch.eye(wide.shape[1], dtype=wide.dtype)).abs().max())
    if not off <= _ORTHONORMAL:
        raise BadInput(
            f"the basis at {name} is not orthonormal: its inner products differ by {off:.3g}; "
            "torch.linalg.qr(basis).Q spans the same space"
        )


@dataclass(frozen=True, eq=False)
class Changes:
    """The hooks of a batch's run with several sets replaced.

    Attributes:
        batch: The clean prompts.
        prompts: All prompts, for positions counted from the end.
        names: Positions by name.
        values: Replacement values by name; an axis of prompts or positions that share a value has
            length 1.
    """

    batch: PromptBatch
    prompts: PromptPairs
    names: PositionNames
    values: Mapping[str, Tensor]
    _masks: dict[At, Tensor] = field(default_factory=dict)

    def hooks(self, sets: Sequence[Sequence[ReadPart]]) -> list[tuple[str, Hook]]:
        """Return the hooks of a run of the batch, once per set."""
        by_place: dict[tuple[str, str], list[tuple[int, Place, ReadPart]]] = defaultdict(list)
        carried: dict[tuple[str, str], str | None] = {}
        for row, parts in enumerate(sets):
            for part in parts:
                for place in part.places:
                    by_place[place.hook, place.value].append((row, place, part))
                    carried[place.hook, place.value] = place.carried
        hooks, later = [], []
        # ``input`` and the residual stream before the first block share a hook point, in this
        # order.
        for key in sorted(by_place, key=lambda key: key[1] != INPUT):
            change = self._change(by_place[key], key[1], len(sets))
            if (carry := carried[key]) is None:
                hooks.append((key[0], _put(change)))
            else:
                reading, adding = _put_and_carry(change)
                hooks.append((key[0], reading))
                later.append((carry, adding))
        return [*hooks, *later]  # an MLP's output is replaced before anything is added to it

    def _change(
        self, chosen: Sequence[tuple[int, Place, ReadPart]], name: str, n_sets: int
    ) -> _Change:
        columns: dict[At, list[tuple[int, slice]]] = defaultdict(list)
        bases: dict[tuple[int, At, int, int], list[Tensor]] = defaultdict(list)
        for row, place, part in chosen:
            if part.basis is None:
                columns[part.at].append((row, place.columns))
            else:
                bases[row, part.at, place.columns.start, place.columns.stop].append(part.basis)
        return _Change(
            n_sets,
            tuple(self.batch.clean.shape),
            chosen[0][1].heads_first,
            self._instead(name),
            [(self._mask(at), found) for at, found in columns.items()],
            [
                (row, self._mask(at), slice(start, stop), _joined(found))
                for (row, at, start, stop), found in bases.items()
            ],
        )

    def _instead(self, name: str) -> Tensor:
        value = self.values[name]
        if name == INPUT and POSITIONS in self.values:
            return value + self.values[POSITIONS]
        return value

    def _mask(self, at: At) -> Tensor | None:
        """Return where a part is replaced, ``[batch, pos]``; None: everywhere."""
        if at is None:
            return None
        if at not in self._masks:
            self._masks[at] = self._read_mask(at)
        return self._masks[at]

    def _read_mask(self, at: int | str) -> Tensor:
        mask = torch.zeros(self.batch.clean.shape, dtype=torch.bool)
        for row, prompt in enumerate(self.batch.index.tolist()):
            for position in self._positions(at, prompt):
                n_positions = mask.shape[1]
                if not -n_positions <= position < n_positions:
                    raise BadInput(
                        f"prompt {prompt} (counted from 0) has {n_positions} tokens and no "
                        f"position {position}"
                    )
                mask[row, position] = True
        return mask

    def _positions(self, at: int | str, prompt: int) -> Sequence[int]:
        if isinstance(at, int):
            return (at,)
        if at not in self.names:
            known = ", ".join(sorted(self.names)) or "none"
            raise BadInput(f"no positions are named {at!r}; the names are: {known}")
        of_prompts = self.names[at]
        if len(of_prompts) != len(self.prompts):
            raise BadInput(
                f"positions {at!r} are given for {len(of_prompts)} prompts, but there are "
                f"{len(self.prompts)}"
            )
        found = of_prompts[prompt]
        return (found,) if isinstance(found, int) else found


@dataclass(frozen=True, eq=False)
class _Change:
    """The replacement in the value of one hook point.

    Attributes:
        n_sets: Number of sets that run in one batch.
        shape: Prompts and positions of the batch.
        heads_first: Whether the value has heads before positions.
        instead: Replacement values, ``[batch or 1, pos or 1, width or 1]``.
        columns: The replaced numbers of each set, by positions.
        subspaces: Set, positions, numbers and the replaced directions within them.
    """

    n_sets: int
    shape: tuple[int, ...]
    heads_first: bool
    instead: Tensor
    columns: Sequence[tuple[Tensor | None, Sequence[tuple[int, slice]]]]
    subspaces: Sequence[tuple[int, Tensor | None, slice, Tensor]]

    def __call__(self, value: Tensor) -> Tensor:
        """Return the value with all replacements."""
        turned = heads_side_by_side(value, heads_first=self.heads_first)
        found = turned.reshape(self.n_sets, *self.shape, -1)
        instead = self.instead.to(value.device, value.dtype)
        for mask, chosen in self.columns:
            where = _marked(self.n_sets, found.shape[-1], chosen)
            put = where[:, None, None].to(value.device)
            if mask is not None:
                put = put & mask[None, ..., None].to(value.device)
            found = torch.where(put, instead, found)
        if self.subspaces:
            found = found.clone(memory_format=torch.contiguous_format)
        for row, mask, columns, basis in self.subspaces:
            part = found[row, ..., columns]
            wide = torch.promote_types(value.dtype, torch.float32)
            directions = basis.to(value.device, wide)
            other = instead.expand(*instead.shape[:2], found.shape[-1])[..., columns]
            moved = ((other - part).to(wide) @ directions) @ directions.mT
            if mask is not None:
                moved = moved * mask[..., None].to(value.device)
            found[row, ..., columns] = (part.to(wide) + moved).to(value.dtype)
        return heads_side_by_side(found.reshape(turned.shape), heads_first=self.heads_first)


def _marked(n_sets: int, width: int, chosen: Sequence[tuple[int, slice]]) -> Tensor:
    """Return which numbers of each set are chosen, ``[set, width]``."""
    where = torch.zeros(n_sets, width, dtype=torch.bool)
    single = [(row, columns.start) for row, columns in chosen if columns.stop - columns.start == 1]
    if single:  # there may be thousands of neurons
        rows, numbers = torch.tensor(single).unbind(1)
        where[rows, numbers] = True
    for row, columns in chosen:
        if columns.stop - columns.start > 1:
            where[row, columns] = True
    return where


def _put(change: _Change) -> Hook:
    def put(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return change(value)

    return put


def _put_and_carry(change: _Change) -> tuple[Hook, Hook]:
    """Return a hook that replaces a branch's input, and one that changes the stream equally."""
    moved: list[Tensor] = []

    def read(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        changed = change(value)
        moved.append(changed - value)
        return changed

    def add(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return value + moved.pop().to(value.device).reshape(value.shape)

    return read, add


def _joined(bases: Sequence[Tensor]) -> Tensor:
    """Return an orthonormal basis of the joint span of several bases."""
    if len(bases) == 1:
        return bases[0].detach()
    together = torch.cat([basis.detach().double().cpu() for basis in bases], 1)
    directions, sizes, _ = torch.linalg.svd(together, full_matrices=False)
    spanning: Tensor = directions[:, sizes > _SAME_SPAN]
    return spanning
