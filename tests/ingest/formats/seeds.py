"""Sound files of every format, from which damaged ones are made.

A format brings its seeds as files under ``files/<name of the format>/`` (or what that begins with,
where several formats share a folder; what lies in one folder belongs together) or as a function in
:data:`MADE`. Where other tools' files lie beside
the checkout, those that are not large are seeds too.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from ingest.formats.base import Format, formats, recognised
from ingest.formats.bundle.writing import gather, write
from registry import Registry
from registry.errors import CircuitsError
from registry.ledger.base import NewCircuit
from registry.records import CircuitLabels, SourceFile
from tests import examples

__all__ = ["SAID", "Seed", "real_seeds", "seeds"]

FILES = Path(__file__).parent / "files"
SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "external"
_LARGEST_BYTES = 300_000

SAID: dict[str, dict[str, Any]] = {
    "circuitkit": {"top": 3},
    "sparse-features": {"top": 3, "dictionary": "sae"},
}
"""What must be said of a format's seeds beyond model, task and method."""


@dataclass(frozen=True, repr=False)
class Seed:
    """A sound file.

    Attributes:
        format: Name of its format.
        main: Name of the file that is imported.
        files: Content of that file and of those beside it.
    """

    format: str
    main: str
    files: dict[str, bytes]

    def __repr__(self) -> str:
        return f"{self.format}:{self.main}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As hypothesis shows it, which else writes out the files."""
        printer.text(repr(self))

    def written(self, folder: Path, changed: dict[str, bytes] | None = None) -> Path:
        """Put the files into ``folder``, some changed; the path of the one to import."""
        for name, content in {**self.files, **(changed or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / self.main


def _parquet(folder: Path) -> Seed:
    columns = {
        "source": ["A9.6", "embed", "m0", "m0"],
        "target": ["L10H7", "<m0>", "a9.h6", "a9.h6"],
        "port": ["k", None, "q", "v"],
        "effect": [0.5, None, 2.0, 1e-9],
        "rank": [2, None, 1, 3],
    }
    metadata = {"circuits": json.dumps({"model": "gpt2", "sign": "unsigned"})}
    path = folder / "edges.parquet"
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return Seed("parquet", path.name, {path.name: path.read_bytes()})


def _pyvene(folder: Path) -> Seed:
    import torch

    from tests.ingest.formats.pyvene_folders import config, rotated, saved, state_of

    rows: list[dict[str, Any]] = [
        {"layer": 1, "component": "mlp_output", "low_rank_dimension": 2},
        {"layer": 0, "subspace_partition": [[0, 3], [3, 6]]},
    ]
    states = {
        "layer_1_comp_mlp_output_unit_pos_nunit_1#0": state_of(6, rotated(6, 2)[0]),
        "layer_0_comp_block_output_unit_pos_nunit_1#0": state_of(
            6, rotated(6, 6)[0], intervention_boundaries=torch.tensor([0.5])
        ),
    }
    path = saved(folder / "pyvene", config(rows), states)
    files = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    return Seed("pyvene", path.name, files)


def _bundle(folder: Path) -> Seed:
    circuit = examples.circuit(1)
    original = SourceFile(name="one.json", sha256=hashlib.sha256(b"{}").hexdigest(), format="json")
    out = io.BytesIO()
    with Registry.init(folder / "home") as registry:
        registry.store_artifact(b"{}")
        registry.record(examples.GPT2, *examples.TASKS)
        labels = CircuitLabels(title="one", tags=("a",), notes=("b",))
        registry.record(NewCircuit(circuit, source_file=original, labels=labels))
        registry.record(examples.faithfulness(circuit, 0.5), *examples.edit(circuit, "m2"))
        write(out, registry, gather(registry, [circuit.id]))
    return Seed("bundle", "bundle.zip", {"bundle.zip": out.getvalue()})


MADE: dict[str, Callable[[Path], Seed]] = {
    "bundle": _bundle,
    "parquet": _parquet,
    "pyvene": _pyvene,
}
"""Seeds that are made, by format: binary ones, which are not checked in."""


def seeds(folder: Path) -> list[Seed]:
    """All seeds of our own; ``folder`` is for those that are made."""
    checked_in = [seed for place in sorted(FILES.iterdir()) for seed in _of_folder(place)]
    return checked_in + [make(folder) for make in MADE.values()]


def _of_folder(place: Path) -> Iterator[Seed]:
    for group in (place, *sorted(one for one in place.rglob("*") if one.is_dir())):
        paths = [path for path in sorted(group.iterdir()) if path.is_file()]
        known = {path: format for path in paths if (format := _format(place.name, path))}
        read_too = {one for path, format in known.items() for one in _companions(path, format)}
        for path, format in known.items():
            if path not in read_too:
                yield _seed(path, format)


def _seed(path: Path, format: Format) -> Seed:
    files = {one.name: one.read_bytes() for one in (path, *_companions(path, format))}
    return Seed(format.name, path.name, files)


def _companions(path: Path, format: Format) -> list[Path]:
    """The files beside one that its format reads too, if they are not large."""
    return [
        one
        for one in sorted(path.parent.iterdir())
        if one != path
        and one.is_file()
        and any(fnmatch.fnmatchcase(one.name, pattern) for pattern in format.companions)
        and one.stat().st_size <= _LARGEST_BYTES
    ]


def _format(folder: str, path: Path) -> Format | None:
    """The format a folder is named after, or one of its name that knows the file."""
    if folder in formats():
        return formats()[folder]
    return next((one for name, one in formats().items() if name.startswith(f"{folder}-")
                 and one.sniff(path, path.read_bytes()[: 1 << 16]) > 0), None)  # fmt: skip


@cache
def real_seeds() -> tuple[Seed, ...]:
    """Other tools' files that are not large; none where they are not there."""
    return tuple(_real()) if SHARED.is_dir() else ()


def _real() -> Iterator[Seed]:
    for path in sorted(SHARED.rglob("*")):
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            continue
        try:
            format = recognised(path)
        except CircuitsError:
            continue
        yield _seed(path, format)
