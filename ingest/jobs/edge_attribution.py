"""The job ``edge-attribution``: score every edge by attribution patching, keep and test the best.

One model, one task. The prompts the model answers rightly are kept; every edge is scored on them
(:func:`ingest.discovery.attribute_edges`); the best edges make the circuit; and its faithfulness
is measured on the same prompts with all other edges corrupted. Effects are logit differences,
correct answer minus wrong one; positive helps. Equal configurations give equal circuits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from ingest.jobs.base import Configuration, Finding
from ingest.jobs.edge_records import edge_circuit, faithfulness, scores_file
from ingest.jobs.progress import Progress
from ingest.model_names import locate
from ingest.tasks.base import PromptSource, TokenPair
from ingest.tasks.catalogue import find_task
from ingest.tasks.prompts import KeptPrompts, keep_answered
from ingest.tasks.user_file import PromptFile, read_prompt_file
from registry.errors import BadInput
from registry.ledger.base import Batch, NewCircuit
from registry.records import CircuitLabels, Model, Task

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit
    from registry.registry import Registry

__all__ = ["JOB", "EdgeAttribution", "EdgeAttributionConfiguration"]

_DEFAULT_PROMPTS = 32
_DEFAULT_EDGES_SHARE = 0.02
_MIN_PROMPTS = 8


class EdgeAttributionConfiguration(Configuration):
    """What the job is told. A task or a file is needed, everything else has a default."""

    model: str = Field(
        description="Model built in or its alias, a folder, a GGUF file or a name on the hub."
    )
    task: str | None = Field(
        None,
        description="Task such as ioi or sequence/months (see 'circuits tasks'); for a file "
        "whose header names none, the name of its task.",
    )
    file: Path | None = Field(None, description="Own prompts, JSON Lines or CSV, in task's place.")
    prompts: int | None = Field(
        None,
        ge=1,
        description=f"Prompts to keep; default: {_DEFAULT_PROMPTS}, or all of the file.",
    )
    min_prompts: int = Field(
        _MIN_PROMPTS,
        ge=1,
        description="Stop if the model answers fewer rightly, unless fewer are asked for.",
    )
    edges: int | None = Field(
        None,
        ge=1,
        description="Edges to keep, before dangling ones are taken out; default: 2 % of all.",
    )
    # Not signed: a first-order estimate often has the wrong sign at the first MLP, through which
    # everything flows (SmolLM2, agreement: faithfulness 0.00 by sign, 0.75 by size).
    select: Literal["absolute", "signed"] = Field(
        "absolute",
        description="absolute keeps the edges with most effect, signed those that help most.",
    )
    seed: int = Field(0, description="Decides which prompts are drawn.")
    bos: bool | None = Field(
        None, description="Begin prompts with a BOS token; default: the model family's habit."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a model on the hub.")
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1 or mps; default: cuda if there is."
    )
    dtype: str = Field("float32", description="Type of the weights: float32, bfloat16, float64.")
    batch_size: int | None = Field(
        None, ge=1, description="Prompts run at once; default: as many as fit in 256 MiB."
    )
    title: str | None = Field(None, description="Title of the circuit, if it is new.")
    tags: tuple[str, ...] = Field((), description="Tags of the circuit, if it is new.")
    author: str | None = Field(None, description="Author of the circuit, if it is new.")

    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        if self.task is None and self.file is None:
            raise ValueError("a task is needed: one of 'circuits tasks', or a file of prompts")
        return self


@dataclass(frozen=True)
class _Prepared:
    """Input that was read and found right.

    Attributes:
        bridge: The model, a TransformerLens ``TransformerBridge``.
        bos_id: BOS token to prepend, or None.
        n_prompts: How many to keep; None for all.
        n_edges: How many to choose.
    """

    configuration: EdgeAttributionConfiguration
    source: PromptSource
    bridge: Any
    model: Model
    bos_id: int | None
    n_prompts: int | None
    n_edges: int


class EdgeAttribution:
    r"""Find a circuit by attribution patching of every edge.

    Keeps the prompts the model answers rightly, scores every edge on them, keeps the best edges,
    and measures the circuit's faithfulness with all other edges corrupted.

    \b
    circuits discover edge-attribution --model smollm2 --task ioi
    circuits discover edge-attribution --model smollm2 --task sequence/months --edges 500
    circuits discover edge-attribution --model gpt2 --file greetings.jsonl --tag draft
    """

    name = "edge-attribution"
    version = "1"
    Configuration = EdgeAttributionConfiguration

    def prepare(
        self,
        configuration: EdgeAttributionConfiguration,
        registry: Registry,  # noqa: ARG002
        progress: Progress,
    ) -> _Prepared:
        """Read the task or file and the model, and see that they fit together.

        Raises:
            BadInput, NotFound: The task, the file, the model or a number is wrong.
            MissingExtra: torch and what loads models are not installed.
        """
        source = _source(configuration)
        locate(configuration.model, configuration.revision)  # before torch takes its seconds
        from ingest import models

        progress.stage(f"loading {configuration.model}")
        bridge = models.load(
            configuration.model,
            device=configuration.device,
            dtype=configuration.dtype,
            revision=configuration.revision,
        )
        is_file = isinstance(source, PromptFile)
        prepared = _Prepared(
            configuration=configuration,
            source=source,
            bridge=bridge,
            model=models.describe(bridge),
            bos_id=_bos_id(bridge, configuration.bos),
            n_prompts=configuration.prompts or (None if is_file else _DEFAULT_PROMPTS),
            n_edges=_n_edges(bridge, configuration.edges),
        )
        _check_prompts(prepared)
        return prepared

    def device(self, prepared: _Prepared) -> str:
        """The device the model lies on."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: _Prepared, progress: Progress) -> Finding:
        """Find the circuit and measure it.

        Raises:
            TooFewPrompts: The model answers too few prompts rightly.
            BadInput: The best edges join the model's input to its output nowhere.
            UnsupportedModel, NonFiniteScores: From the algorithms.
        """
        from ingest.discovery import attribute_edges, evaluate_circuit
        from ingest.jobs.answering import as_tensors

        configuration, slug = prepared.configuration, prepared.source.slug
        kept = _keep(prepared, progress)
        prompts = as_tensors(kept.pairs)
        scores = attribute_edges(
            prepared.bridge,
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            attention_mask=prompts.attention_mask,
            batch_size=configuration.batch_size,
            progress=progress.stage(f"scoring edges on {slug}"),
        )
        chosen = scores.top(prepared.n_edges, by=configuration.select)
        if not chosen.edges:
            raise BadInput(
                f"none of the best {prepared.n_edges} edges lies on a path from the model's input "
                "to its output; ask for more edges"
            )
        measured = evaluate_circuit(
            prepared.bridge,
            [edge.id for edge in chosen.edges],
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            attention_mask=prompts.attention_mask,
            batch_size=configuration.batch_size,
            progress=progress.stage(f"measuring faithfulness on {slug}"),
        )
        return _finding(prepared, kept, scores, chosen, measured)


JOB = EdgeAttribution()


# -- preparing -------------------------------------------------------------------------------------


def _source(configuration: EdgeAttributionConfiguration) -> PromptSource:
    if configuration.file is not None:
        return read_prompt_file(configuration.file, configuration.task)
    return find_task(configuration.task or "")


def _bos_id(bridge: Any, wanted: bool | None) -> int | None:
    from ingest import models

    if bridge.tokenizer is None:
        raise BadInput("the model has no tokenizer, so prompts cannot be read; add its files")
    if not (models.default_bos(bridge) if wanted is None else wanted):
        return None
    found: int | None = bridge.tokenizer.bos_token_id
    if found is None:
        raise BadInput("the model's tokenizer has no BOS token; leave it out with --no-bos")
    return found


def _n_edges(bridge: Any, wanted: int | None) -> int:
    from ingest.discovery.anatomy import read_anatomy

    n_all = read_anatomy(bridge, "grouped").space.n_edges
    if wanted is not None and wanted > n_all:
        raise BadInput(f"{wanted} edges are asked for and the model has {n_all}")
    return wanted or max(1, round(_DEFAULT_EDGES_SHARE * n_all))


def _check_prompts(prepared: _Prepared) -> None:
    """Read the first prompts: faults of a file, or words a tokenizer splits, show here."""
    longest = prepared.bridge.cfg.n_ctx
    drawn = prepared.source.stream(prepared.configuration.seed, _encoder(prepared.bridge))
    first = next(drawn, None)
    if first is None:
        raise BadInput(f"no prompt of {prepared.source.slug} fits the model's tokenizer")
    rest: Iterator[TokenPair] = drawn if isinstance(prepared.source, PromptFile) else iter(())
    for pair in chain([first], rest):
        n_tokens = len(pair.clean) + (prepared.bos_id is not None)
        if n_tokens > longest:
            raise BadInput(
                f"a prompt has {n_tokens} tokens and the model reads at most {longest}: "
                f"{pair.text.clean[:60]!r}..."
            )


def _encoder(bridge: Any) -> Any:
    def encode(text: str) -> Sequence[int]:
        ids: list[int] = bridge.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return encode


# -- computing -------------------------------------------------------------------------------------


def _keep(prepared: _Prepared, progress: Progress) -> KeptPrompts:
    from ingest.jobs.answering import judge

    source, asked = prepared.source, prepared.n_prompts
    is_file = isinstance(source, PromptFile)
    available = [n for n in (asked, len(source) if isinstance(source, PromptFile) else None) if n]
    progress.stage(f"drawing prompts of {source.slug}")
    return keep_answered(
        source,
        judge(prepared.bridge, prepared.configuration.batch_size),
        encode=_encoder(prepared.bridge),
        model=prepared.model.slug,
        bos_id=prepared.bos_id,
        seed=None if is_file else prepared.configuration.seed,
        n=asked,
        at_least=min([prepared.configuration.min_prompts, *available]),
    )


def _finding(
    prepared: _Prepared,
    kept: KeptPrompts,
    scores: EdgeScores,
    chosen: PrunedCircuit,
    measured: CircuitEvaluation,
) -> Finding:
    matrix = scores_file(scores)
    prompt_set = kept.record
    circuit = edge_circuit(
        model=prepared.model.slug,
        task=prepared.source.slug,
        prompt_set=prompt_set.id,
        version=JOB.version,
        scores=scores,
        chosen=chosen,
        address=hashlib.sha256(matrix).hexdigest(),
    )
    evaluations = faithfulness(circuit, measured)
    source, labels = prepared.source, prepared.configuration
    batch = Batch(
        models=(prepared.model,),
        tasks=(Task(slug=source.slug, family=source.family, description=source.description),),
        prompt_sets=(prompt_set,),
        circuits=(
            NewCircuit(
                circuit,
                labels=CircuitLabels(title=labels.title, tags=labels.tags, author=labels.author),
            ),
        ),
        evaluations=evaluations,
    )
    summary = {
        "circuit": circuit.id,
        "task": circuit.task,
        "model": circuit.model,
        "edges": len(circuit.edges),
        "nodes": len(circuit.nodes),
        "faithfulness": evaluations[0].value if evaluations else None,
        "prompts": prompt_set.n_prompts,
        "share_correct": prompt_set.share_correct,
        "share_top1": prompt_set.share_top1,
    }
    return Finding(batch, (kept.artifact, matrix), summary)
