"""The registry's data, as frozen pydantic records.

Nothing here knows a store. What a source does not say is None, never guessed; no number is NaN or
infinite. Effects follow one convention: positive means the component makes the metric better
(see :attr:`Circuit.sign` for sources where that is unknown).

A circuit's id is the SHA-256 of its canonical content (:func:`canonical_json`), so recording the
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

from registry.aliases import resolve_model
from registry.errors import BadIdentifier
from registry.identifiers import (
    Port,
    node_key,
    parse_connection,
    parse_local,
    parse_model,
    ports_of,
    sort_key,
)
from registry.limits import MOST_TAGS, check_length, is_stored, limited

__all__ = [
    "Ablation",
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
    "canonical_json",
    "content_hash",
    "in_utc",
]

_MAX_NESTING = 200
"""Levels of JSON in a record; pydantic writes no more than some 250."""

_FIRST_MOMENT = datetime(1, 1, 2, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
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
    """A limited JSON object, copied as what reading it back gives: lists for tuples, plain text."""

    def copy(value: Mapping[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            text = canonical_json(value)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            # Pydantic makes a validation error of a ValueError, and of nothing else.
            raise ValueError(f"is not JSON: {error}") from error
        if _deeper(value, _MAX_NESTING):
            raise ValueError(f"is nested deeper than {_MAX_NESTING} levels")
        if not is_stored(info):
            check_length(what, text)
        copied: dict[str, Any] = json.loads(text)
        return copied

    return AfterValidator(copy)


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_deeper(one, levels - 1) for one in value)


def _positive_zero(value: float) -> float:
    # -0.0 equals 0.0 but is written otherwise, which would give one circuit two ids.
    return value + 0.0


def in_utc(moment: datetime) -> datetime:
    """A moment in UTC, if every time zone can write it.

    Raises:
        ValueError: It lies within a day of the first or last that Python and databases know.
    """
    try:
        turned = moment.astimezone(UTC)
    except OverflowError:
        turned = datetime.min.replace(tzinfo=UTC)
    if not _FIRST_MOMENT <= turned <= _LAST_MOMENT:
        raise ValueError("is no moment between 0001-01-02 and 9999-12-30 in UTC")
    return turned


Json = Annotated[Mapping[str, Any], _json("set of parameters")]
"""JSON object; numbers in it are finite."""
EditJson = Annotated[Mapping[str, Any], _json("request or set of hyperparameters")]
"""The same, small enough for a property of the graph."""
Number = Annotated[float, AfterValidator(_positive_zero)]
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


class Level(StrEnum):
    """What a circuit's nodes and edges are."""

    NODE = "node"
    EDGE = "edge"
    NEURON = "neuron"
    SUBSPACE = "subspace"
    FEATURE = "feature"
    PARAMETER = "parameter"


class Sign(StrEnum):
    """What the sign of an effect says."""

    HELPS_POSITIVE = "helps-positive"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown"


class Ablation(StrEnum):
    """What takes the place of a component's own activation."""

    RESAMPLE = "resample"
    MEAN = "mean"
    ZERO = "zero"
    NONE = "none"
    OTHER = "other"


class RunStatus(StrEnum):
    """How a job stands or ended."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class CircuitState(StrEnum):
    """Whether a circuit is still held to be true."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"


class Record(BaseModel):
    """Base of all records: immutable, closed, finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # Any limit makes pydantic refuse halves of characters, which no store can keep.
        str_max_length=1_000_000,
    )

    def model_post_init(self, context: Any, /) -> None:
        """Share the set of fields that were given with all records that were given the same.

        A set of its own, which pydantic makes, is two thirds of what one of a million edges takes.
        """
        del context
        given = self.__pydantic_fields_set__
        common = _GIVEN.setdefault(frozenset(given), given)
        object.__setattr__(self, "__pydantic_fields_set__", common)

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, of which nothing that was computed of this record is kept, such as its id."""
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
    """The prompts of one task, kept and hashed.

    Attributes:
        id: SHA-256 of the kept prompts with their BOS policy and token ids.
        bos: Whether a BOS token was prepended.
        tokenizer: Name of the tokenizer.
        model: Model whose right answers decided which prompts were kept.
        n_prompts: Pairs kept.
        share_correct: Share of the drawn prompts whose correct answer the model puts above the
            wrong one, 0 to 1.
        share_top1: Share of the drawn prompts whose correct answer is the model's first, 0 to 1.
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

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
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
    """A component's place in a circuit.

    Attributes:
        component: Local name (``a9.h6``).
        position: Token position the node is bound to (``END``, ``7``), or None for all of them.
        effect: Change of the metric the component is credited with; positive helps.
        rank: 1 for the strongest.
        role: Function the component is known for (``name mover``).
    """

    component: str
    position: Annotated[str, limited("position")] | None = Field(None, min_length=1)
    effect: Number | None = None
    rank: int | None = Field(None, ge=1, le=2**63 - 1)
    role: Annotated[str, limited("role")] | None = None

    @field_validator("component")
    @classmethod
    def _in_the_grammar(cls, text: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            check_length("part's name", text)
        parse_local(text)  # each part has one spelling, so what parses is what would be formatted
        return text

    @property
    def key(self) -> str:
        """Name within the circuit: component and, where bound to one, ``@position``."""
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
        """The connection it runs over, without model and positions: ``a9.h6->a10.h7<k>``."""
        source, target = (key.partition("@")[0] for key in (self.source, self.target))
        return f"{source}->{target}" + (f"<{self.port}>" if self.port else "")


class Circuit(Record):
    """What was found to carry a task in a model. Immutable; its content is its name.

    Attributes:
        task: Slug of the task it was found on.
        prompt_set: Id of the prompts it was found on.
        method: ``edge-attribution``, ``published``, ...
        metric: ``logit_difference``, ...; ``higher_is_better`` says which way it improves.
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
                parse_connection(f"{self.model}/{edge.connection}")  # refuses it, and says why
        ordered = tuple(sorted(self.edges, key=_edge_order(places)))
        repeated = _first_repeated((e.source, e.target, e.port) for e in ordered)
        if repeated is not None:
            raise BadIdentifier(str(repeated), "an edge that appears once")
        # The model is frozen for its users; putting edges in canonical order is part of building.
        object.__setattr__(self, "edges", ordered)
        return self

    @cached_property
    def document(self) -> bytes:
        """The canonical content as JSON; the circuit's artifact, named by its id."""
        return b"".join(piece.encode() for piece in self._canonical_pieces())

    def _canonical_pieces(self) -> Iterator[str]:
        """What :func:`canonical_json` writes of the content, without a tree of all of it."""
        # Fields that say nothing are left out, so that a later version may add optional ones
        # without renaming every circuit.
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
    """The canonical JSON of many records of a kind, some at a time."""
    yield "["
    for start in range(0, len(records), _RECORDS_A_PIECE):
        some = records[start : start + _RECORDS_A_PIECE]
        yield "," if start else ""
        yield canonical_json(kind.dump_python(some, mode="json", exclude_none=True))[1:-1]
    yield "]"


class CircuitLabels(Record):
    """What people may change about a circuit."""

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


class Evaluation(Record):
    """A measurement of a circuit on a task, its own or another.

    Attributes:
        measure: ``faithfulness``, ``completeness``, ``logit_difference``, ...
        value: The measured value; normalised measures are ``(m - empty) / (full - empty)``.
        full: The metric of the whole model.
        empty: The metric with everything ablated.
        n_prompts: Number of prompts averaged over.
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

    @property
    def id(self) -> str:
        """Hash of the record."""
        return content_hash(self.model_dump(mode="json", exclude_none=True))


class Edit(Record):
    """A change made to a model's knowledge.

    Attributes:
        editor: ``ROME``, ``MEMIT``, ``fine-tuning``, ...
        request: What was to change (prompt, subject, target_new, ground_truth).
        restriction: What the update was confined to: ``circuit``, ``complement``, ``random``,
            ``layers``, ``model``; None where the source does not say.
        components: Local names of the parts it modified.
        circuits: Ids of the circuits it was aimed at.
    """

    model: str
    editor: Name
    hyperparameters: EditJson = Field(default_factory=dict)
    request: EditJson = Field(default_factory=dict)
    restriction: Literal["circuit", "complement", "random", "layers", "model"] | None = None
    components: tuple[str, ...] = ()
    circuits: tuple[Sha256, ...] = ()
    note: Long | None = None

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
        """Hash of the record: attaching the same edit twice changes nothing."""
        return content_hash(self.model_dump(mode="json", exclude_none=True))


class Outcome(Record):
    """What an edit did to a metric, under a named protocol.

    ``protocol`` says how the metric was taken (``teacher-forced``, ``generation``, ...); figures of
    different protocols do not compare, and files that do not say get ``unknown``.
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


def canonical_json(value: Any) -> str:
    """Write JSON in the one form that is hashed: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_hash(value: Any) -> str:
    """SHA-256 of :func:`canonical_json`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _node_order(node: Node) -> tuple[Any, ...]:
    return (*sort_key(parse_local(node.component)), node.position or "")


def _edge_order(places: Mapping[str, int]) -> Callable[[Edge], int]:
    """The place of an edge among all: by its source's place among the nodes, target's, and port."""
    n_nodes, n_ports = len(places), len(_PORT_ORDER)

    def order(edge: Edge) -> int:
        pair = places[edge.source] * n_nodes + places[edge.target]
        return pair * n_ports + _PORT_ORDER[edge.port]

    return order


_PORT_ORDER: Mapping[str | None, int] = {None: 0, "k": 1, "q": 2, "v": 3}
"""None first, then as the alphabet has them."""


def _first_repeated(values: Iterable[Any]) -> Any | None:
    for before, after in itertools.pairwise(values):
        if before == after:
            return after
    return None
