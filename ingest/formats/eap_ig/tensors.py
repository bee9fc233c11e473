"""Graph ``.pt`` of EAP-IG, in both dialects and the one between them.

A dictionary of ``cfg``, ``edges_scores`` and ``edges_in_graph`` ``[sender, receiver]``,
``nodes_in_graph`` ``[sender]``, names of rows and columns (``src_nodes``, ``dst_nodes``) and, if
they were computed, ``nodes_scores``, ``neurons_in_graph`` and ``neurons_scores``. Older files call
the scores ``edges`` and the neurons ``neurons``, and keep the marks of nodes in ``src_nodes``. Only
cells of possible edges count. A mark that is neither true nor false (nor 1 or 0) is refused, and so
is a node that ``src_nodes`` and ``nodes_in_graph`` mark differently.

A ``.pt`` file is a pickle in a zip. It is read with ``weights_only=True``, which creates tensors
and plain containers and refuses everything else. It is read only if the archive is as
``torch.save`` writes it: members that are stored uncompressed, none of them larger than the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.formats.base import Context, Imported
from ingest.formats.eap_ig.columns import (
    GraphColumns,
    Part,
    Shape,
    coordinates,
    left_out,
    read_shape,
)
from ingest.formats.eap_ig.records import as_records
from ingest.formats.torch_files import load_tensors
from registry.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT", "EapIgTensors"]

_KEYS = (b"edges_in_graph", b"edges_scores", b"src_nodes", b"nodes_in_graph")


class EapIgTensors:
    """The format."""

    name = "eap-ig-pt"
    summary = "EAP-IG and MIB graph .pt, all dialects (needs torch)"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:  # noqa: ARG002 - any suffix will do
        """Sure if a pickle's first keys are a graph's; nothing is unpickled for this."""
        if not head.startswith((b"PK\x03\x04", b"\x80")):
            return 0.0
        return 0.95 if b"n_layers" in head and any(key in head for key in _KEYS) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph; the marked edges are the circuit, or the edges requested by size."""
        data = load_tensors(path, context.limits)
        if not isinstance(data, dict) or not {"edges_scores", "edges"} & set(data):
            raise BadInput(f"{path.name} is no graph: it has no edges_scores (or edges) and cfg")
        shape = read_shape(data.get("cfg"), path.name, context.limits)
        return as_records(_Tensors(path.name, shape, data).graph(), context.said)


FORMAT = EapIgTensors()


class _Tensors:
    """The dictionary of a file; each entry is checked before it is used in a computation."""

    def __init__(self, file: str, shape: Shape, data: Mapping[Any, Any]) -> None:
        self._file, self._shape, self._data = file, shape, data
        self._receivers = [receiver.name for receiver in shape.space.receivers]
        self._notes: list[str] = []

    def graph(self) -> GraphColumns:
        """Return the graph's columns.

        Raises:
            BadInput: A matrix has the wrong shape, a name is unknown, a type is wrong.
        """
        import numpy

        senders = self._places("src_nodes", self._shape.space.senders)
        receivers = self._places("dst_nodes", self._receivers)
        size = (len(senders), len(receivers))
        key = "edges_scores" if "edges_scores" in self._data else "edges"
        scores = self._matrix(key, size).astype(float)
        marked = self._marks("edges_in_graph", size)
        n_sources = numpy.array([one.n_sources for one in self._shape.space.receivers])
        possible = numpy.array(senders)[:, None] < n_sources[receivers][None, :]
        self._note_impossible(scores, marked, possible)
        row, column = possible.nonzero()
        rows, columns = numpy.array(senders)[row], numpy.array(receivers)[column]
        order = numpy.lexsort((columns, rows))
        nodes = self._nodes(senders)
        neurons = self._neurons(senders)
        return GraphColumns(
            self._file, self._shape, rows[order], columns[order],
            scores[possible][order], marked[possible][order],
            nodes, neurons, self._notes,
        )  # fmt: skip

    def _places(self, key: str, known: Sequence[str]) -> list[int]:
        """Return the indices of a file's rows or columns in the space; in order if not given."""
        names = self._data.get(key)
        if names is None:
            return list(range(len(known)))
        # Only nodes may have their marks by name: a receiver is marked by its edges.
        if not isinstance(names, list | tuple) and not (
            key == "src_nodes" and isinstance(names, dict)
        ):
            raise BadInput(f"{self._file}: {key} is no list of names")
        place = {name: at for at, name in enumerate(known)}
        unknown = [name for name in names if not isinstance(name, str) or name not in place]
        if unknown:
            space = self._shape.space
            raise BadInput(
                f"{self._file}: {unknown[0]!r:.80} in {key} is none of a model of {space.n_layers}"
                f" layers with {space.n_heads} heads"
            )
        found = [place[name] for name in names]
        if len(set(found)) < len(found):
            raise BadInput(f"{self._file}: {key} names a part twice")
        return found

    def _matrix(self, key: str, size: tuple[int, ...]) -> NDArray[Any]:
        """Return a tensor of that shape as an array.

        Its shape is compared first: a tensor may claim any size without holding that much data.
        """
        import torch

        tensor = self._data.get(key)
        if not isinstance(tensor, torch.Tensor):
            raise BadInput(f"{self._file}: {key} is missing, or no tensor")
        if tuple(tensor.shape) != size:
            raise BadInput(
                f"{self._file}: {key} has the shape {_shown(tensor.shape)}, expected {_shown(size)}"
            )
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_complex() or tensor.is_quantized:
            raise BadInput(f"{self._file}: {key} is no plain tensor of numbers or marks")
        found: NDArray[Any] = tensor.detach().to(torch.float64).numpy()
        return found

    def _marks(self, key: str, size: tuple[int, ...]) -> NDArray[Any]:
        """A tensor of marks.

        Raises:
            BadInput: A value in it is neither true nor false.
        """
        import numpy

        values = self._matrix(key, size)
        found: NDArray[Any] = values == 1
        odd = numpy.argwhere(~found & (values != 0))
        if len(odd):
            at = tuple(odd[0].tolist())
            raise BadInput(
                f"{self._file}: {key}[{', '.join(map(str, at))}] is {values[at]:g}, neither true"
                " nor false"
            )
        return found

    def _note_impossible(
        self, scores: NDArray[Any], marked: NDArray[Any], possible: NDArray[Any]
    ) -> None:
        import numpy

        outside = ~possible & (numpy.nan_to_num(scores) != 0)
        if n := int(outside.sum()):
            self._notes.append(f"{n:,} scores are at impossible edges: omitted")
        if n := int((~possible & marked).sum()):
            self._notes.append(f"{n:,} marks are at impossible edges: omitted")

    def _nodes(self, senders: Sequence[int]) -> list[Part]:
        """Return the nodes in the file's order, without ``logits``, which only reads."""
        size = (len(senders),)
        marks = self._node_marks(senders)
        scores: list[float] = [math.nan] * len(senders)
        if self._data.get("nodes_scores") is not None:
            scores = self._matrix("nodes_scores", size).tolist()
        return [
            Part(self._shape.space.senders[at], mark, None if math.isnan(score) else score)
            for at, mark, score in zip(senders, marks, scores, strict=True)
        ]

    def _node_marks(self, senders: Sequence[int]) -> Sequence[bool | None]:
        """Whether each node is in the circuit, however the file's dialect says it.

        Raises:
            BadInput: It says it twice, and not alike.
        """
        names, given = self._data.get("src_nodes"), self._data.get("nodes_in_graph")
        by_name = names if isinstance(names, dict) else {}
        own = [self._mark(name, value) for name, value in by_name.items()]
        if given is None:
            return own or [None] * len(senders)
        marks: list[bool] = self._marks("nodes_in_graph", (len(senders),)).tolist()
        for name, one, other in zip(by_name, own, marks, strict=False):
            if one != other:
                raise BadInput(
                    f"{self._file}: nodes_in_graph is {str(other).lower()} for {name}, and"
                    f" src_nodes is {str(one).lower()}; keep the right one of the two"
                )
        return marks

    def _mark(self, name: str, value: Any) -> bool:
        import torch

        single = isinstance(value, torch.Tensor) and tuple(value.shape) in {(), (1,)}
        plain = value.item() if single and not value.is_meta else value
        if isinstance(plain, int | float) and plain in (0, 1):
            return bool(plain)
        raise BadInput(
            f"{self._file}: src_nodes is {plain!r:.80} for {name}, not true or false: rows are in"
            " the order of the names, and their values are the nodes' marks"
        )

    def _neurons(self, senders: Sequence[int]) -> list[Part]:
        key = next(
            (k for k in ("neurons_in_graph", "neurons") if self._data.get(k) is not None), ""
        )
        if not key:
            return []
        size = len(senders), self._shape.d_model or 0
        width = getattr(self._data[key], "shape", ())[-1:]
        if width != (size[1],):
            self._notes.append(
                f"{key} omitted: {_shown(width)} for each node, and cfg.d_model is"
                f" {self._shape.d_model or 'not given'}"
            )
            return []
        marks = self._marks(key, size).tolist()
        scores: list[list[float]] | None = None
        if self._data.get("neurons_scores") is not None:
            scores = self._matrix("neurons_scores", size).tolist()
        found: list[Part] = []
        nameless: list[tuple[str, int]] = []
        for at, place in enumerate(senders):
            name = self._shape.space.senders[place]
            known = None if scores is None else [None if math.isnan(s) else s for s in scores[at]]
            parts = coordinates(name, marks[at], known, self._shape)
            if parts is None:
                nameless.append((name, size[1]))
            found += parts or []
        self._notes += left_out(nameless, self._shape)
        return found


def _shown(size: Sequence[int]) -> str:
    return " x ".join(map(str, size)) or "a single number"
