"""An attribution graph's JSON, checked: nodes with their meaning, links with both ends found.

The graph of a long prompt is larger than memory, both as text and as objects. So a file is read in
pieces: nodes become records, and each link becomes three numbers. The file is read again if links
appear before the nodes that they join, or nodes before the metadata that define their numbering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.formats.attribution_graph.links import (
    FileLink,
    LinkReader,
    Links,
)
from ingest.formats.attribution_graph.nodes import FileNode, counted_once, read_node
from ingest.formats.base import Context, Limits
from ingest.formats.json_stream import Tell, read_object
from ingest.formats.reading import OddScores, check_count, check_size, count_in_file, finite
from registry.errors import BadInput

__all__ = ["FileLink", "GraphFile", "Links", "read_graph"]

_TIMES_LARGER = 4  # allowed size of a file that is read in part, as it is not held in memory
_BYTES_PER_LINK = 32  # in memory while links are checked and pruned
_BYTES_PER_NODE = 1_000
_LONG_BYTES = 1 << 26  # reading more than this takes seconds, so progress is reported


@dataclass(frozen=True, slots=True)
class GraphFile:
    """The content of a whole file.

    Attributes:
        metadata: As in the file.
        qparams: Pinned and grouped nodes of the viewer, as in the file.
        ambiguous: Links that fit two nodes with one id: source, target and weight as in the file.
        dangling: Number of links with an end that is not a node.
        repeated: Number of links that are given twice with the same weight.
        counted_twice: Whether the file counts each layer twice, as attention and as MLP.
        odd: Notes on weights and other numbers that are not finite.
    """

    metadata: Mapping[str, Any]
    qparams: Mapping[str, Any]
    nodes: Sequence[FileNode]
    links: Links
    ambiguous: Sequence[tuple[str, str, float | None]]
    dangling: int
    repeated: int
    counted_twice: bool
    odd: Sequence[str] = ()


def read_graph(path: Path, context: Context, *, part: bool = False) -> GraphFile:
    """Read and check a file.

    Args:
        path: The file.
        context: Its limits, and the function that receives the progress.
        part: Only a part of the links will be selected. Then the file may have more links than a
            circuit may have edges, and may be larger than other files.

    Raises:
        BadInput: It is malformed, too large, or has too many links.
    """
    limits = context.limits
    allowed = replace(limits, max_bytes=limits.max_bytes * (_TIMES_LARGER if part else 1))
    check_size(path, allowed)
    size_bytes = path.stat().st_size
    check = _Check(path.name, limits, part, large=size_bytes > limits.max_bytes)
    check.links(min(count_in_file(path, mark) for mark in (b'"source"', b'"target"')))
    long = size_bytes > _LONG_BYTES
    return _Reading(path, check, context.stage(f"reading {path.name}") if long else None)()


@dataclass(frozen=True, slots=True)
class _Check:
    """Refuses content that is too large, before it is stored."""

    name: str
    limits: Limits
    part: bool
    large: bool

    def nodes(self, n_nodes: int) -> None:
        check_count(n_nodes, "nodes", self.name, self.limits)
        if self.large:
            self._memory(n_nodes * _BYTES_PER_NODE, f"{n_nodes:,} nodes")

    def links(self, n_links: int) -> None:
        if self.part:
            self._memory(n_links * _BYTES_PER_LINK, f"{n_links:,} links")
        elif n_links > self.limits.max_edges:
            raise BadInput(
                f"{self.name} has {n_links:,} links and {self.limits.max_edges:,} are allowed;"
                " --node-threshold, --edge-threshold, --threshold or --top select a part of them,"
                " --max-edges allows more"
            )

    def _memory(self, size_bytes: int, what: str) -> None:
        if size_bytes > self.limits.max_bytes:
            raise BadInput(
                f"{self.name} has {what}, which take {size_bytes:,} bytes of memory, and"
                f" {self.limits.max_bytes:,} are allowed; --max-bytes raises that"
            )


class _Reading:
    """Reads one file, as many times as the order of its fields requires."""

    def __init__(self, path: Path, check: _Check, tell: Tell | None) -> None:
        self._path, self._check, self._tell = path, check, tell
        self._metadata: Mapping[str, Any] | None = None
        self._qparams: Mapping[str, Any] = {}
        self._nodes: list[FileNode] = []
        self._links: LinkReader | None = None
        self._counted_twice = False
        self._missed: set[str] = set()
        self._odd = OddScores()

    def __call__(self) -> GraphFile:
        """Return the content of the file.

        Raises:
            BadInput: As :func:`read_graph`.
        """
        seen = self._read({"nodes": self._add_nodes, "links": self._add_links}, self._objects())
        if self._metadata is None:
            raise BadInput(f"{self._path.name}: metadata is no object")
        for field in ("nodes", "links"):
            if field not in seen:
                raise BadInput(
                    f"{self._path.name}: {field} is no list; an attribution graph has nodes and"
                    " links"
                )
        if "nodes" in self._missed:
            self._read({"nodes": self._add_nodes, "links": self._add_links})
        if not self._nodes:
            raise BadInput(f"{self._path.name} holds no node")
        if "links" in self._missed:
            self._read({"links": self._add_links})
        reader = self._reader()
        joined = reader.joined()
        return GraphFile(
            self._metadata, self._qparams, self._nodes, joined.links, joined.ambiguous,
            joined.dangling, joined.repeated, self._counted_twice,
            [*reader.odd.notes(), *self._odd.notes()],
        )  # fmt: skip

    def _read(
        self,
        items: Mapping[str, Callable[[list[Any]], None]],
        whole: Mapping[str, Callable[[Any], None]] | None = None,
    ) -> set[str]:
        self._missed = set()
        return read_object(self._path, whole or {}, items, self._tell)

    def _objects(self) -> dict[str, Callable[[Any], None]]:
        return {"metadata": self._take_metadata, "qParams": self._take_qparams}

    def _take_metadata(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise BadInput(f"{self._path.name}: metadata is no object")
        self._metadata = finite(value)

    def _take_qparams(self, value: Any) -> None:
        if not isinstance(value, dict | None):  # the viewer only displays it
            raise BadInput(f"{self._path.name}: qParams is no object")
        self._qparams = finite(value) or {}

    def _add_nodes(self, batch: list[Any]) -> None:
        if self._metadata is None:
            self._missed.add("nodes")
            return
        paired = self._metadata.get("schema_version") is not None
        first = len(self._nodes)
        self._check.nodes(first + len(batch))
        self._nodes += [
            read_node(raw, f"{self._path.name}, node {at}", paired, self._odd)
            for at, raw in enumerate(batch, first)
        ]

    def _add_links(self, batch: list[Any]) -> None:
        if not self._nodes:
            self._missed.add("links")
            return
        reader = self._reader()
        self._check.links(len(reader) + len(batch))
        reader.add(batch)

    def _reader(self) -> LinkReader:
        """Make the reader of links, when all nodes are known."""
        if self._links is None:
            nodes, self._counted_twice = counted_once(self._nodes)
            self._nodes = list(nodes)
            self._links = LinkReader(self._nodes, self._path.name, self._check.limits)
        return self._links
