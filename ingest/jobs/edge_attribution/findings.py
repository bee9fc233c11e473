"""Circuits, consensus and measurements of one run of ``edge-attribution``, as one result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ingest.jobs.base import Finding
from ingest.jobs.edge_attribution.consensus import Agreement, consensus_circuit, stability
from ingest.jobs.edge_attribution.measurements import further_measurements
from ingest.jobs.edge_attribution.records import (
    METRIC,
    RecordedCircuit,
    faithfulness,
    found_circuit,
    method_parameters,
)
from ingest.jobs.edge_attribution.search import Found, Prepared
from ingest.jobs.progress import Progress
from ingest.jobs.prompts import encoder, task_record
from registry.ledger.base import Batch, NewCircuit
from registry.records import Circuit, CircuitLabels, Evaluation, PromptSet
from registry.texts.words import faithfulness_in_words

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation

__all__ = ["Findings"]

_CONSENSUS = "consensus"


class Findings:
    """Collects the results of a run; nothing is stored before they are complete.

    Args:
        prepared: The input.
        notes: Notes on its prompts.
    """

    def __init__(self, prepared: Prepared, notes: Sequence[str] = ()) -> None:
        self._prepared = prepared
        self._notes = notes
        self._tasks = [task_record(prepared.source)]
        self._prompt_sets: dict[str, PromptSet] = {}
        self._artifacts: list[bytes] = []
        self._found: list[Found] = []
        self._circuits: list[NewCircuit] = []
        self._evaluations: list[Evaluation] = []
        self._rows: list[dict[str, Any]] = []
        if prepared.reference is not None:
            file, kept = prepared.reference
            self._tasks += [task_record(file)] if file.slug != prepared.source.slug else []
            self._prompt_sets[kept.record.id] = kept.record
            self._artifacts.append(kept.artifact)

    def add_circuit(self, found: Found, progress: Progress) -> None:
        """Add a circuit found on one set of prompts, with all requested measurements."""
        configuration, prompts = self._prepared.configuration, found.kept.record
        self._prompt_sets[prompts.id] = prompts
        self._artifacts.append(found.kept.artifact)
        self._found.append(found)
        of = f"seed {found.kept.seed}" if configuration.seeds > 1 else "all prompts"
        tried = {"tried": [list(pair) for pair in found.tried]} if found.tried else {}
        recorded = found_circuit(self._prepared, found)
        evaluations = faithfulness(recorded.circuit, found.measured, parameters=tried)
        further = further_measurements(self._prepared, found, recorded.circuit, progress)
        title = of if configuration.seeds > 1 else None
        self._add(recorded, (*evaluations, *further), title)
        row = self._row(of, recorded.circuit, evaluations, prompts.n_prompts)
        row |= {"share_correct": prompts.share_correct, "share_top1": prompts.share_top1}
        self._rows.append(row | {measured.measure: measured.value for measured in further})

    def add_consensus(
        self, agreement: Agreement, places: Sequence[int], progress: Progress
    ) -> None:
        """Add the consensus of several circuits, measured on the prompts of all of them.

        If its edges connect the model's input to its output nowhere, no consensus is recorded.

        Args:
            agreement: Their agreement.
            places: Their places among the added circuits; one place if its prompts were resampled.
            progress: Receives the progress.
        """
        if not agreement.chosen.edges:
            none = self._row(_CONSENSUS, None, (), None)
            self._rows.append(none | {"mean_overlap": agreement.mean_overlap})
            return
        of = [self._found[place] for place in places]
        prompt_set = of[0].kept.record.id if len(of) == 1 else None
        recorded = consensus_circuit(
            self._prepared,
            agreement,
            prompt_set=prompt_set,
            parameters=self._consensus_parameters(prompt_set, places),
        )
        measured = self._measured_on_all(agreement, of, progress)
        prompt_sets = [found.kept.record.id for found in of]
        sets = {} if prompt_set else {"prompt_sets": prompt_sets}
        evaluations = faithfulness(recorded.circuit, measured, parameters=sets)
        self._add(recorded, (*evaluations, stability(recorded.circuit, agreement)), _CONSENSUS)
        row = self._row(_CONSENSUS, recorded.circuit, evaluations, len(measured.full))
        self._rows.append(row | {"mean_overlap": agreement.mean_overlap})

    def result(self) -> Finding:
        """Return all results, to be stored together; several circuits have a row each."""
        batch = Batch(
            models=(self._prepared.model,),
            tasks=tuple(self._tasks),
            prompt_sets=tuple(self._prompt_sets.values()),
            circuits=tuple({new.circuit.id: new for new in self._circuits}.values()),
            evaluations=tuple(self._evaluations),
        )
        rows, notes = self._rows, tuple(self._in_words())
        if len(rows) == 1:
            (row,) = rows
            del row["of"]
        else:
            columns = dict.fromkeys(name for row in rows for name in row)
            rows = [{name: row.get(name) for name in columns} for row in rows]
        return Finding(batch, tuple(self._artifacts), rows[-1], tuple(rows), notes)

    def _in_words(self) -> Iterator[str]:
        """Yield the meaning of the last row's faithfulness, and warnings."""
        from ingest.models.loading import authors_code

        row = self._rows[-1]
        if row["faithfulness"] is not None:
            whose = "" if len(self._rows) == 1 else f"{row['of']}: "
            yield whose + faithfulness_in_words(row["faithfulness"], METRIC)
        elif row["circuit"] is not None:
            yield (
                "faithfulness is unknown: on these prompts the whole model does no better or worse"
                " than with everything ablated, so that there is nothing to keep a share of"
            )
        yield from self._notes
        yield from self._unknown_words()
        code = authors_code(self._prepared.bridge)
        if code is not None:
            own = type(self._prepared.bridge.original_model).__name__
            yield (
                f"the model's config.json names code of its authors ({code}), which was not run;"
                f" the circuit is that of {own} in transformers"
            )

    def _unknown_words(self) -> Iterator[str]:
        """Report prompts in which the model reads its unknown token in place of a word."""
        encode = encoder(self._prepared.bridge)
        pairs = {pair.text.clean: pair for found in self._found for pair in found.kept.pairs}
        unread = [pair for pair in pairs.values() if encode.misses(pair)]
        if unread:
            yield (
                f"{len(unread)} of {len(pairs)} prompts hold a word that the model's tokenizer"
                f" does not know and reads as its unknown token, such as"
                f" {unread[0].text.clean[:60]!r}"
            )

    def _consensus_parameters(
        self, prompt_set: str | None, places: Sequence[int]
    ) -> dict[str, Any]:
        found = method_parameters(self._prepared, prompt_set or "each circuit's own prompts")
        if prompt_set is None:
            found["prompts"] = "drawn anew"
        else:
            found |= {"prompts": "resampled", "seed": self._prepared.configuration.seed}
        return found | {"of": [self._circuits[place].circuit.id for place in places]}

    def _measured_on_all(
        self, agreement: Agreement, of: Sequence[Found], progress: Progress
    ) -> CircuitEvaluation:
        import torch

        from ingest.discovery import CircuitEvaluation, evaluate_circuit

        stage = f"measuring the consensus on {self._prepared.source.slug}"
        edges = [edge.id for edge in agreement.chosen.edges]
        each = [
            evaluate_circuit(found.setting, edges, progress=progress.stage(stage)) for found in of
        ]
        circuit, empty, full = (
            torch.cat([getattr(one, end) for one in each]) for end in ("circuit", "empty", "full")
        )
        return CircuitEvaluation(circuit, empty, full, each[0].ablation)

    def _add(
        self, recorded: RecordedCircuit, evaluations: Sequence[Evaluation], of: str | None
    ) -> None:
        options = self._prepared.configuration
        title = f"{options.title} ({of})" if options.title and of else options.title
        labels = CircuitLabels(title=title, tags=options.tags, author=options.author)
        self._circuits.append(NewCircuit(recorded.circuit, labels=labels))
        self._artifacts.append(recorded.scores)
        self._evaluations += evaluations

    def _row(
        self,
        of: str,
        circuit: Circuit | None,
        evaluations: Sequence[Evaluation],
        n_prompts: int | None,
    ) -> dict[str, Any]:
        return {
            "of": of,
            "circuit": circuit.id if circuit else None,
            "task": self._prepared.source.slug,
            "model": self._prepared.model.slug,
            "edges": len(circuit.edges) if circuit else 0,
            "nodes": len(circuit.nodes) if circuit else 0,
            "faithfulness": evaluations[0].value if evaluations else None,
            "prompts": n_prompts,
        }
