"""A model run with chosen parts replaced: heads, MLPs, norms, neurons, positions, subspaces.

Unlike an edge, a part is replaced for all its readers: its numbers are overwritten where the model
computes them, and everything above is recomputed from them. Many sets of parts are computed at
once. Blocks below the lowest part of a set have the same output as in the clean run. The clean
run's residual stream is kept, so each set needs only the blocks above. Sets that begin at the same
block run in one batch, as many as the given memory allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.part_changes import Changes, Part, PositionNames, ReadPart, read_part
from ingest.discovery.ablation.part_values import (
    Instead,
    PartValues,
    as_ablation,
    pair_up,
    record_values,
)
from ingest.discovery.ablation.replacement import Replacement, check_ablation
from ingest.discovery.ablation.setting import Ready, Setting, in_a_setting
from ingest.discovery.ablation.started_run import Shapes, read_shapes, run_from
from ingest.discovery.model.anatomy import Anatomy
from ingest.discovery.model.batches import PromptBatch, PromptPairs, out_of_memory
from ingest.discovery.model.metrics import Metric, per_prompt
from ingest.discovery.model.sites import INPUT, POSITIONS, stream_hook
from registry.errors import BadInput, NonFiniteScores
from registry.progress import OnProgress

__all__ = ["Part", "PartAblation", "PartEffects", "ablate_parts", "prepare_parts"]

PartSet = Collection[Part | str]
_RUN_BYTES = 2**28
_KEPT_BYTES = 2**31
_SAME = 1e-2
"""Largest difference of logits that rounding explains, also in half precision, as a share of their
norm."""
_COPIES = 12
"""Approximate number of values per token that a block needs at once, divided by the stream's
width."""


@dataclass(frozen=True, eq=False, repr=False)
class PartEffects:
    """The metric with sets of parts ablated.

    Attributes:
        full: Metric of each prompt with nothing ablated, ``[prompt]``, float64.
        ablated: Metric with each set ablated, ``[set, prompt]``, float64, in the given order.
    """

    full: Tensor
    ablated: Tensor

    @property
    def effects(self) -> Tensor:
        """Return how much ablating each set reduces the metric, mean over prompts, ``[set]``.

        Positive: the parts help the metric.
        """
        return (self.full - self.ablated).mean(1)

    def __repr__(self) -> str:
        return f"<PartEffects of {len(self.ablated)} sets on {len(self.full)} prompts>"


@dataclass(eq=False)
class _Kept:
    """Shared data of a batch's runs: the clean run's stream, and replacement values."""

    batch: PromptBatch
    streams: dict[str, Tensor]
    values: dict[str, Tensor]

    def n_bytes(self) -> int:
        held = (*self.streams.values(), *self.values.values())
        return sum(value.numel() * value.element_size() for value in held)


@dataclass(frozen=True, eq=False, repr=False)
class PartAblation:
    """A model, its prompts and an ablation, ready for any number of calls.

    Made by :func:`prepare_parts`. Shared data of runs is computed in the first call and kept for
    the next. As in a setting, it is recomputed, and the structure is proven again, if the model has
    changed in between.

    Attributes:
        setting: The setting, with key/value heads as the model has them.
        anatomy: Anatomy of the model.
        prompts: Clean and corrupt prompts.
        cached: Whether runs start at the lowest changed block; False if the model's blocks cannot
            be skipped, and runs start at the embedding.
        values: Replacement values of parts.
        shapes: Number of values that each block of the model returns.
        positions: Positions by name.
        subspaces: Bases by name.
        size: Prompts in one run.
        run_bytes: Approximate memory of one run.
        kept_bytes: Maximum memory that is kept between calls.
    """

    setting: Setting
    anatomy: Anatomy
    prompts: PromptPairs
    cached: bool
    values: PartValues
    shapes: Shapes
    positions: PositionNames
    subspaces: Mapping[str, Tensor]
    size: int
    run_bytes: int
    kept_bytes: int
    _kept: dict[int, _Kept] = field(default_factory=dict)
    _kept_for: list[object] = field(default_factory=list)

    def __repr__(self) -> str:
        kind, n_prompts = self.values.instead, len(self.prompts)
        return f"<PartAblation of {self.anatomy.name}, {kind}, on {n_prompts} prompts>"

    @property
    def model(self) -> Any:
        """The model, a TransformerLens ``TransformerBridge``."""
        return self.setting.model

    def effects(
        self,
        sets: Sequence[PartSet],
        metric: Metric | None = None,
        progress: OnProgress | None = None,
    ) -> PartEffects:
        """Return the metric with each set of parts ablated, and with nothing ablated.

        Args:
            sets: Sets of parts, as :class:`Part` or by name: ``{"a0.h1", "m2.n17@-1"}``.
            metric: One number per prompt from the logits at its last position; None for the
                setting's metric.
            progress: Called with the number of finished runs of a prompt and the total.

        Raises:
            BadInput: The model has no such part, a position or basis does not fit, or memory is too
                small for one run.
            NonFiniteScores: The metric of a prompt is not finite.
        """
        found = torch.zeros(len(sets) + 1, len(self.prompts), dtype=torch.float64)
        asked = metric or self.setting.metric

        def note(rows: Sequence[int], batch: PromptBatch, logits: Tensor) -> None:
            index = batch.index.repeat(len(rows))
            values = per_prompt(asked, logits.flatten(0, 1), index).double().cpu()
            bad = ~torch.isfinite(values)
            if bool(bad.any()):
                raise NonFiniteScores(int(index[bad][0]))
            found[torch.tensor(rows)[:, None], batch.index] = values.reshape(len(rows), -1)

        self._run([*sets, ()], note, progress)
        return PartEffects(found[-1], found[:-1])

    def logits(self, sets: Sequence[PartSet], progress: OnProgress | None = None) -> Tensor:
        """Return each prompt's last logits with each set ablated, ``[set, prompt, word]``.

        On the CPU, in the model's precision. An empty set gives the clean run's logits.

        Raises:
            BadInput: The model has no such part, a position or basis does not fit, or memory is too
                small for one run.
        """
        n_words = int(self.model.cfg.d_vocab)
        found = torch.zeros(len(sets), len(self.prompts), n_words, dtype=self.anatomy.dtype)

        def note(rows: Sequence[int], batch: PromptBatch, logits: Tensor) -> None:
            found[torch.tensor(rows)[:, None], batch.index] = logits.cpu()

        self._run(sets, note, progress)
        return found

    def _run(
        self,
        sets: Sequence[PartSet],
        note: Callable[[Sequence[int], PromptBatch, Tensor], None],
        progress: OnProgress | None,
    ) -> None:
        parts = self._read(sets)
        names = {place.value for chosen in parts for part in chosen for place in part.places}
        groups = self._by_layer(parts)
        done, total = 0, len(sets) * len(self.prompts)
        with self.setting.at_work() as ready:
            _prove(ready)
            self._forget_if_changed(ready.kept)
            for number, batch in enumerate(self.prompts.batches(self.size, self.anatomy.device)):
                kept = self._shared(number, batch, names)
                changes = Changes(batch, self.prompts, self.positions, kept.values)
                for layer, rows in groups:
                    for chosen, logits in self._side_by_side(kept, changes, parts, layer, rows):
                        note(chosen, batch, logits)
                        done += len(chosen) * len(batch.index)
                        if progress is not None:
                            progress(done, total)

    def _read(self, sets: Sequence[PartSet]) -> list[list[ReadPart]]:
        """Find all parts; a part in many sets is found once."""
        known: dict[Part | str, ReadPart] = {}
        for part in dict.fromkeys(part for chosen in sets for part in chosen):
            known[part] = read_part(self.model, self.anatomy, part, self.subspaces)
        return [[known[part] for part in chosen] for chosen in sets]

    def _by_layer(self, parts: Sequence[Sequence[ReadPart]]) -> list[tuple[int, list[int]]]:
        """Return indices of the sets that begin at each block."""
        n_layers = len(self.anatomy.blocks)
        found: dict[int, list[int]] = defaultdict(list)
        for row, chosen in enumerate(parts):
            lowest = min((part.layer for part in chosen), default=n_layers)
            found[lowest if self.cached else 0].append(row)
        return sorted(found.items())

    def _side_by_side(
        self,
        kept: _Kept,
        changes: Changes,
        parts: Sequence[Sequence[ReadPart]],
        layer: int,
        rows: Sequence[int],
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Run sets that begin at one block; yield their indices, logits ``[set, batch, word]``."""
        n_bytes = _bytes_of_run(self.model, self.anatomy, *kept.batch.clean.shape)
        at_once = max(1, self.run_bytes // n_bytes)
        done = 0
        while done < len(rows):
            chosen = rows[done : done + at_once]
            try:
                logits = self._one_run(kept, changes, [parts[row] for row in chosen], layer)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(chosen) == 1:
                    raise BadInput(
                        f"memory on {self.anatomy.device} is too small for a run of "
                        f"{len(kept.batch.index)} prompts; use a smaller batch_size"
                    ) from error
                at_once = len(chosen) // 2
                continue
            yield chosen, logits
            done += len(chosen)

    def _one_run(
        self, kept: _Kept, changes: Changes, sets: Sequence[Sequence[ReadPart]], layer: int
    ) -> Tensor:
        tokens = kept.batch.clean.repeat(len(sets), 1)
        hooks = changes.hooks(sets)
        if layer == 0:
            logits = self.anatomy.run(self.model, tokens, hooks)
        else:
            logits = run_from(
                self.model, self.anatomy, tokens, hooks, layer=layer,
                stream=kept.streams[stream_hook(self.anatomy, layer)], shapes=self.shapes,
            )  # fmt: skip
        return logits.reshape(len(sets), len(kept.batch.index), -1)

    def _shared(self, number: int, batch: PromptBatch, names: Collection[str]) -> _Kept:
        """Return the shared data of a batch's runs, with at least these values."""
        kept = self._kept.get(number)
        if kept is None:
            streams: dict[str, Tensor] = {}
            if self.cached:
                layers = range(1, len(self.anatomy.blocks) + 1)
                hooks = [stream_hook(self.anatomy, layer) for layer in layers]
                streams = record_values(self.model, self.anatomy, batch.clean, hooks)
            kept = _Kept(batch, streams, {})
        missing = [name for name in names if name not in kept.values]
        if missing:
            found = self.values.of(self.model, self.anatomy, batch, missing)
            kept.values.update(found)
        if INPUT in missing and self.anatomy.learned_positions:
            seen = record_values(self.model, self.anatomy, batch.clean, [INPUT])
            kept.values[POSITIONS] = seen[POSITIONS]
        others = sum(each.n_bytes() for n, each in self._kept.items() if n != number)
        if others + kept.n_bytes() <= self.kept_bytes:
            self._kept[number] = kept
        else:
            self._kept.pop(number, None)
        return kept

    def _forget_if_changed(self, now: object) -> None:
        """Forget kept data unless it is of the same state of the model as the setting's."""
        if not any(one is now for one in self._kept_for):
            self._kept.clear()
            self.values.forget()
            self._kept_for[:] = [now]


@in_a_setting
def prepare_parts(
    setting: Setting,
    *,
    instead: Instead | None = None,
    partners: Sequence[int] | None = None,
    positions: PositionNames | None = None,
    subspaces: Mapping[str, Tensor] | None = None,
    cached: bool = True,
    run_bytes: int = _RUN_BYTES,
    kept_bytes: int = _KEPT_BYTES,
) -> PartAblation:
    """Prepare to ablate parts in a setting.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`. If it does not set the number of
            prompts in one run, ``run_bytes`` limits it.
        instead: Replacement values; None: the setting's ablation. ``zero``; ``mean`` over all
            tokens of its ``reference``; ``mean-by-position``, a mean for each position of
            ``reference``; ``resample``, the value on the corrupt prompt; ``other-prompt``, the
            value on another clean prompt.
        partners: For ``other-prompt``: another prompt of the same length for each prompt. By
            default the next prompt of its length.
        positions: Named positions: one or several for each prompt, counted from its first token.
        subspaces: Directions ``[width, direction]``, orthonormal, by a subspace's name:
            ``l3.resid_post#ndm[2]``.
        cached: Keep the clean run's residual stream and start runs at the lowest changed block.
            False: every run starts at the embedding.
        run_bytes: Approximate memory of one run, for all sets that run in one batch.
        kept_bytes: Maximum memory that is kept between calls; the rest is computed again.

    Raises:
        UnsupportedModel: See ``attribute_edges``.
        BadInput: The setting lacks the prompts that ``instead`` needs, partners are malformed, or
            the reference of ``mean-by-position`` is too short.
        SettingNeeded: The first argument is not a setting.
    """
    kind: Instead = instead or setting.ablation
    prompts, others = setting.inputs.prompts, setting.inputs.reference
    check_ablation(as_ablation(kind), prompts.corrupt, None if others is None else others.clean)
    if kind == "mean-by-position" and others is not None and others.longest < prompts.longest:
        raise BadInput(
            f"the longest prompt has {prompts.longest} tokens and the longest of reference "
            f"{others.longest}, so later positions have no mean; use instead='mean'"
        )
    own = setting.with_own_heads()
    with own.at_work() as ready:
        model, anatomy = ready.model, ready.anatomy
        one = ready.inputs.first().clean
        _prove(ready)
        shapes = read_shapes(model, anatomy, one)
        starts = cached and _starts_anywhere(model, anatomy, one, shapes)
    size = ready.inputs.size
    if size is None:
        of_one = _bytes_of_run(model, anatomy, 1, prompts.longest)
        size = max(1, min(ready.inputs.start, run_bytes // of_one))
    partners = pair_up(prompts, partners) if kind == "other-prompt" else None
    return PartAblation(
        setting=own,
        anatomy=anatomy,
        prompts=prompts,
        cached=starts,
        values=PartValues(kind, prompts, partners, others, size),
        shapes=shapes,
        positions=positions or {},
        subspaces=subspaces or {},
        size=size,
        run_bytes=run_bytes,
        kept_bytes=kept_bytes,
    )


@in_a_setting
def ablate_parts(
    setting: Setting,
    sets: Sequence[PartSet],
    *,
    instead: Instead | None = None,
    partners: Sequence[int] | None = None,
    positions: PositionNames | None = None,
    subspaces: Mapping[str, Tensor] | None = None,
    progress: OnProgress | None = None,
) -> PartEffects:
    """Measure the metric with each of many sets of parts ablated.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        sets: Sets of parts, by name or as :class:`Part`: ``[{"a0.h1", "m2"}, {"m2.n17@-1"}]``.
        instead: Replacement values; this and the next three as for :func:`prepare_parts`.
        partners: For ``other-prompt``.
        positions: Named positions.
        subspaces: Bases by name.
        progress: Called with the number of finished runs of a prompt and the total.

    Raises:
        UnsupportedModel: See ``attribute_edges``.
        BadInput: The model has no such part, or another argument does not fit.
        NonFiniteScores: The metric of a prompt is not finite.
        SettingNeeded: The first argument is not a setting.
    """
    prepared = prepare_parts(
        setting, instead=instead, partners=partners, positions=positions, subspaces=subspaces
    )
    return prepared.effects(sets, progress=progress)


def _prove(ready: Ready) -> None:
    """Prove the structure with whatever prompts there are; parts need no corrupt ones."""
    ready.prove_structure(Replacement("resample", None))


def _bytes_of_run(model: Any, anatomy: Anatomy, n_prompts: int, n_positions: int) -> int:
    """Return the approximate memory of a run."""
    of_tokens = _COPIES * anatomy.d_model + 2 * int(getattr(model.cfg, "d_mlp", 0) or 0)
    scores = 2 * anatomy.space.n_heads * n_positions
    numbers = n_positions * (of_tokens + scores) + 2 * int(model.cfg.d_vocab)
    return int(n_prompts * numbers * anatomy.dtype.itemsize)


def _starts_anywhere(model: Any, anatomy: Anatomy, tokens: Tensor, shapes: Shapes) -> bool:
    """Return whether runs that start at a block equal runs of the whole model."""
    n_layers = len(anatomy.blocks)
    layers = sorted({1, n_layers // 2, n_layers} - {0})
    streams = record_values(
        model, anatomy, tokens, [stream_hook(anatomy, layer) for layer in layers]
    )
    with torch.no_grad():
        whole = anatomy.run(model, tokens, [])
        for layer in layers:
            started = run_from(
                model, anatomy, tokens, [], layer=layer,
                stream=streams[stream_hook(anatomy, layer)], shapes=shapes,
            )  # fmt: skip
            if not float((started - whole).norm()) <= _SAME * float(whole.norm()):
                return False
    return True
