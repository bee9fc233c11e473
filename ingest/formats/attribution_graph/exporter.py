"""Attribution graphs as the viewers of Neuronpedia and circuit-tracer read them.

The required fields are those of Neuronpedia's schema (``graph-schema.json`` 1.0.0). Node ids are
the tool's ids. If an error and a feature have the same id, the error gets another id, because links
identify nodes only by id. If there are features or errors of attention
(``l5.attn_out.f3036#NAME``), ids state the kind of each node, as Neuronpedia writes them:
``5_lor_3036_7`` and ``5_cro_3036_7``, ``5_error_attn_7`` and ``5_error_mlp_7``. Features of
attention may have a separate dictionary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.formats.attribution_graph.nodes import cantor
from ingest.formats.attribution_graph.values import NodeValues, unpack
from ingest.formats.exporting import Exporting
from registry.errors import BadInput
from registry.identifiers import Kind, Local, parse_local
from registry.records import Circuit, Node
from registry.texts.words import listed

__all__ = ["EXPORTER", "Neuronpedia"]

_ORDER = {Kind.FEATURE: 0, Kind.ERROR: 1, Kind.INPUT: 2, Kind.LOGIT: 3}
_TYPES = {
    Kind.FEATURE: "cross layer transcoder",  # the tool's term for every transcoder
    Kind.ERROR: "mlp reconstruction error",
    Kind.INPUT: "embedding",
    Kind.LOGIT: "logit",
}
_ATTENTION_TYPES = {Kind.FEATURE: "lorsa", Kind.ERROR: "lorsa error"}
_POSITION = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
_MLP = re.compile(r"m\d+", re.ASCII)
_ATTENTION = re.compile(r"l\d+\.attn_out", re.ASCII)
_EMPTY_VIEW = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}


class Neuronpedia:
    """The exporter."""

    name = "neuronpedia"
    summary = (
        "attribution graph JSON for Neuronpedia and circuit-tracer's viewer; features of"
        " transcoders and of attention at positions of one prompt, without effects of nodes and"
        " links of unknown weight"
    )
    suffix = ".json"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:
        """Return the graph, with the metadata, influence and activations that its import kept."""
        places = [_place(node) for node in circuit.nodes]
        places.sort(key=lambda place: place.order)
        metadata = _metadata(
            circuit, _basis(places, attention=False), _basis(places, attention=True)
        )
        writer = _Writer(circuit, unpack(context.scores), metadata, _logit_layer(context, places))
        ids = writer.ids(places)
        graph = {
            "metadata": metadata,
            "qParams": _object(circuit, "qParams") or _EMPTY_VIEW,
            "nodes": [writer.node(place, ids[place.node.key]) for place in places],
            "links": _links(circuit, [place.node.key for place in places], ids),
        }
        return (json.dumps(graph, ensure_ascii=False, indent=1) + "\n").encode()


EXPORTER = Neuronpedia()


@dataclass(frozen=True, slots=True)
class _Place:
    """A node with the parts of its name."""

    node: Node
    local: Local
    position: int

    @property
    def attention(self) -> bool:
        """Whether it is a feature or an error of a layer's attention."""
        return self.local.site is not None and _ATTENTION.fullmatch(self.local.site) is not None

    @property
    def type(self) -> str:
        """The node's type, as the format names it."""
        return _ATTENTION_TYPES[self.local.kind] if self.attention else _TYPES[self.local.kind]

    @property
    def order(self) -> tuple[int, int, bool, int, int]:
        """The tool's order of nodes: by type, layer, position, number; attention before the MLP."""
        layer, index = self.local.layer or 0, self.local.index or 0
        return _ORDER[self.local.kind], layer, not self.attention, self.position, index


def _place(node: Node) -> _Place:
    local = parse_local(node.component)
    known = local.site is None or any(form.fullmatch(local.site) for form in (_MLP, _ATTENTION))
    if local.kind not in _ORDER or not known:
        raise BadInput(
            f"the format cannot hold {node.key}; it has transcoder features and errors of MLPs"
            " (m5.f3036#NAME, m5.error#NAME), those of attention (l5.attn_out.f3036#NAME), input"
            " and logits[NUMBER]"
        )
    if node.position is None or not _POSITION.fullmatch(node.position):
        raise BadInput(f"the format needs a position counted from 0 for each node; {node.key} has"
                       " none")  # fmt: skip
    return _Place(node, local, int(node.position))


def _basis(places: Sequence[_Place], *, attention: bool) -> str | None:
    """Return the dictionary of the features of MLPs, or of attention.

    Raises:
        BadInput: There are several dictionaries.
    """
    bases = {place.local.basis for place in places if place.attention is attention} - {None}
    if len(bases) > 1:
        names = listed(sorted(map(str, bases)))
        whose = "attention" if attention else "MLPs"
        raise BadInput(
            f"the format holds features of one dictionary; the circuit has {names} for {whose}"
        )
    return next(iter(bases), None)


def _object(circuit: Circuit, name: str) -> dict[str, Any]:
    value = circuit.parameters.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def _metadata(circuit: Circuit, basis: str | None, of_attention: str | None) -> dict[str, Any]:
    """Return the metadata that the import kept, or that the schema requires of other circuits.

    Raises:
        BadInput: The circuit does not give its prompt.
    """
    metadata = _object(circuit, "metadata")
    if not metadata:
        name = basis or of_attention
        named = {} if name is None else {"info": {"transcoder_set": name}}
        metadata = {"schema_version": 1, **named}
        if of_attention not in (None, name):
            metadata["feature_details"] = {"neuronpedia_lorsa_source_set": of_attention}
        metadata |= {k: circuit.parameters.get(k) for k in ("prompt", "prompt_tokens")}
    metadata.setdefault("slug", f"{circuit.task.replace('/', '-')}-{circuit.id[:12]}")
    metadata.setdefault("scan", circuit.model)
    tokens = metadata.get("prompt_tokens")
    texts = {name: metadata.get(name) for name in ("slug", "scan", "prompt")}
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        wrong.append("prompt_tokens")
    if wrong:
        raise BadInput(
            f"the format needs the graph's {' and '.join(wrong)}, which the circuit's parameters do"
            " not give as text"
        )
    return metadata


def _logit_layer(context: Exporting, places: Sequence[_Place]) -> int:
    deepest = max((place.local.layer or 0 for place in places), default=0)
    return (context.model.n_layers or deepest + 1) + 1


def _links(
    circuit: Circuit, keys: Sequence[str], ids: Mapping[str, str]
) -> list[dict[str, str | float]]:
    unknown = sum(edge.effect is None for edge in circuit.edges)
    if unknown:
        raise BadInput(f"the format needs a weight for each link; {unknown:,} edges have no effect")
    order = {key: at for at, key in enumerate(keys)}
    edges = sorted(circuit.edges, key=lambda edge: (order[edge.target], order[edge.source]))
    return [
        {"source": ids[edge.source], "target": ids[edge.target], "weight": edge.effect}
        for edge in edges
        if edge.effect is not None
    ]


class _Writer:
    """Writes nodes of one circuit."""

    def __init__(
        self,
        circuit: Circuit,
        values: NodeValues,
        metadata: Mapping[str, Any],
        logit_layer: int,
    ) -> None:
        self._values, self._say_which = values, False
        self._paired = metadata.get("schema_version") is not None
        self._probabilities = _object(circuit, "probabilities")
        targets = circuit.parameters.get("targets")
        self._targets = targets if isinstance(targets, list) else []
        known = circuit.parameters.get("logit_layer")
        self._logit_layer = known if type(known) is int else logit_layer

    def ids(self, places: Sequence[_Place]) -> dict[str, str]:
        """Return the id of each node by key; all ids differ."""
        self._say_which = any(place.attention for place in places)
        ids = {place.node.key: self._id(place) for place in places}
        others = {ids[p.node.key] for p in places if p.local.kind is not Kind.ERROR}
        for place in places:
            if place.local.kind is Kind.ERROR and ids[place.node.key] in others:
                ids[place.node.key] = f"error_{place.local.layer}_{place.position}"
        return ids

    def _id(self, place: _Place) -> str:
        local, at = place.local, place.position
        match local.kind:
            case Kind.FEATURE:
                which = f"{place.type[:3]}_" if self._say_which else ""
                return f"{local.layer}_{which}{local.index}_{at}"
            case Kind.ERROR if self._say_which:
                return f"{local.layer}_error_{'attn' if place.attention else 'mlp'}_{at}"
            case Kind.ERROR:
                return f"0_{local.layer}_{at}"
            case Kind.INPUT:
                token = self._values.tokens.get(place.node.key)
                return f"E_{at}" if token is None else f"E_{token}_{at}"
            case _:
                return f"{self._logit_layer}_{local.index}_{at}"

    def node(self, place: _Place, id: str) -> dict[str, Any]:
        """Return a node as the viewer reads it."""
        key, local = place.node.key, place.local
        label = place.node.role if local.kind is Kind.FEATURE else self._values.labels.get(key)
        written = {
            "node_id": id,
            "feature": self._number(place),
            "layer": self._layer(local),
            "ctx_idx": place.position,
            "feature_type": place.type,
            "token_prob": self._probabilities.get(key) if local.kind is Kind.LOGIT else 0.0,
            "is_target_logit": key in self._targets,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": self._page_id(place, id),
            "clerp": label or "",
            "influence": self._values.influence.get(key),
            "activation": self._values.activation.get(key),
        }
        return {name: value for name, value in written.items()
                if value is not None or name != "token_prob"}  # fmt: skip

    def _number(self, place: _Place) -> int:
        local = place.local
        match local.kind:
            case Kind.FEATURE:
                layer, index = local.layer or 0, local.index or 0
                return cantor(layer, index) if self._paired else layer * 100_000 + index
            case Kind.ERROR:
                return -1
            case Kind.INPUT:
                return place.position
            case _:
                return local.index or 0

    def _layer(self, local: Local) -> str:
        if local.kind is Kind.INPUT:
            return "E"
        return str(self._logit_layer if local.kind is Kind.LOGIT else local.layer)

    def _page_id(self, place: _Place, id: str) -> str:
        local, at = place.local, place.position
        if self._say_which:
            return id
        match local.kind:
            case Kind.FEATURE:
                return f"{local.layer}_{local.index}-0"
            case Kind.ERROR:
                return f"{local.layer}_{at}-0"
            case Kind.INPUT:
                return f"{id.rpartition('_')[0]}-{at}"
            case _:
                return f"L_{local.index}-{at}"
