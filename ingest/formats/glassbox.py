"""The result of glassbox's ``analyze()``, kept as JSON.

``{"circuit": [[layer, head], ...], "attributions": {"(9, 6)": x, ...}, "faithfulness": {...},
"model_metadata": {...}}``. Facts that matter here: only heads can be in the circuit, and there are
no edges. There is one prompt; only the corrupt prompt is kept. An attribution is ``gradient *
(clean - corrupted)`` of a difference of two logits, so a positive attribution helps. Sufficiency is
a first-order estimate if ``suff_is_approx``; comprehensiveness is measured. MLPs have attributions
but are never selected: they are kept as parameters. JSON has no tuples as keys, so the keys are the
tuples' text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit, with_sign
from ingest.formats.choosing import choose, is_asked
from ingest.formats.reading import OddScores, as_number, finite, outer_keys, read_json
from ingest.formats.spelling import read_head, read_name
from ingest.formats.universe import whole_model
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Kind, parse_local
from registry.measures import LOGIT_DIFFERENCE
from registry.records import Ablation, Circuit, Evaluation, Level, Model, Node, Sign

__all__ = ["FORMAT", "Glassbox"]

_MEASURES = ("sufficiency", "comprehensiveness", "f1")
_KEPT = ("clean_ld", "corr_prompt", "corruption_metadata", "decision", "mlp_attributions")


class Glassbox:
    """The format."""

    name = "glassbox"
    summary = "glassbox's analyze() as JSON: heads, attributions, faithfulness"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if attributions come with a circuit or their keys are pairs."""
        if path.suffix.lower() != ".json":
            return 0.0
        outer = outer_keys(head)
        shaped = "attributions" in outer and ("circuit" in outer or b'"(' in head)
        return 0.9 if shaped else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a result: its heads are the circuit, its faithfulness gives three evaluations."""
        data = read_json(path, context.limits, odd=True)
        if not isinstance(data, dict) or not isinstance(data.get("circuit"), list):
            raise BadInput(f"{path.name} has no circuit: expected a list of [layer, head]")
        notes: list[str] = []
        about = _object(data, "model_metadata", path.name)
        named = {"model": about.get("model_name"), "method": data.get("method")}
        said = also_in_file(context.said, notes, **named)
        model = _model(said.need("model", "task"), about, path.name)
        circuit, more = _circuit(data, said, model, path.name)
        odd = OddScores()
        # The file's results are about the heads that it selected itself.
        own = not is_asked(said)
        return Imported(
            [circuit],
            models=[model],
            evaluations=_evaluations(data, circuit, path.name, odd) if own else [],
            notes=[
                *notes,
                *more,
                *odd.notes(),
                *([] if own else ["the results for the file's own heads omitted"]),
            ],
        )


FORMAT = Glassbox()


def _circuit(
    data: Mapping[str, Any], said: Said, model: Model, name: str
) -> tuple[Circuit, list[str]]:
    odd = OddScores()
    scores: dict[str, float | None] = {}
    for key, value in _object(data, "attributions", name).items():
        head = _head(key, name)
        if head in scores:
            raise BadInput(f"{name}: {key!r} is {head}, which appears before")
        score = odd.taken(as_number(value, f"{name}: the attribution of {key}"), head)
        scores[head] = with_sign(score, said, f"{name}: {head}")
    listed = [_head(pair, name) for pair in data["circuit"]]
    heads, selection, notes = _chosen(listed, scores, said, name)
    scored = [head for head in heads if scores.get(head) is not None]
    ranked = sorted(scored, key=lambda head: -abs(scores[head] or 0.0))
    ranks = {head: rank for rank, head in enumerate(ranked, 1)}
    about = _object(data, "model_metadata", name)
    version = {key: about[key] for key in ("glassbox_version",) if key in about}
    circuit = edge_circuit(
        said,
        [],
        level=Level.NODE,
        # With sets of answers, the measured values are pooled over them.
        metric=said.metric or (None if "decision" in data else LOGIT_DIFFERENCE.name),
        higher_is_better=True if said.higher_is_better is None else said.higher_is_better,
        ablation=said.ablation or Ablation.RESAMPLE,
        sign=Sign.UNSIGNED if said.sign == "unsigned" else Sign.HELPS_POSITIVE,
        nodes=tuple(
            Node(component=head, effect=scores.get(head), rank=ranks.get(head)) for head in heads
        ),
        selection=selection,
        universe_size=whole_model(scores, model),
        parameters={
            "tool": "glassbox",
            "attributions": scores,
            **finite({**version, **{key: data[key] for key in _KEPT if key in data}}),
        },
    )
    return circuit, [*odd.notes(), *notes]


def _chosen(
    listed: Sequence[str], scores: Mapping[str, float | None], said: Said, name: str
) -> tuple[Sequence[str], dict[str, Any] | None, Sequence[str]]:
    """Return the heads that the file lists, or the heads of largest attribution."""
    if not is_asked(said):
        return listed, None, ()
    heads = list(dict.fromkeys((*scores, *listed)))
    marks = [head in set(listed) for head in heads]
    choice = choose([scores.get(head) for head in heads], marks, said, name, "head")
    return [heads[at] for at in choice.places], choice.selection, choice.notes


def _evaluations(
    data: Mapping[str, Any], circuit: Circuit, name: str, odd: OddScores
) -> list[Evaluation]:
    """Return the three results, each with the tool's category."""
    figures = _object(data, "faithfulness", name)
    values = {
        key: odd.taken(as_number(figures.get(key), f"{name}: faithfulness.{key}"), key)
        for key in _MEASURES
    }
    about = {"tool": "glassbox", "category": figures.get("category")}
    estimated = figures.get("suff_is_approx")
    return [
        Evaluation(
            circuit=circuit.id,
            task=circuit.task,
            measure=measure,
            value=value,
            n_prompts=1,
            # The harmonic mean of an estimate and a measured value is also an estimate.
            parameters={**about, "estimated": estimated and measure != "comprehensiveness"},
        )
        for measure, value in values.items()
        if value is not None
    ]


def _model(slug: str, about: Mapping[str, Any], name: str) -> Model:
    sizes: dict[str, int] = {}
    for field in ("n_layers", "n_heads", "d_model", "d_head"):
        value = about.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise BadInput(f"{name}: model_metadata.{field} is {value!r}, no number of at least 1")
        sizes[field] = value
    return Model(slug=slug, **sizes)


def _head(given: Any, name: str) -> str:
    """Return ``a9.h6`` for ``[9, 6]``, ``"(9, 6)"`` or a head's name such as ``"L9H6"``."""
    if isinstance(given, list) and len(given) == 2:
        layer, head = given
        if all(type(one) is int and 0 <= one < 10**9 for one in given):
            return f"a{layer}.h{head}"
    if isinstance(given, str):
        if (head := read_head(given)) is not None:
            return head
        with contextlib.suppress(BadIdentifier):
            local, port = read_name(given)
            if port is None and parse_local(local).kind is Kind.HEAD:
                return local
    raise BadInput(f"{name}: {str(given)[:80]!r} is no head such as [9, 6] or '(9, 6)'")


def _object(data: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    found = data.get(key)
    if found is not None and not isinstance(found, dict):
        raise BadInput(f"{name}: {key} is no object")
    return found or {}
