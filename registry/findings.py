"""What discovery returns, as records that can be kept.

Algorithms know no records, and the registry knows no algorithm: a circuit that was found is known
here by what it has, as :class:`FoundCircuit` says, and what it does not know itself, its task and
title, its caller says (:class:`Description`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

from registry.aliases import resolve_model
from registry.attributions import attributed, is_attribution
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import parse_model
from registry.ledger.base import NewCircuit
from registry.ranking import nodes_by_size
from registry.records import (
    Ablation,
    Circuit,
    CircuitLabels,
    Edge,
    Evaluation,
    Level,
    Model,
    Node,
    PromptSet,
    Record,
    Sign,
)

__all__ = ["Description", "FoundCircuit", "as_records", "ranked_edges", "ranked_nodes"]


@runtime_checkable
class FoundCircuit(Protocol):
    """Edges that were chosen by their scores, as ``ingest.discovery.EdgeScores.top`` gives them.

    Its scores say how they came about (``origin``), of which edges they are (``space``), and give
    the file that keeps them (``to_safetensors``). Positive scores help a metric of which more is
    better.
    """

    @property
    def edges(self) -> Sequence[Any]:
        """Each with ``source``, ``target``, ``port`` and ``score``."""

    @property
    def nodes(self) -> Sequence[Any]:
        """Each with ``id`` and ``effect``."""

    @property
    def by(self) -> str:
        """``absolute`` or ``signed``: what ranks the edges."""

    @property
    def selection(self) -> Mapping[str, Any]:
        """How they were chosen."""

    @property
    def scores(self) -> Any:
        """What they were chosen from; None where that is not known."""


class Measured(Protocol):
    """How faithful a found circuit is, as ``ingest.discovery.evaluate_circuit`` measures it.

    ``full`` and ``empty`` are tensors of the metric of each prompt.
    """

    @property
    def faithfulness(self) -> float | None:
        """0 with everything ablated, 1 the whole model."""

    @property
    def full(self) -> Any:
        """With nothing ablated."""

    @property
    def empty(self) -> Any:
        """With everything ablated."""

    @property
    def ablation(self) -> str | None:
        """What took the place of what was ablated."""


class Description(TypedDict, total=False):
    """What is said of a circuit that was found; all but ``task`` may be left out.

    Attributes:
        task: Slug of the task.
        title: Its title, if the circuit is new.
        tags: Its tags, if the circuit is new.
        author: Who found it, if the circuit is new.
        model: Slug or record of the model; that which the scores name, where they name one.
        metric: Name of the metric, such as ``probability``; that which it calls itself.
        prompts: The prompts it was found on: their record, or the id of one that is kept.
        evaluation: How faithful it is, on the same prompts.
        top: Of an attribution of TransformerLens: take so many of the strongest parts or edges.
        higher_is_better: Of ``attribution_patch``: which way its metric improves.
    """

    task: str
    title: str | None
    tags: Iterable[str]
    author: str | None
    model: str | Model | None
    metric: str | None
    prompts: str | PromptSet | None
    evaluation: Measured | None
    top: int | None
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class Described:
    """Records, and the files that they refer to."""

    records: tuple[Any, ...]
    artifacts: tuple[bytes, ...] = ()


def as_records(what: Iterable[Any], description: Mapping[str, Any]) -> Described:
    """Turn what discovery found into records; what is a record stays as it is.

    Args:
        what: Records, batches, circuits as discovery returns them, and attributions of
            TransformerLens (:mod:`registry.attributions`).
        description: Of the circuits that were found, as :class:`Description` has it.

    Raises:
        BadInput: The description lacks something, says too much, or there is nothing to describe;
            or scores were given of which no circuit is chosen yet.
    """
    what = list(what)
    results = [one for one in what if is_attribution(one)]
    given = [(one, _is_found(one)) for one in what if not is_attribution(one)]
    n_found = sum(found for _, found in given)
    if n_found or results or description:
        _check(description, n_found, results)
    records: list[Any] = []
    for one in _attributed(results, description):
        records += [*_only_records(description.get("model")), *_described(one, description)]
    artifacts = []
    for one, found in given:
        if not found:
            records.append(one)
            continue
        scores = _scores_of(one)
        metric = description.get("metric") or scores.origin.metric
        artifacts.append(scores.to_safetensors(metric))
        records += _records_of(one, artifacts[-1], metric, description)
    return Described(tuple(records), tuple(artifacts))


def ranked_edges(found: FoundCircuit) -> tuple[Edge, ...]:
    """Edges ranked by the size or the value that chose them, whatever order they came in."""
    signed = found.by == "signed"
    ranked = sorted(found.edges, key=lambda e: -(e.score if signed else abs(e.score)))
    return tuple(
        Edge(source=edge.source, target=edge.target, port=edge.port, effect=edge.score, rank=rank)
        for rank, edge in enumerate(ranked, 1)
    )


def ranked_nodes(found: FoundCircuit) -> tuple[Node, ...]:
    """Nodes with their own effect; ranks go by its size, and to those that have one."""
    return nodes_by_size({node.id: node.effect for node in found.nodes})


def _is_found(one: Any) -> bool:
    """Whether discovery returned it and it can be kept.

    Raises:
        BadInput: It holds the scores of all edges, of which none are chosen.
    """
    if hasattr(one, "to_safetensors") and hasattr(one, "top"):
        raise BadInput(
            "scores of all edges are no circuit yet; choose some first, such as scores.top(500)"
        )
    return not isinstance(one, Record) and isinstance(one, FoundCircuit)


def _attributed(results: Sequence[Any], description: Mapping[str, Any]) -> list[Circuit]:
    """Circuits of attributions of TransformerLens, which do not say of which model they are.

    Raises:
        BadInput: The description does not say it either.
    """
    if not results:
        return []
    named, prompts = description.get("model"), description.get("prompts")
    if named is None:
        raise BadInput("an attribution does not name its model; say model='gpt2'")
    model = named.slug if isinstance(named, Model) else _slug(named)
    return [
        Circuit(
            model=model,
            task=description["task"],
            prompt_set=prompts.id if isinstance(prompts, PromptSet) else prompts,
            metric=description.get("metric") or one.metric,
            **one.fields,
        )
        for one in attributed(results, description.get("top"), description.get("higher_is_better"))
    ]


def _check(description: Mapping[str, Any], n_found: int, results: Sequence[Any]) -> None:
    if not n_found and not results:
        raise BadInput(
            f"{', '.join(description)} describe what ingest.discovery found; records say all of it "
            "themselves"
        )
    known = Description.__annotations__
    unknown = [name for name in description if name not in known]
    if unknown:
        raise BadInput(
            f"record() knows no {unknown[0]!r}; what was found is described by {', '.join(known)}"
        )
    if not description.get("task"):
        raise BadInput("what was found needs its task, such as record(scores.top(500), task='ioi')")
    if description.get("evaluation") is not None and n_found + len(results) > 1:
        raise BadInput(
            f"an evaluation is of one circuit, and {n_found + len(results)} are given; record them"
            " one by one"
        )
    only = [one for one in ("top", "higher_is_better") if description.get(one) is not None]
    if only and n_found:
        raise BadInput(
            f"{only[0]} is for attributions of TransformerLens; edges that discovery scored are"
            " chosen before, such as scores.top(500)"
        )
    top = description.get("top")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise BadInput(f"top is {top!r}, no number of at least 1")


def _scores_of(found: FoundCircuit) -> Any:
    """What a circuit was chosen from.

    Raises:
        BadInput: It has no edges, or nobody knows how these were scored.
    """
    if not found.edges:
        raise BadInput("no chosen edge lies on a path from input to logits; choose more of them")
    if found.scores is None or found.scores.origin is None:
        raise BadInput(
            "the circuit does not say how its edges were scored, as attribute_edges does; record a "
            "registry.records.Circuit instead, which says it"
        )
    return found.scores


def _records_of(
    found: FoundCircuit, file: bytes, metric: str | None, description: Mapping[str, Any]
) -> list[Any]:
    scores, prompts = found.scores, description.get("prompts")
    origin = scores.origin
    model = _model(description.get("model") or origin.model, scores)
    circuit = Circuit(
        model=model.slug,
        task=description["task"],
        prompt_set=prompts.id if isinstance(prompts, PromptSet) else prompts,
        method="edge-attribution",
        parameters=origin.parameters,
        metric=metric,
        higher_is_better=True,
        ablation=Ablation(origin.ablation),
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        kv_heads=origin.kv_heads,
        selection=found.selection,
        universe_size=scores.space.n_edges,
        nodes=ranked_nodes(found),
        edges=ranked_edges(found),
        scores=hashlib.sha256(file).hexdigest(),
    )
    return [model, *_described(circuit, description)]


def _described(circuit: Circuit, description: Mapping[str, Any]) -> list[Any]:
    """A circuit with its labels, its evaluation, and what it refers to."""
    labels = CircuitLabels(
        title=description.get("title"),
        tags=tuple(sorted(set(description.get("tags") or ()))),
        author=description.get("author"),
    )
    records = [*_only_records(description.get("prompts")), NewCircuit(circuit, labels=labels)]
    if description.get("evaluation") is not None:
        records.append(_evaluation(circuit, description["evaluation"]))
    return records


def _only_records(one: Any) -> list[Any]:
    """What is described by a record; nothing where it is named alone."""
    return [] if isinstance(one, str | None) else [one]


def _model(named: str | Model | None, scores: Any) -> Model:
    """The model, with the shape that its edges show.

    Raises:
        BadInput: It has no name that a model is stored under.
    """
    if isinstance(named, Model):
        return named
    slug = _slug(named)
    space = scores.space
    return Model(
        slug=slug,
        n_layers=space.n_layers,
        n_heads=space.n_heads,
        # With a copy for each query head, how many there are is not seen.
        n_kv_heads=space.n_kv_heads if scores.origin.kv_heads == "grouped" else None,
        parallel_attn_mlp=space.parallel,
    )


def _slug(named: str | None) -> str:
    try:
        return parse_model(resolve_model(named or ""))
    except BadIdentifier as error:
        called = f"is called {named!r}" if named else "has no name"
        raise BadInput(
            f"the model that was scored {called}; say what to keep it as, such as model='gpt2'"
        ) from error


def _evaluation(circuit: Circuit, measured: Measured) -> Evaluation:
    """How faithful a circuit is on its own prompts.

    Raises:
        BadInput: That is unknown.
    """
    if measured.faithfulness is None:
        raise BadInput("the circuit's faithfulness is unknown, as ablation changes nothing here")
    return Evaluation(
        circuit=circuit.id,
        task=circuit.task,
        prompt_set=circuit.prompt_set,
        measure="faithfulness",
        value=measured.faithfulness,
        full=float(measured.full.mean()),
        empty=float(measured.empty.mean()),
        ablation=Ablation(measured.ablation) if measured.ablation else circuit.ablation,
        n_prompts=len(measured.full),
        parameters={} if circuit.metric is None else {"metric": circuit.metric},
    )
