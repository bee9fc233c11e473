"""A model's activations at chosen sites over prompts or texts, in memory or on disk.

On disk they are in shards, a few sites of one layer over some prompts each, and the activations in
memory at once stay within a budget. Their name is a hash of their inputs (weights, sites, tokens,
precision), so a second run with the same inputs finds them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.inputs import read_inputs
from ingest.discovery.ablation.replacement import Replacement
from ingest.discovery.ablation.structure import prove_structure
from ingest.discovery.activations.files import (
    Manifest,
    Shard,
    find_manifest,
    finish,
    writing,
)
from ingest.discovery.model.anatomy import Anatomy, Hook, frozen
from ingest.discovery.model.batches import PromptBatch, PromptPairs
from ingest.discovery.model.sites import INPUT, POSITIONS, Place, heads_side_by_side, places_of
from ingest.discovery.model.texts import Prompts
from ingest.discovery.model.weights import weights_sha256
from registry.errors import BadInput, NotFound, UnsupportedModel
from registry.progress import OnProgress

__all__ = ["Activations", "Piece", "open_activations", "record_activations"]

_MEMORY_BYTES = 2**30
_SHARES = 4
"""Parts of the budget: data waiting to be written, a batch, a joined layer, its file."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A site's activations over some prompts.

    Attributes:
        prompts: Indices of the prompts, counted from 0.
        values: Values of their tokens, one prompt after the other, ``[token, width]``.
    """

    prompts: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Activations of sites over prompts, without padding.

    Attributes:
        sites: Names.
        lengths: Number of tokens of each prompt.
        sha256: Hash of all values; equal for a second run on the same machine.
        key: Hash of weights, sites, tokens and precision; None if they were kept in memory.
        folder: Folder of the shards; None in memory.
    """

    sites: tuple[str, ...]
    lengths: tuple[int, ...]
    sha256: str
    key: str | None
    folder: Path | None
    _sources: tuple[Shard | _Held, ...] = field(default=())

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"<Activations of {len(self.sites)} sites on {len(self.lengths)} prompts {where}>"

    def pieces(self, site: str) -> Iterator[Piece]:
        """Yield a site's values, shard by shard; short prompts first.

        Raises:
            NotFound: The site was not requested.
            ArtifactCorrupt: A shard has changed since it was written.
        """
        for source in self._holding(site):
            yield Piece(source.prompts, source.load(self.folder or Path())[site])

    def _holding(self, site: str) -> Iterator[Shard | _Held]:
        if site not in self.sites:
            raise NotFound("activations of", site, f"kept are those of {', '.join(self.sites)}")
        yield from (source for source in self._sources if site in source.sites)

    def of(self, site: str) -> Tensor:
        """Return a site's values of all tokens, prompts in the given order, ``[token, width]``."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).tolist()
        found: Tensor | None = None
        for piece in self.pieces(site):
            if found is None:
                found = piece.values.new_empty(starts[-1], piece.values.shape[1])
            for prompt, values in self._apart(piece):
                found[starts[prompt] : starts[prompt + 1]] = values
        assert found is not None
        return found

    def of_prompt(self, site: str, prompt: int) -> Tensor:
        """Return a site's values of one prompt, ``[pos, width]``."""
        for source in self._holding(site):
            if prompt in source.prompts:
                values = source.load(self.folder or Path())[site]
                return dict(self._apart(Piece(source.prompts, values)))[prompt]
        raise NotFound("prompt", str(prompt), f"they are 0 to {len(self.lengths) - 1}")

    def _apart(self, piece: Piece) -> Iterator[tuple[int, Tensor]]:
        sizes = [self.lengths[prompt] for prompt in piece.prompts]
        return zip(piece.prompts, torch.split(piece.values, sizes), strict=True)


@dataclass(frozen=True, eq=False)
class _Held:
    """The content of a shard, in memory."""

    sites: tuple[str, ...]
    prompts: tuple[int, ...]
    tensors: Mapping[str, Tensor]

    def load(self, folder: Path) -> Mapping[str, Tensor]:  # noqa: ARG002  as a shard is asked
        return self.tensors


def record_activations(
    model: Any,
    prompts: Prompts,
    sites: Sequence[str],
    *,
    folder: str | Path | None = None,
    dtype: torch.dtype | None = None,
    memory_bytes: int = _MEMORY_BYTES,
    disk_bytes: int | None = None,
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    progress: OnProgress | None = None,
) -> Activations:
    """Run a model and keep its activations at some sites.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        prompts: Texts, or token ids ``[prompt, position]``.
        sites: Names: ``l3.resid_post``, ``m2.hidden``, ``a0.h1.z``, ``a0.kv1.k``, ``l1.attn_out``;
            also ``input``, a head (its z), an MLP (its output), a neuron, a norm (its output).
        folder: Folder in which they are kept, under their key. If they exist and are complete,
            nothing is run; damaged or incomplete ones are recomputed. None: in memory.
        dtype: Precision in which they are kept; None: the model's.
        memory_bytes: Maximum size in memory at once; without ``folder``, of all activations.
        disk_bytes: Maximum size on disk; None: no limit.
        batch_size: Prompts per batch; None: as memory allows.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        progress: Called after each batch with the number of finished prompts and the total, over
            all layers' runs.

    Raises:
        UnsupportedModel: See ``attribute_edges``; or a site does not have a value for every token.
        BadInput: The model has no such site, prompts are malformed, or a budget is too small.
        StorageError: The folder cannot be written to.
    """
    inputs = read_inputs(
        model, prompts, None, ablation="zero", reference=None, kv_heads="grouped",
        batch_size=batch_size, attention_mask=attention_mask, reference_mask=None,
    )  # fmt: skip
    anatomy = inputs.anatomy
    places = _places(model, anatomy, sites)
    run = _Run(
        model, anatomy, inputs.prompts, places, dtype or anatomy.dtype, memory_bytes,
        batch_size or inputs.start, progress,
    )  # fmt: skip
    run.check_budgets(disk_bytes if folder is not None else memory_bytes, in_memory=folder is None)
    if folder is None:
        held: list[_Held] = []

        def hold(layer: int, chosen: Sequence[int], tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG001
            held.append(_Held(tuple(tensors), tuple(chosen), tensors))

        sha256 = run.record(hold)
        return Activations(tuple(places), inputs.prompts.lengths, sha256, None, None, tuple(held))
    key = _key(model, inputs.prompts, tuple(places), anatomy.dtype, run.dtype)
    target = Path(folder) / key
    kept = find_manifest(target, key)
    if kept is not None:
        return _opened(target, kept)
    with writing(Path(folder), key) as (writer, unfinished):
        sha256 = run.record(writer.write)
        shards = tuple(writer.shards)
        made = Manifest(key, sha256, tuple(places), inputs.prompts.lengths, shards)
        finish(unfinished, target, made)
    return open_activations(target)


def open_activations(folder: str | Path) -> Activations:
    """Read kept activations from the folder that is named by their key.

    Raises:
        NotFound: There are none, or they are damaged or incomplete.
    """
    found = find_manifest(Path(folder))
    if found is None:
        raise NotFound("whole set of activations", str(folder))
    return _opened(Path(folder), found)


def _opened(folder: Path, found: Manifest) -> Activations:
    return Activations(found.sites, found.lengths, found.sha256, found.key, folder, found.shards)


def _places(model: Any, anatomy: Anatomy, sites: Sequence[str]) -> dict[str, Place]:
    if isinstance(sites, str) or not sites:
        raise BadInput(f"sites must be a list of names such as 'l0.resid_post'; got {sites!r}")
    found: dict[str, Place] = {}
    for site in sites:
        places = places_of(model, anatomy, site)
        if len(places) > 1:
            raise BadInput(f"{site} is keys and values; name only one site: {site}.k or {site}.v")
        found[site] = places[0]
    return found


def _key(
    model: Any,
    prompts: PromptPairs,
    sites: Sequence[str],
    computed: torch.dtype,
    kept: torch.dtype,
) -> str:
    """Return the hash of the inputs of activations."""
    tokens = hashlib.sha256()
    for start, length, row in zip(prompts.starts, prompts.lengths, prompts.clean, strict=True):
        tokens.update(f"{length} {row[start : start + length].tolist()}\n".encode())
    made_from = {
        "weights": weights_sha256(model),
        "tokens": tokens.hexdigest(),
        "sites": list(sites),
        "computed": str(computed),
        "kept": str(kept),
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


_Keep = Callable[[int, Sequence[int], Mapping[str, Tensor]], None]


@dataclass(frozen=True, eq=False)
class _Run:
    """Runs prompts and passes on the values of sites, layer by layer, within a memory budget."""

    model: Any
    anatomy: Anatomy
    prompts: PromptPairs
    places: Mapping[str, Place]
    dtype: torch.dtype
    memory_bytes: int
    size: int
    progress: OnProgress | None

    def check_budgets(self, most: int | None, *, in_memory: bool) -> None:
        """Refuse activations that do not fit, before anything is run."""
        n_bytes = sum(self.prompts.lengths) * self._token_bytes(self.places)
        if most is not None and n_bytes > most:
            remedy = "give a folder, fewer sites" if in_memory else "ask for fewer sites"
            raise BadInput(
                f"these activations take {n_bytes} bytes, but {most} are allowed; {remedy}, fewer "
                "prompts or a narrower dtype"
            )
        if in_memory:
            return
        for layer, sites in self._by_layer().items():
            needed = _SHARES * self.prompts.longest * self._token_bytes(sites)
            if needed > self.memory_bytes:
                raise BadInput(
                    f"the sites of layer {layer} over one prompt of {self.prompts.longest} tokens "
                    f"need {needed} bytes of memory, but {self.memory_bytes} are allowed"
                )

    def record(self, keep: _Keep) -> str:
        """Run everything; return the hash of all values."""
        hashes = {site: hashlib.sha256() for site in self.places}
        groups = list(self._groups())
        done, total = 0, len(groups) * len(self.prompts)
        with frozen(self.model), torch.no_grad():
            one = self.prompts.batch([0], self.anatomy.device)
            prove_structure(self.model, self.anatomy, one, Replacement("resample", None))
            for layers in groups:
                sites = {site: self.places[site] for names in layers.values() for site in names}
                waiting = _Waiting(layers, hashes, keep)
                room = self.memory_bytes // _SHARES
                for batch in self._batches(room // self._token_bytes(sites)):
                    n_bytes = batch.clean.numel() * self._token_bytes(sites)
                    if waiting.n_bytes + n_bytes > room:
                        waiting.flush()
                    values = _record(self.model, self.anatomy, batch.clean, sites, self.dtype)
                    waiting.add(batch, values, n_bytes)
                    done += len(batch.index)
                    if self.progress is not None:
                        self.progress(done, total)
                waiting.flush()
        kind = str(self.dtype).removeprefix("torch.")
        lines = [f"{site} {kind} {found.hexdigest()}\n" for site, found in hashes.items()]
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    def _batches(self, n_tokens: int) -> Iterator[PromptBatch]:
        """Yield prompts of one length, at most this many tokens together, or a single prompt."""
        for members in self.prompts.groups():
            length = self.prompts.lengths[members[0]]
            size = max(1, min(self.size, n_tokens // length))
            for first in range(0, len(members), size):
                yield self.prompts.batch(members[first : first + size], self.anatomy.device)

    def _groups(self) -> Iterator[dict[int, list[str]]]:
        """Yield layers that are recorded together: as many as fit for one prompt's values."""
        room = self.memory_bytes // _SHARES
        group: dict[int, list[str]] = {}
        for layer, sites in self._by_layer().items():
            together = [site for names in (*group.values(), sites) for site in names]
            if group and self.prompts.longest * self._token_bytes(together) > room:
                yield group
                group = {}
            group[layer] = sites
        yield group

    def _by_layer(self) -> dict[int, list[str]]:
        n_layers = len(self.anatomy.blocks)
        found: dict[int, list[str]] = {}
        for site in self.places:
            number = re.search(r"\d+", site)
            layer = int(number[0]) if number else 0 if site == INPUT else n_layers
            found.setdefault(layer, []).append(site)
        return dict(sorted(found.items()))

    def _token_bytes(self, sites: Sequence[str] | Mapping[str, Place]) -> int:
        return sum(self.places[site].width for site in sites) * self.dtype.itemsize


class _Waiting:
    """Values that wait to be passed on."""

    def __init__(self, layers: Mapping[int, Sequence[str]], hashes: Any, keep: _Keep) -> None:
        self._layers, self._hashes, self._keep = layers, hashes, keep
        self._prompts: list[int] = []
        self._values: dict[str, list[Tensor]] = {}
        self.n_bytes = 0

    def add(self, batch: PromptBatch, values: Mapping[str, Tensor], n_bytes: int) -> None:
        """Add a batch's values, ``[token, width]`` each."""
        self._prompts += batch.index.tolist()
        self.n_bytes += n_bytes
        for site, value in values.items():
            self._hashes[site].update(value.view(torch.uint8).numpy().data)
            self._values.setdefault(site, []).append(value)

    def flush(self) -> None:
        """Pass on the waiting values, layer by layer."""
        for layer, sites in self._layers.items() if self._prompts else ():
            self._keep(
                layer, self._prompts, {site: torch.cat(self._values.pop(site)) for site in sites}
            )
        self._prompts, self.n_bytes = [], 0


def _record(
    model: Any, anatomy: Anatomy, tokens: Tensor, sites: Mapping[str, Place], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Run prompts; return each site's values on the CPU, ``[token, width]``."""
    found: dict[str, Tensor] = {}
    learned: list[Tensor] = []
    by_hook: dict[str, dict[str, Place]] = {}
    for site, place in sites.items():
        by_hook.setdefault(place.hook, {})[site] = place
    hooks = [
        (hook, _seeing(found, chosen, tokens, dtype, learned)) for hook, chosen in by_hook.items()
    ]
    if anatomy.learned_positions and any(place.value == INPUT for place in sites.values()):
        hooks.append((POSITIONS, _noting(learned)))
    anatomy.run(model, tokens, hooks)
    if missing := sorted(set(sites) - set(found)):
        raise UnsupportedModel(f"{anatomy.name} does not show {missing[0]} for every token")
    return found


def _seeing(
    found: dict[str, Tensor],
    chosen: Mapping[str, Place],
    tokens: Tensor,
    dtype: torch.dtype,
    learned: Sequence[Tensor],
) -> Hook:
    def see(value: Tensor, hook: object) -> None:  # noqa: ARG001
        if value.numel() % tokens.numel():
            return
        by_head = any(place.heads_first for place in chosen.values())
        turned = heads_side_by_side(value.detach(), heads_first=by_head)
        apart = turned.reshape(*tokens.shape, -1)
        for site, place in chosen.items():
            own = apart - learned[0] if place.value == INPUT and learned else apart
            kept = own[..., place.columns].flatten(0, 1)
            found[site] = kept.to("cpu", dtype, copy=True).contiguous()

    return see


def _noting(learned: list[Tensor]) -> Hook:
    def note(value: Tensor, hook: object) -> None:  # noqa: ARG001
        learned.append(value.detach())

    return note
