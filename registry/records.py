"""The registry's data, as frozen pydantic records.

Nothing here knows a store. Facts that a source does not give are None, never guessed; no number is
NaN or infinite. Effects follow one convention: positive means that the component improves the
metric (see :attr:`Circuit.sign` for sources where this is unknown).

A circuit's id is the SHA-256 of its canonical content (:mod:`registry.canonical`), so recording the
same result twice adds a run but no second circuit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import override

from registry.canonical import canonical_json, content_hash, record_json
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import (
    Port,
    node_key,
    parse_connection,
    parse_local,
    parse_model,
    parse_node_key,
    ports_of,
    sort_key,
)
from registry.limits import MOST_SCORES, MOST_TAGS, check_length, is_stored, limited
from registry.models.aliases import resolve_model

__all__ = [
    "Ablation",
    "Annotation",
    "Circuit",
    "CircuitLabels",
    "CircuitState",
    "Edge",
    "Edit",
    "Evaluation",
    "Level",
    "Model",
    "Node",
    "Outcome",
    "PromptSet",
    "Record",
    "Run",
    "RunStatus",
    "Sign",
    "SourceFile",
    "Task",
    "in_utc",
]

_FIRST_MOMENT = datetime(1, 1, 2, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Slug = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._\-]*(/[a-z0-9][a-z0-9._\-]*)*$"),
    limited("task's name"),
]
Short = Annotated[str, limited("name")]
Name = Annotated[str, StringConstraints(min_length=1), limited("name")]
Long = Annotated[str, limited("text")]
Text = Annotated[str, StringConstraints(min_length=1), limited("text")]


def _json(what: str) -> AfterValidator:
    """A limited JSON object, copied to the types that JSON gives back: lists, plain text."""

    def copy(value: Mapping[str, Any], info: ValidationInfo) -> dict[str, Any]:
        text = record_json(value)
        if not is_stored(info):
            check_length(what, text)
        copied: dict[str, Any] = json.loads(text)
        return copied

    return AfterValidator(copy)


def _positive_zero(value: float) -> float:
    # -0.0 equals 0.0 but is written differently, which would give one circuit two ids.
    return value + 0.0


def in_utc(moment: datetime) -> datetime:
    """A moment in UTC that every time zone can write.

    Raises:
        ValueError: It is within a day of the first or last that Python and databases know.
    """
    try:
        turned = moment.astimezone(UTC)
    except OverflowError:
        turned = datetime.min.replace(tzinfo=UTC)
    if not _FIRST_MOMENT <= turned <= _LAST_MOMENT:
        raise ValueError("must be a moment between 0001-01-02 and 9999-12-30 in UTC")
    return turned


Json = Annotated[Mapping[str, Any], _json("set of parameters")]
"""JSON object; numbers in it are finite."""
EditJson = Annotated[Mapping[str, Any], _json("request or set of hyperparameters")]
"""Like :data:`Json`, small enough for a property of the graph."""
Number = Annotated[float, AfterValidator(_positive_zero)]
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


class Level(StrEnum):
    """The granularity of a circuit's nodes and edges."""

    NODE = "node"
    EDGE = "edge"
    NEURON = "neuron"
    SUBSPACE = "subspace"
    FEATURE = "feature"
    PARAMETER = "parameter"


class Sign(StrEnum):
    """The meaning of the sign of an effect."""

    HELPS_POSITIVE = "helps-positive"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown"


class Ablation(StrEnum):
    """The value that replaces a component's activation."""

    RESAMPLE = "resample"
    MEAN = "mean"
    ZERO = "zero"
    NONE = "none"
    OTHER = "other"


class RunStatus(StrEnum):
    """The state of a job, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class CircuitState(StrEnum):
    """Whether a circuit is still considered valid."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"


class Record(BaseModel):
    """Base of all records: immutable, closed, finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # With any limit, pydantic refuses surrogates, which no store can hold.
        str_max_length=1_000_000,
    )

    def model_post_init(self, context: Any, /) -> None:
        """Share the set of given fields between all records with the same given fields.

        Pydantic makes a separate set for each record; for a million edges, these sets take two
        thirds of the memory.
        """
        del context
        given = self.__pydantic_fields_set__
        common = _GIVEN.setdefault(frozenset(given), given)
        object.__setattr__(self, "__pydantic_fields_set__", common)

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy without cached values of this record, such as its id."""
        copied = super().model_copy(update=update, deep=deep)
        for name in vars(copied).keys() - type(copied).model_fields.keys():
            del vars(copied)[name]
        return copied


_GIVEN: dict[frozenset[str], set[str]] = {}


def _model_slug(name: str, info: ValidationInfo) -> str:
    if not is_stored(info):
        check_length("model's name", name)
    return parse_model(resolve_model(name))


class Model(Record):
    """A language model, identified by its slug and its weights.

    ``parallel_attn_mlp``: attention and MLP of a block read the same input (GPT-NeoX).
    """

    slug: str
    source: Short | None = None
    revision: Short | None = None
    weights_sha256: Sha256 | None = None
    architecture: Short | None = None
    n_layers: int | None = Field(None, ge=1)
    n_heads: int | None = Field(None, ge=1)
    n_kv_heads: int | None = Field(None, ge=1)
    d_model: int | None = Field(None, ge=1)
    d_head: int | None = Field(None, ge=1)
    d_mlp: int | None = Field(None, ge=1)
    d_vocab: int | None = Field(None, ge=1)
    parallel_attn_mlp: bool = False

    _slug = field_validator("slug")(_model_slug)


class Task(Record):
    """A behaviour that prompts elicit, such as ``ioi`` or ``sequence/numerals``."""

    slug: Slug
    family: Short
    description: Long = ""


class PromptSet(Record):
    """The prompts of one task, stored and hashed.

    Attributes:
        id: SHA-256 of the kept prompts with their BOS policy and token ids.
        bos: Whether a BOS token was prepended.
        tokenizer: Name of the tokenizer.
        model: Model whose correct answers decided which prompts were kept.
        n_prompts: Number of kept pairs.
        share_correct: Share of the drawn prompts whose correct answer the model ranks above every
            wrong one, 0 to 1.
        share_top1: Share of the drawn prompts whose correct answer the model ranks first, 0 to 1.
        artifact: Address of the file with the prompts.
    """

    id: Sha256
    task: Slug
    seed: int | None = None
    n_prompts: int = Field(ge=1)
    bos: bool | None = None
    tokenizer: Short | None = None
    model: Annotated[str, limited("model's name")] | None = None
    share_correct: float | None = Field(None, ge=0, le=1)
    share_top1: float | None = Field(None, ge=0, le=1)
    artifact: Sha256 | None = None


class Run(Record):
    """One execution of a job."""

    id: RunId
    job: Short
    version: Short
    configuration: Json = Field(default_factory=dict)
    status: RunStatus = RunStatus.RUNNING
    started_at: Moment
    finished_at: Moment | None = None
    device: Short | None = None
    packages: Mapping[str, str] = Field(default_factory=dict)
    error: str | None = None

    @property
    def configuration_sha256(self) -> str:
        """Hash of job, version and configuration: equal for runs that would compute the same."""
        return content_hash([self.job, self.version, self.configuration])


class SourceFile(Record):
    """A file of another tool that a circuit was imported from."""

    name: Name
    sha256: Sha256
    format: Name


class Node(Record):
    """A component in a circuit.

    Attributes:
        component: Local name (``a9.h6``).
        position: Token position the node is bound to (``END``, ``7``), or None for all of them.
        effect: Change of the metric the component is credited with; positive helps.
        rank: 1 for the strongest.
        role: Function the component is known for (``name mover``).
        density: Share of the component's parameters, neurons or dimensions that the circuit keeps,
            0 to 1; None if the whole component is kept, or if it is unknown.
    """

    component: str
    position: Annotated[str, limited("position")] | None = Field(None, min_length=1)
    effect: Number | None = None
    rank: int | None = Field(None, ge=1, le=2**63 - 1)
    role: Annotated[str, limited("role")] | None = None
    density: Annotated[Number, Field(ge=0, le=1)] | None = None

    @field_validator("component")
    @classmethod
    def _in_the_grammar(cls, text: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            check_length("part's name", text)
        parse_local(text)  # each part has one spelling, so no formatting is needed
        return text

    @property
    def key(self) -> str:
        """Name within the circuit: component and, if it is bound to one, ``@position``."""
        return node_key(self.component, self.position)


class Edge(Record):
    """A link between two nodes of a circuit, named by their keys."""

    source: str
    target: str
    port: Port | None = None
    effect: Number | None = None
    rank: int | None = Field(None, ge=1, le=2**63 - 1)

    @property
    def connection(self) -> str:
        """The connection of the edge, without model and positions: ``a9.h6->a10.h7<k>``."""
        source, target = (key.partition("@")[0] for key in (self.source, self.target))
        return f"{source}->{target}" + (f"<{self.port}>" if self.port else "")


class Circuit(Record):
    """The parts that were found to carry a task in a model. Immutable; identified by its content.

    Attributes:
        task: Slug of the task it was found on.
        prompt_set: Id of the prompts it was found on.
        method: ``edge-attribution``, ``published``, ...
        metric: ``logit_difference``, ...; ``higher_is_better`` gives its direction.
        kv_heads: ``grouped`` (the model's own key/value heads) or ``per-query-head``.
        selection: How nodes and edges were chosen from the universe, such as ``{"top": 500}``.
        universe_size: Number of edges (nodes, at node level) they were chosen from.
        scores: Address of the full score matrix.
    """

    model: str
    task: Slug
    prompt_set: Sha256 | None = None
    method: Name
    parameters: Json = Field(default_factory=dict)
    metric: Short | None = None
    higher_is_better: bool | None = None
    ablation: Ablation | None = None
    sign: Sign = Sign.UNKNOWN
    level: Level
    kv_heads: Literal["grouped", "per-query-head"] | None = None
    selection: Json | None = None
    universe_size: int | None = Field(None, ge=0)
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    scores: Sha256 | None = None

    _model = field_validator("model")(_model_slug)

    @field_validator("nodes")
    @classmethod
    def _nodes_in_order(cls, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        ordered = tuple(sorted(nodes, key=_node_order))
        repeated = _first_repeated(node.key for node in ordered)
        if repeated is not None:
            raise BadIdentifier(repeated, "a node that appears once")
        return ordered

    @model_validator(mode="after")
    def _edges_between_nodes(self) -> Circuit:
        places = {node.key: place for place, node in enumerate(self.nodes)}
        inputs = [ports_of(parse_local(node.component)) for node in self.nodes]
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in places:
                    raise BadIdentifier(end, "a node of the circuit; edges join listed nodes")
            if edge.port is not None and edge.port not in inputs[places[edge.target]]:
                parse_connection(f"{self.model}/{edge.connection}")  # refuses it with a reason
        ordered = tuple(sorted(self.edges, key=_edge_order(places)))
        repeated = _first_repeated((e.source, e.target, e.port) for e in ordered)
        if repeated is not None:
            source, target, port = repeated
            named = target + (f"<{port}>" if port else "")
            raise BadInput(f"the edge {source} -> {named} appears twice")
        # The model is frozen for its users; canonical order of edges is part of its construction.
        object.__setattr__(self, "edges", ordered)
        return self

    @cached_property
    def document(self) -> bytes:
        """The canonical content as JSON: the circuit's artifact, named by its id."""
        return b"".join(piece.encode() for piece in self._canonical_pieces())

    def _canonical_pieces(self) -> Iterator[str]:
        """The output of :func:`canonical_json` for the content, without building the whole tree."""
        # Empty fields are omitted, so a later version can add optional fields without changing the
        # ids of all circuits.
        plain = self.model_dump(mode="json", exclude_none=True, exclude={"nodes", "edges"})
        pieces: dict[str, Iterator[str]] = {
            **{name: iter([canonical_json(value)]) for name, value in plain.items()},
            "nodes": _canonical_list(_NODES, self.nodes),
            "edges": _canonical_list(_EDGES, self.edges),
        }
        for place, name in enumerate(sorted(pieces)):
            yield f'{"," if place else "{"}"{name}":'
            yield from pieces[name]
        yield "}"

    @cached_property
    def id(self) -> str:
        """SHA-256 of :attr:`document`, 64 hexadecimal digits."""
        return hashlib.sha256(self.document).hexdigest()


_NODES = TypeAdapter(tuple[Node, ...])
_EDGES = TypeAdapter(tuple[Edge, ...])
_RECORDS_A_PIECE = 10_000


def _canonical_list(kind: TypeAdapter[Any], records: Sequence[Record]) -> Iterator[str]:
    """The canonical JSON of many records of a kind, several records at a time."""
    yield "["
    for start in range(0, len(records), _RECORDS_A_PIECE):
        some = records[start : start + _RECORDS_A_PIECE]
        yield "," if start else ""
        yield canonical_json(kind.dump_python(some, mode="json", exclude_none=True))[1:-1]
    yield "]"


class CircuitLabels(Record):
    """The data of a circuit that people may change."""

    title: Annotated[str, limited("title")] | None = None
    tags: tuple[Annotated[str, limited("tag")], ...] = ()
    notes: tuple[Long, ...] = ()
    author: Short | None = None
    state: CircuitState = CircuitState.ACTIVE
    superseded_by: Sha256 | None = None
    reason: Long | None = None

    @field_validator("tags")
    @classmethod
    def _not_too_many(cls, tags: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(tags) > MOST_TAGS and not is_stored(info):
            raise ValueError(f"{len(tags):,} are too many; {MOST_TAGS:,} are allowed")
        return tags


class Annotation(Record):
    """A role that somebody gave to a circuit's node after discovery; not part of its content.

    Each source gives a role to a node once.

    Attributes:
        circuit: Id of the circuit.
        node: A node's key (``a9.h6@END``), or a component (``a9.h6``) for all of its nodes.
        role: Function or category (``name mover``).
        said_by: Person, tool or paper that gave the role.
        run: Run that found it.
        scores: Numbers that support it, by name (``{"copying": 0.93}``).
    """

    circuit: Sha256
    node: str
    role: Annotated[str, StringConstraints(min_length=1), limited("role")]
    said_by: Name
    run: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    scores: Mapping[Name, Number] = Field(default_factory=dict)

    @field_validator("node")
    @classmethod
    def _a_node(cls, key: str, info: ValidationInfo) -> str:
        local, position = parse_node_key(key)
        Node.model_validate({"component": str(local), "position": position}, context=info.context)
        return key

    @field_validator("scores")
    @classmethod
    def _storable(cls, scores: Mapping[str, float], info: ValidationInfo) -> Mapping[str, float]:
        if len(scores) > MOST_SCORES and not is_stored(info):
            raise ValueError(f"{len(scores):,} are too many; {MOST_SCORES:,} are allowed")
        if bad := [name for name in scores if "\x00" in name]:
            raise ValueError(f"{bad[0]!r} contains a NUL character, which no database can hold")
        return {name: scores[name] for name in sorted(scores)}

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Its circuit, node, source and role, which together are unique."""
        return self.circuit, self.node, self.said_by, self.role

    @cached_property
    def id(self) -> str:
        """Hash of the record; it differs if anything in the record differs."""
        return content_hash(self.model_dump(mode="json", exclude_none=True))


class Evaluation(Record):
    """A measurement of a circuit on its task or another task.

    ``run`` is provenance and not part of the id: a measurement is the same for any run. If another
    run repeats the measurement, no second record is made, so nothing is counted twice. The ledger
    keeps the first run that is named, and adds it later if none was.

    Attributes:
        measure: ``faithfulness``, ``completeness``, ``logit_difference``, ...
        value: The measured value; normalised measures are ``(m - empty) / (full - empty)``.
        full: The metric of the whole model.
        empty: The metric with everything ablated.
        n_prompts: Number of prompts averaged over.
        run: Id of the run that measured it; None if it was imported or is unknown.
    """

    circuit: Sha256
    task: Slug
    prompt_set: Sha256 | None = None
    measure: Name
    value: Number
    full: Number | None = None
    empty: Number | None = None
    ablation: Ablation | None = None
    n_prompts: int | None = Field(None, ge=1)
    parameters: Json = Field(default_factory=dict)
    run: RunId | None = None

    @property
    def id(self) -> str:
        """Hash of the record without its run."""
        return content_hash(self.model_dump(mode="json", exclude_none=True, exclude={"run"}))


class Edit(Record):
    """A change to a model's knowledge.

    ``run`` is provenance and not part of the id, as for :class:`Evaluation`.

    Attributes:
        editor: ``ROME``, ``MEMIT``, ``fine-tuning``, ...
        request: The intended change (prompt, subject, target_new, ground_truth).
        restriction: Where the update was allowed: ``circuit``, ``complement``, ``random``,
            ``layers``, ``model``; None if the source does not give it.
        components: Local names of the modified parts.
        circuits: Ids of the circuits that it targeted.
        run: Id of the run that made it; None if it was imported or is unknown.
    """

    model: str
    editor: Name
    hyperparameters: EditJson = Field(default_factory=dict)
    request: EditJson = Field(default_factory=dict)
    restriction: Literal["circuit", "complement", "random", "layers", "model"] | None = None
    components: tuple[str, ...] = ()
    circuits: tuple[Sha256, ...] = ()
    note: Long | None = None
    run: RunId | None = None

    _model = field_validator("model")(_model_slug)

    @field_validator("components")
    @classmethod
    def _canonical(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in () if is_stored(info) else names:
            check_length("part's name", name)
        locals_ = sorted({parse_local(name) for name in names}, key=sort_key)
        return tuple(str(local) for local in locals_)

    @field_validator("circuits")
    @classmethod
    def _once(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(ids)))

    @cached_property
    def id(self) -> str:
        """Hash of the record without its run: attaching an edit twice changes nothing."""
        return content_hash(self.model_dump(mode="json", exclude_none=True, exclude={"run"}))


class Outcome(Record):
    """The effect of an edit on a metric, under a named protocol.

    ``protocol`` gives how the metric was measured (``teacher-forced``, ``generation``, ...). Values
    of different protocols are not comparable; files without a protocol get ``unknown``.
    """

    edit: Sha256
    metric: Name
    protocol: Name = "unknown"
    task: Slug | None = None
    before: Number | None = None
    after: Number | None = None
    n_prompts: int | None = Field(None, ge=1)

    @cached_property
    def id(self) -> str:
        """Hash of the record."""
        return content_hash(self.model_dump(mode="json", exclude_none=True))


def _node_order(node: Node) -> tuple[Any, ...]:
    return (*sort_key(parse_local(node.component)), node.position or "")


def _edge_order(places: Mapping[str, int]) -> Callable[[Edge], int]:
    """The position of an edge: by its source's and target's position among nodes, then its port."""
    n_nodes, n_ports = len(places), len(_PORT_ORDER)

    def order(edge: Edge) -> int:
        pair = places[edge.source] * n_nodes + places[edge.target]
        return pair * n_ports + _PORT_ORDER[edge.port]

    return order


_PORT_ORDER: Mapping[str | None, int] = {None: 0, "k": 1, "q": 2, "v": 3}
"""None first, then in alphabetical order."""


def _first_repeated(values: Iterable[Any]) -> Any | None:
    for before, after in itertools.pairwise(values):
        if before == after:
            return after
    return None
