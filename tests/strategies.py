"""Hypothesis strategies for identifiers and records: every form, any script, extreme floats.

Records are built the way users build them, so a strategy never yields what validation refuses.
Circuits from :func:`circuits` are coherent: nodes are distinct, and edges join listed nodes in an
order the model can run.
"""

from __future__ import annotations

from datetime import UTC, datetime
from string import ascii_letters, ascii_lowercase, digits
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from registry.identifiers import (
    NORMS,
    PORTS,
    Component,
    Connection,
    Kind,
    Local,
    Port,
    can_feed,
    parse_node_key,
)
from registry.records import (
    Ablation,
    Annotation,
    Circuit,
    CircuitLabels,
    CircuitState,
    Edge,
    Edit,
    Evaluation,
    Level,
    Model,
    Node,
    Outcome,
    PromptSet,
    Run,
    RunStatus,
    Sign,
    SourceFile,
    Task,
)

__all__ = [
    "annotations_of",
    "circuit_labels",
    "circuits",
    "components",
    "connections",
    "edits",
    "evaluations",
    "finite_floats",
    "hex_digits",
    "json_objects",
    "locals_",
    "model_names",
    "models",
    "nodes",
    "outcomes",
    "prompt_sets",
    "runs",
    "slugs",
    "source_files",
    "tasks",
    "texts",
]

T = TypeVar("T")

# Whole circuits take long to draw, and longer on a busy machine; neither is a fault of the code.
settings.register_profile(
    "circuits",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("circuits")

_LARGEST_INDEX = 999_999_999
_LARGEST_COUNT = 2**31

finite_floats = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(min_value=0, max_value=1, allow_nan=False)
counts = st.integers(min_value=1, max_value=_LARGEST_COUNT)
indices = st.one_of(st.integers(0, 40), st.integers(0, _LARGEST_INDEX))
moments = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis wants the bounds without a zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
# Every script and every oddity but NUL, which PostgreSQL cannot hold, and halves of surrogate
# pairs, which are no text.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)


def hex_digits(n: int) -> st.SearchStrategy[str]:
    """Strings of ``n`` lower-case hexadecimal digits, ``n`` even, as hashes and run ids are."""
    return st.binary(min_size=n // 2, max_size=n // 2).map(bytes.hex)


def _word(alphabet: str) -> st.SearchStrategy[str]:
    """A word of that alphabet; after its first character also with dots, dashes and underlines."""
    return st.builds(str.__add__, st.sampled_from(alphabet), st.text(alphabet + "_.-", max_size=8))


sha256s = hex_digits(64)
words = _word(ascii_letters + digits)
_lower_words = _word(ascii_lowercase + digits)
slugs = st.one_of(_lower_words, st.builds("{}/{}".format, _lower_words, _lower_words))
model_names = st.one_of(_lower_words, st.builds("{}@{}".format, _lower_words, words))
positions = st.one_of(st.sampled_from(["END", "S1", "IO"]), st.integers(0, 64).map(str))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), finite_floats, texts),
    lambda children: st.one_of(
        st.lists(children, max_size=2), st.dictionaries(texts, children, max_size=2)
    ),
    max_leaves=4,
)
json_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(texts, json_values, max_size=2)


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """``strategy``, or None for what a source does not say."""
    return st.one_of(st.none(), strategy)


# -- identifiers -------------------------------------------------------------------------------


@st.composite
def sites(draw: st.DrawFn) -> tuple[str, int, int | None]:
    """A place a basis or dictionary reads, with its layer and head."""
    layer, head = draw(indices), draw(indices)
    kind = draw(st.sampled_from(["m", "m.hidden", "query", "group", "residual", "start"]))
    if kind == "start":
        return "l0.resid_pre", 0, None
    if kind == "residual":
        name = draw(st.sampled_from(["resid_mid", "resid_post", "attn_out", "mlp_out"]))
        return f"l{layer}.{name}", layer, None
    if kind == "query":
        return f"a{layer}.h{head}.{draw(st.sampled_from('qkvz'))}", layer, head
    if kind == "group":
        return f"a{layer}.kv{head}.{draw(st.sampled_from('kv'))}", layer, head
    return f"m{layer}" + kind[1:], layer, None


@st.composite
def locals_(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> Local:
    """A part of a model, of any kind the grammar has (or of ``kinds``)."""
    kind = draw(st.sampled_from(kinds))
    if kind is Kind.LOGIT:
        return Local(kind, index=draw(indices))
    if kind is Kind.MLP:
        return Local(kind, layer=draw(indices))
    if kind is Kind.NORM:
        last = Local(kind, norm="ln_final")
        in_blocks = st.builds(Local, st.just(kind), indices, norm=st.sampled_from(NORMS))
        return draw(st.one_of(st.just(last), in_blocks))
    if kind is Kind.NEURON:
        return Local(kind, layer=draw(indices), index=draw(indices))
    if kind in {Kind.HEAD, Kind.KV_HEAD}:
        return Local(kind, layer=draw(indices), head=draw(indices))
    if kind in {Kind.SUBSPACE, Kind.FEATURE, Kind.ERROR}:
        site, layer, head = draw(sites())
        index = None if kind is Kind.ERROR else draw(indices)
        return Local(kind, layer, head, index, site, draw(words))
    return Local(kind)


def components() -> st.SearchStrategy[Component]:
    """A part of a named model."""
    return st.builds(Component, model_names, locals_())


@st.composite
def connections(draw: st.DrawFn) -> Connection:
    """A link, with a port where its target has some, whatever the order of its ends."""
    source, target = draw(locals_()), draw(locals_())
    return Connection(draw(model_names), source, target, draw(st.sampled_from(ports_of(target))))


def ports_of(target: Local) -> tuple[Port | None, ...]:
    """What a connection may say of the input it enters; None where heads' inputs were merged."""
    if target.kind is Kind.HEAD:
        return (*PORTS, None)
    return ("k", "v", None) if target.kind is Kind.KV_HEAD else (None,)


# -- records -----------------------------------------------------------------------------------


def models() -> st.SearchStrategy[Model]:
    """A model of which anything but the name may be unknown."""
    return st.builds(
        Model,
        slug=model_names,
        source=maybe(texts),
        revision=maybe(texts),
        weights_sha256=maybe(sha256s),
        architecture=maybe(texts),
        n_layers=maybe(counts),
        n_heads=maybe(counts),
        n_kv_heads=maybe(counts),
        d_model=maybe(counts),
        d_head=maybe(counts),
        d_mlp=maybe(counts),
        d_vocab=maybe(counts),
        parallel_attn_mlp=st.booleans(),
    )


def tasks() -> st.SearchStrategy[Task]:
    """A task with a description in any script."""
    return st.builds(Task, slug=slugs, family=slugs, description=st.one_of(st.just(""), texts))


def prompt_sets(task: str | None = None, model: str | None = None) -> st.SearchStrategy[PromptSet]:
    """Prompts of ``task`` (any, if None), chosen by ``model`` or by none."""
    return st.builds(
        PromptSet,
        id=sha256s,
        task=slugs if task is None else st.just(task),
        seed=maybe(st.integers(-(2**63), 2**63 - 1)),
        n_prompts=counts,
        bos=maybe(st.booleans()),
        tokenizer=maybe(texts),
        model=st.just(model),
        share_correct=maybe(shares),
        share_top1=maybe(shares),
        artifact=maybe(sha256s),
    )


def runs() -> st.SearchStrategy[Run]:
    """A run in any state."""
    return st.builds(
        Run,
        id=hex_digits(32),
        job=texts,
        version=texts,
        configuration=json_objects,
        status=st.sampled_from(RunStatus),
        started_at=moments,
        finished_at=maybe(moments),
        device=maybe(texts),
        packages=st.dictionaries(texts, texts, max_size=3),
        error=maybe(texts),
    )


def source_files() -> st.SearchStrategy[SourceFile]:
    """A file of another tool."""
    return st.builds(SourceFile, name=texts, sha256=sha256s, format=texts)


@st.composite
def nodes(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> Node:
    """A node of any kind of component, bound to a position or not."""
    return Node(
        component=str(draw(locals_(kinds))),
        position=draw(maybe(positions)),
        effect=draw(maybe(finite_floats)),
        rank=draw(maybe(counts)),
        role=draw(maybe(texts)),
        density=draw(maybe(shares)),
    )


_Part = TypeVar("_Part", Node, Edge)


@st.composite
def circuits(
    draw: st.DrawFn,
    model: str | None = None,
    task: str | None = None,
    prompt_set: str | None = None,
    max_nodes: int = 5,
) -> Circuit:
    """A coherent circuit, of the given model, task and prompts where they are given."""
    chosen = draw(st.lists(nodes(), max_size=max_nodes, unique_by=lambda node: node.key))
    sign = draw(st.sampled_from(Sign))
    edges = draw(_edges(chosen))
    if sign is Sign.UNSIGNED:
        chosen, edges = [_sized(node) for node in chosen], [_sized(edge) for edge in edges]
    return Circuit(
        model=draw(model_names) if model is None else model,
        task=draw(slugs) if task is None else task,
        prompt_set=prompt_set,
        method=draw(texts),
        parameters=draw(json_objects),
        metric=draw(maybe(texts)),
        higher_is_better=draw(maybe(st.booleans())),
        ablation=draw(maybe(st.sampled_from(Ablation))),
        sign=sign,
        level=draw(st.sampled_from(Level)),
        kv_heads=draw(st.sampled_from([None, "grouped", "per-query-head"])),
        selection=draw(maybe(json_objects)),
        universe_size=draw(maybe(st.integers(0, _LARGEST_COUNT))),
        nodes=tuple(chosen),
        edges=tuple(edges),
        scores=draw(maybe(sha256s)),
    )


def _sized(part: _Part) -> _Part:
    """With the size of its effect: what has no sign has nothing below 0."""
    return part if part.effect is None else part.model_copy(update={"effect": abs(part.effect)})


@st.composite
def _edges(draw: st.DrawFn, chosen: list[Node]) -> list[Edge]:
    keys = [node.key for node in chosen]
    possible = [
        (source, target, port)
        for source in keys
        for target in keys
        for port in ports_of(parse_node_key(target)[0])
        if can_feed(parse_node_key(source)[0], parse_node_key(target)[0], port)
    ]
    if not possible:
        return []
    picked = draw(st.lists(st.sampled_from(possible), max_size=6, unique=True))
    return [
        Edge(
            source=source,
            target=target,
            port=port,
            effect=draw(maybe(finite_floats)),
            rank=draw(maybe(counts)),
        )
        for source, target, port in picked
    ]


def circuit_labels() -> st.SearchStrategy[CircuitLabels]:
    """Labels in any script; a circuit that supersedes is left out, as it must be stored first."""
    return st.builds(
        CircuitLabels,
        title=maybe(texts),
        tags=st.lists(texts, max_size=3, unique=True).map(tuple),
        notes=st.lists(texts, max_size=3).map(tuple),
        author=maybe(texts),
        state=st.sampled_from([CircuitState.ACTIVE, CircuitState.RETRACTED]),
        superseded_by=st.none(),
        reason=maybe(texts),
    )


def evaluations(circuit: str, task: str) -> st.SearchStrategy[Evaluation]:
    """A measurement of that circuit on that task."""
    return st.builds(
        Evaluation,
        circuit=st.just(circuit),
        task=st.just(task),
        prompt_set=st.none(),
        measure=st.one_of(st.just("faithfulness"), texts),
        value=finite_floats,
        full=maybe(finite_floats),
        empty=maybe(finite_floats),
        ablation=maybe(st.sampled_from(Ablation)),
        n_prompts=maybe(counts),
        parameters=json_objects,
    )


@st.composite
def annotations_of(draw: st.DrawFn, of: Circuit, run: str | None = None) -> list[Annotation]:
    """What some sources say of that circuit's nodes; none where it has no node."""
    if not of.nodes:
        return []
    names = sorted({name for node in of.nodes for name in (node.key, node.component)})
    said = st.builds(
        Annotation,
        circuit=st.just(of.id),
        node=st.sampled_from(names),
        role=texts,
        said_by=texts,
        run=st.sampled_from([None, run]),
        scores=st.dictionaries(texts, finite_floats, max_size=2),
    )
    return draw(st.lists(said, max_size=3, unique_by=lambda one: one.place))


def edits(model: str, targets: tuple[str, ...] = ()) -> st.SearchStrategy[Edit]:
    """An edit of that model, aimed at some of ``targets``."""
    return st.builds(
        Edit,
        model=st.just(model),
        editor=texts,
        hyperparameters=json_objects,
        request=json_objects,
        restriction=st.sampled_from([None, "circuit", "complement", "random", "layers", "model"]),
        components=st.lists(locals_().map(str), max_size=4).map(tuple),
        circuits=st.lists(st.sampled_from(targets), max_size=3).map(tuple)
        if targets
        else st.just(()),
        note=maybe(texts),
    )


def outcomes(edit: str, task: str | None = None) -> st.SearchStrategy[Outcome]:
    """What that edit did to a metric."""
    return st.builds(
        Outcome,
        edit=st.just(edit),
        metric=texts,
        protocol=texts,
        task=st.just(task),
        before=maybe(finite_floats),
        after=maybe(finite_floats),
        n_prompts=maybe(counts),
    )
