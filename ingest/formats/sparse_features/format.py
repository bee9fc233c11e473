"""Sparse feature circuits: ``.pt`` files of saprmarks/feature-circuits (Marks et al. 2024).

``{"examples": [...], "nodes": {"attn_0": SparseAct(act, res, resc), ...}, "edges": {source:
{target: tensor}} or None}``. Effects are indirect effects, signed, per position or summed over
positions. The file has them for every unit, so it does not define a circuit: the user gives the
number of units (``--top``) or the smallest size (``--threshold``), and the edges are the file's
edges between these units. All effects are kept as an artifact.

Units are features of a dictionary at a site, ``l5.resid_post.f3036#DICTIONARY``, with the
dictionary's error as ``l5.resid_post.error#DICTIONARY``; ``attn_5`` is ``l5.attn_out``, ``mlp_5``
``l5.mlp_out``, ``resid_5`` ``l5.resid_post``, ``embed`` ``l0.resid_pre``. The tool also runs on the
activations themselves, which it calls neurons: these are coordinates of the sites' own basis,
``l5.mlp_out.f7#neurons``, and not the neurons inside an MLP (``m5.n7``). For Gemma, the tool's
output of attention is the concatenation of the heads' outputs before the output projection. The
number of such units differs from the residual stream's, and a note reports this.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.formats.base import Context, Imported, Limits, Said
from ingest.formats.building import edge_circuit, negative_size, stored_sign
from ingest.formats.choosing import is_asked, notes_on_count
from ingest.formats.sparse_features.file import (
    OUTPUT,
    Block,
    SparseFile,
    Submodule,
    read_sparse_features,
)
from registry.canonical import canonical_json
from registry.errors import BadInput
from registry.identifiers import node_key
from registry.records import Circuit, Edge, Level, Node, PromptSet, Task

if TYPE_CHECKING:
    import numpy

__all__ = ["FORMAT", "METHOD", "NEURONS", "SparseFeatures"]

METHOD = "sparse-feature-circuit"
NEURONS = "neurons"
_EFFECTS = "circuits-unit-effects/1"
_TEXTS = "circuits-texts/1"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)


class SparseFeatures:
    """The format."""

    name = "sparse-features"
    summary = "sparse feature circuits .pt, with or without edges (needs torch)"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if the tool's class or its prompts are named; nothing is unpickled for this."""
        if path.suffix.lower() not in {".pt", ".pth"} or not head.startswith(b"PK\x03\x04"):
            return 0.0
        return 0.95 if b"SparseAct" in head or b"clean_prefix" in head else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a circuit of the units and edges that the user requests."""
        said = context.said
        _check_said(said, path.name)
        file = read_sparse_features(path, context.limits)
        basis = _basis(file, said)
        chosen = _Chosen(file, said)
        effects = _effects_file(file, basis, said)
        prompts, texts = _prompts(file, said)
        edges = chosen.edges(basis, path.name, context.limits)
        circuit = _circuit(file, chosen, edges, basis, effects, prompts, said)
        return Imported(
            [circuit],
            tasks=[] if prompts is None else [Task(slug=prompts.task, family=_family(prompts))],
            prompt_sets=[] if prompts is None else [prompts],
            artifacts=[effects, *([] if texts is None else [texts])],
            notes=[
                *_notes(file, chosen, basis),
                *notes_on_count(len(chosen.units), said.top, "unit"),
            ],
        )


FORMAT = SparseFeatures()


def _check_said(said: Said, name: str) -> None:
    """Check that required facts are given, before a large file is read."""
    said.need("model", "task")
    if not is_asked(said):
        raise BadInput(
            f"{name} has an effect for every unit: give a number of units with --top N or a"
            " smallest size with --threshold X"
        )


def _basis(file: SparseFile, said: Said) -> str:
    """Return the name of the units' dictionary; the file has no name for it.

    Raises:
        BadInput: The user must give it, or the given name is not possible in the grammar.
    """
    name = said.dictionary or (NEURONS if file.neurons else said.need("dictionary"))
    if not _WORD.fullmatch(name):
        raise BadInput(
            f"the dictionary {name!r} is no name of letters, digits, '.', '_' and '-'; use those"
        )
    return name


def _family(prompts: PromptSet) -> str:
    return prompts.task.partition("/")[0]


# -- selected units --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    """One selected unit; ``unit`` is None for a dictionary's error."""

    site: str
    position: str | None
    unit: int | None
    effect: float

    def component(self, basis: str) -> str:
        """Return its local name."""
        what = "error" if self.unit is None else f"f{self.unit}"
        return f"{self.site}.{what}#{basis}"


def _check_sizes(file: SparseFile) -> None:
    """Refuse negative effects if the user gives them as unsigned.

    Raises:
        BadInput: There is a negative effect.
    """
    import numpy as np

    for module in file.submodules.values():
        for row, unit in np.argwhere(module.effects < 0)[:1].tolist():
            what = f"{module.name}, position {row}, unit {unit}"
            raise negative_size(float(module.effects[row, unit]), what)
    for block in file.blocks or ():
        if (block.effects < 0).any():
            raise negative_size(
                float(block.effects.min()), f"an edge from {block.source} to {block.target}"
            )


class _Chosen:
    """The units that form the circuit, strongest first, and edges between them."""

    def __init__(self, file: SparseFile, said: Said) -> None:
        import numpy as np

        self._file = file
        self.n_odd_edges = 0
        self._turned = -1.0 if said.sign == "hurts-positive" else 1.0
        modules = list(file.submodules.values())
        values = np.concatenate([module.effects.ravel() for module in modules])
        if said.sign == "unsigned":
            _check_sizes(file)
        sizes = np.nan_to_num(np.abs(values), nan=0.0)
        places = np.flatnonzero(sizes > 0)
        if said.threshold is not None:
            places = places[sizes[places] >= said.threshold]
        places = places[np.argsort(-sizes[places], kind="stable")][: said.top]
        starts = np.cumsum([0, *(module.effects.size for module in modules)])
        of_module = np.searchsorted(starts, places, side="right") - 1
        inside = places - starts[of_module]
        self.units = [
            self._unit(modules[module], int(at))
            for module, at in zip(of_module.tolist(), inside.tolist(), strict=True)
        ]
        self._masks = {module.name: np.zeros(module.effects.shape, bool) for module in modules}
        for module, at in zip(of_module.tolist(), inside.tolist(), strict=True):
            self._masks[modules[module].name].flat[at] = True

    def _unit(self, module: Submodule, at: int) -> _Unit:
        row, unit = divmod(at, module.effects.shape[1])
        last = unit == module.effects.shape[1] - 1
        return _Unit(
            module.site,
            None if self._file.positions is None else str(row),
            None if last else unit,
            self._turned * float(module.effects[row, unit]),
        )

    def edges(self, basis: str, name: str, limits: Limits) -> list[Edge]:
        """Return the file's edges between selected units, strongest first."""
        found: dict[tuple[str, str], float] = {}
        for block in self._file.blocks or ():
            for row, unit, to_row, to_unit, effect in self._rows(block):
                target = self._key(block.target, to_row, to_unit, basis)
                key = self._key(block.source, row, unit, basis), target
                found[key] = found.get(key, 0.0) + self._turned * effect
                if len(found) > limits.max_edges:
                    raise BadInput(
                        f"{name} has more than {limits.max_edges:,} edges between selected units;"
                        " --max-edges allows more, or select fewer units"
                    )
        ordered = sorted(found.items(), key=lambda item: (-abs(item[1]), item[0]))
        return [
            Edge(source=source, target=target, effect=effect, rank=rank)
            for rank, ((source, target), effect) in enumerate(ordered, 1)
        ]

    def _rows(self, block: Block) -> list[tuple[int, int, int, int, float]]:
        import numpy as np

        ends, effects = block.ends, block.effects.astype(np.float64)
        kept = self._masks[block.source][ends[:, 0], ends[:, 1]]
        if block.target != OUTPUT:
            kept = kept & self._masks[block.target][ends[:, 2], ends[:, 3]]
        odd = kept & ~np.isfinite(effects)
        self.n_odd_edges += int(odd.sum())
        kept = kept & ~odd & (effects != 0)
        return [
            (*row, effect)
            for row, effect in zip(ends[kept].tolist(), effects[kept].tolist(), strict=True)
        ]

    def _key(self, name: str, row: int, unit: int, basis: str) -> str:
        if name == OUTPUT:
            return "logits"
        module = self._file.submodules[name]
        one = self._unit(module, row * module.effects.shape[1] + unit)
        return node_key(one.component(basis), one.position)


def _circuit(
    file: SparseFile,
    chosen: _Chosen,
    edges: Sequence[Edge],
    basis: str,
    effects: bytes,
    prompts: PromptSet | None,
    said: Said,
) -> Circuit:
    nodes = [
        Node(component=unit.component(basis), position=unit.position, effect=unit.effect, rank=rank)
        for rank, unit in enumerate(chosen.units, 1)
    ]
    if any(edge.target == "logits" for edge in edges):
        nodes.append(Node(component="logits"))
    rule = {"top": said.top} if said.top is not None else {"threshold": said.threshold}
    return edge_circuit(
        said,
        edges,
        nodes=tuple(nodes),
        level=Level.NEURON if file.neurons else Level.FEATURE,
        method=said.method or METHOD,
        prompt_set=None if prompts is None else prompts.id,
        parameters={
            "aggregation": "sum" if file.positions is None else "none",
            "units": "neurons" if file.neurons else "features",
            "n_examples": len(file.examples),
        },
        selection={**rule, "of": "units", "by": "absolute"},
        universe_size=_n_values(file),
        scores=hashlib.sha256(effects).hexdigest(),
    )


# -- data that is kept with the circuit ------------------------------------------------------------


def _units(module: Submodule, file: SparseFile) -> numpy.ndarray[Any, Any]:
    """Return its effects, without dictionary errors if there is no dictionary."""
    return module.effects[:, :-1] if file.neurons else module.effects


def _n_values(file: SparseFile) -> int:
    return sum(_units(module, file).size for module in file.submodules.values())


def _effects_file(file: SparseFile, basis: str, said: Said) -> bytes:
    """Return all effects as safetensors, a tensor ``[position, unit]`` per site.

    The last unit is the error of the dictionary, unless units are neurons. NaN: not given.
    """
    import numpy as np
    from safetensors.numpy import save

    turned = -1 if said.sign == "hurts-positive" else 1
    about = {
        "format": _EFFECTS,
        "axes": ["position", "unit"],
        "positions": "each" if file.positions is not None else "summed",
        "basis": basis,
        "last_unit": None if file.neurons else "error",
        "unit": said.metric,
        "sign": stored_sign(said).value,
    }
    tensors = {
        module.site: np.ascontiguousarray(turned * _units(module, file), dtype=np.float32)
        for module in file.submodules.values()
    }
    # Only one key: safetensors writes several keys in an order that changes from run to run.
    return save(tensors, {"circuits": json.dumps(about, sort_keys=True, separators=(",", ":"))})


def _prompts(file: SparseFile, said: Said) -> tuple[PromptSet | None, bytes | None]:
    """Return the prompts as one file of lines, if they have the tool's form."""
    lines = [_line(example) for example in file.examples]
    if not lines or None in lines:
        return None, None
    header = {"format": _TEXTS, "task": said.need("task")}
    try:
        texts = "".join(f"{canonical_json(line)}\n" for line in [header, *lines]).encode()
    except UnicodeEncodeError as error:
        raise BadInput("a prompt holds half a character, which is no text") from error
    address = hashlib.sha256(texts).hexdigest()
    task = said.need("task")
    return PromptSet(id=address, task=task, n_prompts=len(lines), artifact=address), texts


_FIELDS = {
    "text": "clean_prefix",
    "corrupt": "patch_prefix",
    "correct": "clean_answer",
    "wrong": "patch_answer",
    "case": "case",
}


def _line(example: Any) -> dict[str, str] | None:
    if not isinstance(example, Mapping) or not isinstance(example.get("clean_prefix"), str):
        return None
    found = {ours: example.get(theirs) for ours, theirs in _FIELDS.items()}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _notes(file: SparseFile, chosen: _Chosen, basis: str) -> list[str]:
    import numpy as np

    parts = [_units(module, file).ravel() for module in file.submodules.values()]
    values = np.concatenate(parts)
    known = values[~np.isnan(values)]
    extremes = f", from {known.min():.12g} to {known.max():.12g}" if known.size else ""
    notes = [
        f"{values.size:,} effects in {len(parts)} places, {int((known == 0).sum()):,} of them 0 and"
        f" {values.size - known.size:,} missing{extremes}; {len(chosen.units):,} units selected",
        f"units are {'neurons' if file.neurons else 'features'} named by {basis}",
    ]
    infinite = {one.name: one.n_infinite for one in file.submodules.values() if one.n_infinite}
    if infinite:
        named = ", ".join(f"{n:,} in {name}" for name, n in infinite.items())
        notes.append(f"infinite effects read as missing: {named}")
    if chosen.n_odd_edges:
        notes.append(f"edges whose effect is not finite omitted: {chosen.n_odd_edges:,}")
    if file.errors_unknown and not file.neurons:
        notes.append(
            f"at {file.errors_unknown} places the dictionary's error is not a single number: their"
            " errors are unknown"
        )
    widths = {
        kind: {m.effects.shape[1] - 1 for m in file.submodules.values() if m.site.endswith(kind)}
        for kind in ("attn_out", "resid_post")
    }
    if file.neurons and len(widths["attn_out"]) == 1 and widths["attn_out"] != widths["resid_post"]:
        notes.append(
            f"attention has {widths['attn_out'].pop():,} units, unlike the residual stream:"
            " they are the heads' outputs before the output projection, named l*.attn_out"
        )
    return notes
