"""Turn the results of discovery into records.

Algorithms do not know records, and the registry does not know algorithms. A found circuit is
recognised by its attributes (:class:`FoundCircuit`). Its task and title, which it does not know,
are given by the caller (:class:`Description`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

from registry.circuits.attributions import attributed, is_attribution
from registry.circuits.ranking import nodes_by_size
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import parse_model
from registry.ledger.base import NewCircuit
from registry.measures import FAITHFULNESS
from registry.models.aliases import resolve_model
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
    """Edges that were chosen by their scores, as ``ingest.discovery.EdgeScores.top`` returns them.

    Its scores give their provenance (``origin``), their edges (``space``), and the file that stores
    them (``to_safetensors``). Positive scores help a metric of which higher values are better.
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
        """The rule by which they were chosen."""

    @property
    def scores(self) -> Any:
        """The scores they were chosen from; None if unknown."""


class Measured(Protocol):
    """The faithfulness of a found circuit, as ``ingest.discovery.evaluate_circuit`` measures it.

    ``full`` and ``empty`` are tensors of the metric of each prompt.
    """

    @property
    def faithfulness(self) -> float | None:
        """0 with everything ablated, 1 the whole model."""

    @property
    def full(self) -> Any:
        """The metric with nothing ablated."""

    @property
    def empty(self) -> Any:
        """The metric with everything ablated."""

    @property
    def ablation(self) -> str | None:
        """The value that replaced ablated activations."""


class Description(TypedDict, total=False):
    """The description of a found circuit; all fields except ``task`` are optional.

    Attributes:
        task: Slug of the task.
        title: Its title, if the circuit is new.
        tags: Its tags, if the circuit is new.
        author: Who found it, if the circuit is new.
        model: Slug or record of the model; by default the model that the scores name.
        metric: Name of the metric, such as ``probability``; by default its own name.
        prompts: The prompts it was found on: their record, or the id of a stored set.
        evaluation: Its faithfulness on the same prompts.
        top: For an attribution of TransformerLens: number of the strongest parts or edges.
        higher_is_better: For ``attribution_patch``: the direction of its metric.
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
    """Turn results of discovery into records; records stay as they are.

    Args:
        what: Records, batches, circuits as discovery returns them, and attributions of
            TransformerLens (:mod:`registry.circuits.attributions`).
        description: Description of the found circuits, as in :class:`Description`.

    Raises:
        BadInput: The description lacks a field, has a wrong one, or describes nothing; or scores
            were given from which no circuit is chosen yet.
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
    """Edges ranked by the absolute or signed score that chose them, in any order of input."""
    signed = found.by == "signed"
    ranked = sorted(found.edges, key=lambda e: -(e.score if signed else abs(e.score)))
    return tuple(
        Edge(source=edge.source, target=edge.target, port=edge.port, effect=edge.score, rank=rank)
        for rank, edge in enumerate(ranked, 1)
    )


def ranked_nodes(found: FoundCircuit) -> tuple[Node, ...]:
    """Nodes with their own effect; only nodes with an effect are ranked, by its absolute value."""
    return nodes_by_size({node.id: node.effect for node in found.nodes})


def _is_found(one: Any) -> bool:
    """Whether discovery returned it and it can be recorded.

    Raises:
        BadInput: It holds the scores of all edges, of which none is chosen.
    """
    if hasattr(one, "to_safetensors") and hasattr(one, "top"):
        raise BadInput(
            "scores of all edges are not a circuit yet; choose some first, such as scores.top(500)"
        )
    return not isinstance(one, Record) and isinstance(one, FoundCircuit)


def _attributed(results: Sequence[Any], description: Mapping[str, Any]) -> list[Circuit]:
    """Circuits of attributions of TransformerLens, which do not give their model.

    Raises:
        BadInput: The description does not give it either.
    """
    if not results:
        return []
    named, prompts = description.get("model"), description.get("prompts")
    if named is None:
        raise BadInput("an attribution does not name its model; give model='gpt2'")
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
            f"{', '.join(description)} describe results of ingest.discovery; records contain them "
            "themselves"
        )
    known = Description.__annotations__
    unknown = [name for name in description if name not in known]
    if unknown:
        raise BadInput(
            f"record() does not know {unknown[0]!r}; a result is described by {', '.join(known)}"
        )
    if not description.get("task"):
        raise BadInput("a result needs its task, such as record(scores.top(500), task='ioi')")
    if description.get("evaluation") is not None and n_found + len(results) > 1:
        raise BadInput(
            f"an evaluation is of one circuit, and {n_found + len(results)} are given; record them"
            " one by one"
        )
    only = [one for one in ("top", "higher_is_better") if description.get(one) is not None]
    if only and n_found:
        raise BadInput(
            f"{only[0]} is for attributions of TransformerLens; edges that discovery scored are"
            " chosen beforehand, such as scores.top(500)"
        )
    top = description.get("top")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise BadInput(f"top is {top!r}, but must be a number of at least 1")


def _scores_of(found: FoundCircuit) -> Any:
    """The scores that a circuit was chosen from.

    Raises:
        BadInput: It has no edges, or it is unknown how these were scored.
    """
    if not found.edges:
        raise BadInput("no chosen edge is on a path from input to logits; choose more edges")
    if found.scores is None or found.scores.origin is None:
        raise BadInput(
            "the circuit does not show how its edges were scored, as attribute_edges does; record "
            "a registry.records.Circuit instead, which contains it"
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
    """A circuit with its labels, its evaluation, and the records that it refers to."""
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
    """The record that describes something; nothing if it is only named."""
    return [] if isinstance(one, str | None) else [one]


def _model(named: str | Model | None, scores: Any) -> Model:
    """The model, with the shape that its edges show.

    Raises:
        BadInput: It has no name that a model can be stored under.
    """
    if isinstance(named, Model):
        return named
    slug = _slug(named)
    space = scores.space
    return Model(
        slug=slug,
        n_layers=space.n_layers,
        n_heads=space.n_heads,
        # With a copy for each query head, the number of key/value heads is not visible.
        n_kv_heads=space.n_kv_heads if scores.origin.kv_heads == "grouped" else None,
        parallel_attn_mlp=space.parallel,
    )


def _slug(named: str | None) -> str:
    try:
        return parse_model(resolve_model(named or ""))
    except BadIdentifier as error:
        called = f"is called {named!r}" if named else "has no name"
        raise BadInput(
            f"the model that was scored {called}; give the name to store it under, such as"
            " model='gpt2'"
        ) from error


def _evaluation(circuit: Circuit, measured: Measured) -> Evaluation:
    """The faithfulness of a circuit on its own prompts.

    Raises:
        BadInput: It is unknown.
    """
    if measured.faithfulness is None:
        raise BadInput("the circuit's faithfulness is unknown, because ablation changes nothing")
    return Evaluation(
        circuit=circuit.id,
        task=circuit.task,
        prompt_set=circuit.prompt_set,
        measure=FAITHFULNESS.name,
        value=measured.faithfulness,
        full=float(measured.full.mean()),
        empty=float(measured.empty.mean()),
        ablation=Ablation(measured.ablation) if measured.ablation else circuit.ablation,
        n_prompts=len(measured.full),
        parameters={} if circuit.metric is None else {"metric": circuit.metric},
    )
