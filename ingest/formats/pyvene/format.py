"""Folders of pyvene: subspaces that trained interventions use.

``IntervenableModel.save`` writes ``config.json`` (``representations``, each a list or an object of
layer, component, unit, max_number_of_units, low_rank_dimension, ..., ``intervention_types``,
``intervention_dimensions``, ``mode``) and, next to it, a state for every trainable intervention,
``intkey_layer_8_comp_block_output_unit_pos_nunit_1#0.bin``. Older versions write dots for
underscores; the oldest write ``repr`` for ``comp`` and ``intervenable_...`` for the fields. ReFT
writes such folders too. The import gives one node per subspace, ``l8.resid_post#pyvene-3f9a[0]``.
The name of the basis is the hash of its rotation, which is kept as safetensors ``[dimension,
column]``. Facts that matter here: model, task and results are not in the folder.
``intervention_types`` are Python classes, of which only the name is kept. Interventions without a
rotation (interchange of whole sites) define no subspace. All heads of a layer at once
(``attention_value_output``), one head that the folder does not name (``head_...``) and inputs after
a norm have no site, and a folder with a subspace there is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported
from ingest.formats.building import edge_circuit
from ingest.formats.pyvene.rotations import Rotation, read_rotation, shown_columns
from ingest.formats.pyvene.sites import site_of
from ingest.formats.reading import outer_keys, read_json
from ingest.formats.torch_files import load_tensors
from registry.errors import BadInput
from registry.records import Level, Node

__all__ = ["FORMAT", "Pyvene"]

_FIELDS = (
    "layer", "component", "unit", "max_number_of_units", "low_rank_dimension", "intervention_type",
    "intervention", "subspace_partition", "group_key", "intervention_link_key", "moe_key",
)  # fmt: skip
_OLD_FIELDS = (
    "intervenable_layer", "intervenable_representation_type", "intervenable_unit",
    "max_number_of_units", "intervenable_low_rank_dimension", "subspace_partition", "group_key",
    "intervention_link_key", "intervenable_moe",
)  # fmt: skip
_RENAMED = {
    "intervenable_layer": "layer",
    "intervenable_representation_type": "component",
    "intervenable_unit": "unit",
    "intervenable_low_rank_dimension": "low_rank_dimension",
    "intervenable_moe": "moe_key",
}
_DEFAULTS: dict[str, Any] = {
    "layer": 0,
    "component": "block_output",
    "unit": "pos",
    "max_number_of_units": 1,
}
_KEPT = ("low_rank_dimension", "subspace_partition", "group_key", "intervention_link_key")
_UNTRAINED = frozenset(
    {
        f"{kind}Intervention"
        for kind in (
            "Vanilla",
            "Zero",
            "Collect",
            "Skip",
            "Addition",
            "Subtraction",
            "Noise",
            "Lambda",
            "Source",
            "Sourceless",
            "ConstantSource",
            "PCARotatedSpace",
        )
    }
)
"""Kinds without parameters, for which the tool writes no state."""
_MOST_INTERVENTIONS = 100_000


class Pyvene:
    """The format."""

    name = "pyvene"
    summary = "pyvene and ReFT folders: config.json with intkey_*.bin (needs torch)"
    companions = ("intkey_*.bin",)

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if a JSON file has representations and types of interventions."""
        if path.suffix.lower() != ".json":
            return 0.0
        outer = outer_keys(head)
        new = {"representations", "intervention_types"} <= outer
        return 0.95 if new or "intervenable_representations" in outer else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a folder by its configuration.

        Raises:
            BadInput: It is malformed, an intervention's site is unknown here, or no intervention
                has a rotation.
            MissingExtra: torch is not installed.
        """
        config = read_json(path, context.limits)
        if not isinstance(config, dict):
            raise BadInput(f"{path.name} is no configuration of pyvene: an object is expected")
        found, notes = _Folder(path, config, context).interventions()
        if not found:
            raise BadInput(f"{path.name}: no intervention has a rotation, and so no subspace")
        artifacts = {one.basis_sha256: one.artifact for one in found}
        circuit = edge_circuit(
            context.said,
            [],
            method=context.said.method or "pyvene",
            level=Level.SUBSPACE,
            nodes=tuple(Node(component=part) for one in found for part in one.components),
            parameters={
                "tool": "pyvene",
                "interventions": [one.about for one in found],
                **({"mode": config["mode"]} if "mode" in config else {}),
            },
        )
        beside = {one.file: None for one in found}
        return Imported(
            [circuit], artifacts=list(artifacts.values()), beside=list(beside), notes=notes
        )


FORMAT = Pyvene()


@dataclass(frozen=True)
class _Intervention:
    """One intervention that has a learned rotation.

    Attributes:
        components: Its subspaces.
        artifact: Its rotation as safetensors.
        basis_sha256: Hash of ``artifact``.
        file: The state from which it was read.
        about: Facts that are kept in addition to its nodes.
    """

    components: tuple[str, ...]
    artifact: bytes
    basis_sha256: str
    file: Path
    about: Mapping[str, Any]


class _Folder:
    """A configuration with the states in the same folder."""

    def __init__(self, path: Path, config: Mapping[str, Any], context: Context) -> None:
        self._path, self._config, self._context = path, config, context
        # Names are looked up among the existing files: no name in the file becomes a path.
        self._states = {
            one.name: one
            for one in path.parent.iterdir()
            if one.name.startswith("intkey_") and one.is_file() and not one.is_symlink()
        }
        self._seen: Counter[str] = Counter()

    def interventions(self) -> tuple[list[_Intervention], list[str]]:
        """Return interventions with a rotation, and notes on the others."""
        rows = _representations(self._config, self._path.name)
        found: list[_Intervention] = []
        notes: list[str] = []
        for at, row in enumerate(rows):
            where = f"{self._path.name}, intervention {at + 1}"
            one = self._intervention(row, at, where, notes)
            if one is not None:
                found.append(one)
        return found, notes

    def _intervention(
        self, row: Mapping[str, Any], at: int, where: str, notes: list[str]
    ) -> _Intervention | None:
        kind = _at(self._config, ("intervention_types", "intervenable_interventions_type"), at)
        file = self._state(row)
        if file is None:
            if _short(kind) not in _UNTRAINED:
                raise BadInput(f"{where}: its state is not in the folder ({_names(row, 0)[0]})")
            notes.append(f"intervention {at + 1} ({_short(kind)}) has no state and no subspace")
            return None
        state = load_tensors(file, self._context.limits)
        if not isinstance(state, dict):
            raise BadInput(f"{file.name} is no dictionary of tensors")
        dimension = _at(self._config, ("intervention_dimensions",), at)
        rotation = read_rotation(state, row.get("subspace_partition"), dimension, file.name)
        if rotation is None:
            notes.append(f"intervention {at + 1} ({_short(kind)}) has no rotation and no subspace")
            return None
        if not rotation.orthonormal:
            notes.append(f"{file.name}: the columns of the rotation are not orthonormal")
        site = site_of(row["component"], row["layer"], self._about_model(), where)
        return _made(row, kind, site, rotation, file)

    def _state(self, row: Mapping[str, Any]) -> Path | None:
        """Return the intervention's file, by any version's name; repeated sites are counted."""
        place = _names(row, 0)[0]
        names = _names(row, self._seen[place])
        self._seen[place] += 1
        return next((self._states[name] for name in names if name in self._states), None)

    def _about_model(self) -> str:
        named = (self._config.get(key) for key in ("model_type", "intervenable_model_type"))
        return " ".join(str(one) for one in (self._context.said.model, *named))


def _representations(config: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return every representation as an object with our names of its fields.

    Raises:
        BadInput: A representation is malformed or has a value without a counterpart here.
    """
    old = "representations" not in config
    given = config.get("intervenable_representations" if old else "representations")
    if not isinstance(given, list) or len(given) > _MOST_INTERVENTIONS:
        raise BadInput(f"{name} has no list of representations")
    rows = []
    fields = _OLD_FIELDS if old else _FIELDS
    for at, one in enumerate(given, 1):
        named: Any = dict(zip(fields, one, strict=False)) if isinstance(one, list) else one
        if not isinstance(named, dict):
            raise BadInput(f"{name}, intervention {at}: {str(one)[:80]} is no representation")
        ours: dict[str, Any] = {_renamed(str(key)): value for key, value in named.items()}
        row = _DEFAULTS | ours
        _check(row, f"{name}, intervention {at}")
        rows.append(row)
    return rows


def _renamed(key: str) -> str:
    return _RENAMED.get(key, key)


def _check(row: Mapping[str, Any], where: str) -> None:
    for key in ("layer", "max_number_of_units"):
        if type(row[key]) is not int or not 0 <= row[key] < 10**9:
            raise BadInput(f"{where}: {key} is {str(row[key])[:80]!r}, no whole number")
    for key in ("component", "unit"):
        if not isinstance(row[key], str) or not row[key]:
            raise BadInput(f"{where}: {key} is {str(row[key])[:80]!r}, no name")
    if row["unit"] not in ("pos", "h.pos", "h"):
        raise BadInput(f"{where}: no place here for its unit {row['unit'][:80]!r}; pos is known")
    if row.get("moe_key") is not None:
        raise BadInput(f"{where}: it is inside an expert ({str(row['moe_key'])[:80]}), which"
                       " has no site here")  # fmt: skip


def _names(row: Mapping[str, Any], again: int) -> list[str]:
    """Return the names that versions of the tool give an intervention's file, newest first."""
    layer, component, unit, count = (row[key] for key in _DEFAULTS)
    flat, bare = unit.replace(".", "_"), component.replace(".", "_")
    if "." in component:
        proposed = [f"comp_{bare}_unit_{flat}_nunit_{count}",
                    f"comp.{component}.unit.{unit}.nunit.{count}"]  # fmt: skip
    else:
        proposed = [f"layer_{layer}_comp_{component}_unit_{flat}_nunit_{count}",
                    f"layer.{layer}.comp.{component}.unit.{unit}.nunit.{count}",
                    f"layer.{layer}.repr.{component}.unit.{unit}.nunit.{count}"]  # fmt: skip
    return [f"intkey_{key}#{again}.bin" for key in proposed]


def _made(
    row: Mapping[str, Any], kind: Any, site: str, rotation: Rotation, file: Path
) -> _Intervention:
    artifact = _artifact(rotation)
    address = hashlib.sha256(artifact).hexdigest()
    basis = f"pyvene-{address[:12]}"
    parts = tuple(f"{site}#{basis}[{k}]" for k in range(len(rotation.subspaces)))
    about = {
        "site": site,
        "component": row["component"],
        "unit": row["unit"],
        "max_number_of_units": row["max_number_of_units"],
        "type": _short(kind),
        "state": file.name,
        "rotation": address,
        "dimension": rotation.matrix.shape[0],
        "subspaces": [
            {"component": part, "rank": len(columns), "columns": shown_columns(columns)}
            for part, columns in zip(parts, rotation.subspaces, strict=True)
        ],
        **{key: row[key] for key in _KEPT if row.get(key) is not None},
        **({} if rotation.boundary is None else {"boundary": rotation.boundary}),
    }
    return _Intervention(parts, artifact, address, file, about)


def _artifact(rotation: Rotation) -> bytes:
    """Return the rotation as safetensors, with the columns of its subspaces.

    Both are hashed: another selection of columns of one rotation is another basis.
    """
    from safetensors.numpy import save

    columns = [shown_columns(one) for one in rotation.subspaces]
    about = {"format": "circuits-rotation/1", "axes": ["dimension", "column"], "subspaces": columns}
    # Only one key: safetensors writes several keys in an order that changes from run to run.
    metadata = {"circuits": json.dumps(about, sort_keys=True, separators=(",", ":"))}
    return save({"rotation": rotation.matrix.numpy()}, metadata)


def _at(config: Mapping[str, Any], names: Sequence[str], at: int) -> Any:
    """Return the value of a list for one intervention, or the one value for all."""
    value = next((config[name] for name in names if name in config), None)
    if isinstance(value, list):
        return value[at] if at < len(value) else None
    return value


def _short(kind: Any) -> str | None:
    """Return the class name in ``<class 'pyvene.models.interventions.VanillaIntervention'>``."""
    if not isinstance(kind, str):
        return None
    return kind.removesuffix("'>").rpartition(".")[2][:200] or None
