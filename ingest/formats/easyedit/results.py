"""Results of EasyEdit, ROME and MEMIT: one edit per record, measured before and after.

``[{"case_id", "requested_rewrite": {...}, "time", "pre": {...}, "post": {...}}]``, a single such
record, or one per line; any part may be missing. The records may also be in ``metrics`` of an
object, as people write them together with their configuration. Results are scalars or lists by
version; of a list the mean is recorded with its length, and the list itself stays in the original.
``rewrite_acc`` and ``rephrase_acc`` are in ``pre`` and ``post``, others in their sections:
``locality/KEY_acc``, ``portability/KEY_acc``, ``fluency/ngram_entropy``.

Numbers that describe the settings of an edit and not its quality (``num_edits``,
``grouped_case_ids``, ``seed``, ...) are not results, and neither is ``time`` if several edits took
it together. ROME and MEMIT write likelihoods of both answers to each prompt
(``rewrite_prompts_probs``), from which success and difference are computed
(:mod:`ingest.formats.easyedit.likelihoods`). Other lists of objects are omitted, with a note. A
data set of requests, without edits or measurements, is refused by its name
(:mod:`ingest.formats.easyedit.datasets`).

Two files with the same request, editor and model but different results contain two edits
(:mod:`ingest.exchange.told_apart`).

One name may mean teacher-forced accuracy, a match of generations or a judge's verdict. Files since
June 2026 state which one (``metric_meta``); for others the protocol is unknown unless the user
gives it. If locality is given only as token ids, before and after, their match is computed.

Model, editor and edited layers are in the file of hyperparameters that a user names
(:mod:`ingest.formats.easyedit.hyperparameters`); ``requested_rewrite`` is kept as the request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingest.formats.base import Context, Imported, ModelDoubt, Said
from ingest.formats.easyedit.datasets import looks_like_data_set, refuse_data_set
from ingest.formats.easyedit.figures import (
    Figure,
    Figures,
    figures,
    matches,
    member,
    protocols,
)
from ingest.formats.easyedit.hyperparameters import (
    Hyperparameters,
    parts_of,
    read_hyperparameters,
    summarised,
)
from ingest.formats.easyedit.likelihoods import LIKELIHOODS, likelihoods
from ingest.formats.easyedit.notes import COMPUTED, ReadingNotes, n_together
from ingest.formats.reading import check_count, finite, read_json_or_lines
from ingest.models.names import model_slug
from registry.errors import BadInput
from registry.models.known_models import common_model
from registry.records import Edit, Outcome
from registry.texts.problems import first_problem

__all__ = ["COMPUTED", "FORMAT", "EasyEditResults", "read_hyperparameters"]

_UNKNOWN = "unknown"
_RECORD_KEYS = frozenset({"pre", "post", "case_id", "requested_rewrite", "time", "metric_meta"})
_SIDES = frozenset({"pre", "post", "requested_rewrite"})
_MARKS = (
    b'"requested_rewrite"',
    b'"grouped_case_ids"',
    b'"rewrite_acc"',
    b'"rewrite_ppl"',
    b'"rewrite_gen_content"',
)
# Longer names first, so R-ROME is not read as ROME.
_EDITORS = (
    "AlphaEdit", "InstructEdit", "DeepEdit", "UltraEdit", "R-ROME", "MALMEN", "SPHERE", "DEFER",
    "EAMET", "EMMET", "GRACE", "MEMIT", "QLoRA", "SERAC", "SimIE", "DINM", "LoRA", "MELO", "MEND",
    "PMET", "ROME", "UnKE", "WISE", "DPO", "IKE", "FT-L", "FT-M", "FT", "KE", "KN",
)  # fmt: skip
_NAMED = {
    editor: re.compile(rf"(?<![A-Za-z0-9]){editor}(?![A-Za-z0-9])", re.IGNORECASE)
    for editor in _EDITORS
}


class EasyEditResults:
    """The format."""

    name = "easyedit-results"
    summary = "results of EasyEdit, ROME, MEMIT (JSON or JSON Lines), with hyperparameters (YAML)"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if records of edits, or their first results, are at the beginning."""
        if path.suffix.lower() not in {".json", ".jsonl"} or not head.lstrip(
            b"\xef\xbb\xbf \t\r\n"
        ).startswith((b"[", b"{")):
            return 0.0
        if any(mark in head for mark in _MARKS):
            return 0.9
        if b'"case_id"' in head and b'"post"' in head:
            return 0.7
        return 0.3 if looks_like_data_set(head) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read every record as an edit with its outcomes."""
        try:
            return self._read(path, context)
        except RecursionError as error:
            raise BadInput(f"{path.name} is nested too deeply") from error

    def _read(self, path: Path, context: Context) -> Imported:
        records = _records(read_json_or_lines(path, context.limits, odd=True), path.name)
        check_count(len(records), "records", path.name, context.limits)
        setup = _setup(path, context)
        edits: dict[str, Edit] = {}
        outcomes: list[Outcome] = []
        notes = ReadingNotes(path.name, len(records))
        # Needed for records without a request alone, and then once for all of them.
        digest = cache(lambda: hashlib.sha256(path.read_bytes()).hexdigest())
        for index, record in enumerate(records):
            place = f"{path.name}, record {index}"
            try:
                edit = _edit(record, setup, place, index, digest)
                if edit.id in edits:
                    request = {**edit.request, "record": index}
                    edit = edit.model_copy(update={"request": request})
                edits[edit.id] = edit
                outcomes += _outcomes(record, edit.id, setup.said, place, notes)
            except ValidationError as error:
                raise BadInput(f"{place}: {first_problem(error)}") from error
            notes.look_at(record)
        return Imported(
            edits=list(edits.values()),
            outcomes=outcomes,
            beside=[] if setup.said.hyperparameters is None else [setup.said.hyperparameters],
            notes=[*setup.notes, *notes.summary(setup.said)],
        )


FORMAT = EasyEditResults()


# -- facts that all edits of a file share ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Setup:
    """Facts that the edits of one file share.

    Attributes:
        uncertain: Doubts for every edit's note, because they affect all of its results.
    """

    said: Said
    model: str
    editor: str
    hyperparameters: Hyperparameters
    components: tuple[str, ...]
    uncertain: tuple[str, ...]
    notes: tuple[str, ...]


def _setup(path: Path, context: Context) -> _Setup:
    said = context.said
    options = Hyperparameters()
    notes: list[str] = []
    if said.hyperparameters is None:
        notes.append("no hyperparameters are given: which parts were edited is unknown")
    else:
        options = read_hyperparameters(said.hyperparameters, context.limits)
    model, uncertain = _model(said, options)
    editor = _editor(path, said, options, notes)
    parts = {module: parts_of(module, common_model(model)) for module in options.edited_modules}
    notes += _linking(parts)
    if said.hyperparameters is not None and not parts:
        notes.append(f"{said.hyperparameters.name} names no edited module")
    components = tuple(part for found in parts.values() for part in found)
    notes += uncertain
    return _Setup(said, model, editor, options, components, tuple(uncertain), tuple(notes))


def _linking(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return notes on the parts that edited modules were linked to, and on unlinked modules."""
    known = [module for module, found in parts.items() if found]
    unknown = [module for module, found in parts.items() if not found]
    notes = []
    if known:
        names = [name for module in known for name in parts[module]]
        notes.append(f"{summarised(known)} read as {summarised(names)}")
    if unknown:
        notes.append(
            f"{summarised(unknown)} not linked: no part of a known model, or heads whose number is"
            " unknown"
        )
    return notes


def _model(said: Said, options: Hyperparameters) -> tuple[str, list[str]]:
    """Return the edited model's slug, and a doubt if user and hyperparameters disagree."""
    named = model_slug(options.model_name or "")
    if said.model is None:
        return named or said.need("model"), []
    model = model_slug(said.model)
    if named and named != model:
        doubt = f"model uncertain: the hyperparameters are for {named}, not {model}"
        return model, [ModelDoubt(doubt)]
    return model, []


def _editor(path: Path, said: Said, options: Hyperparameters, notes: list[str]) -> str:
    if said.method and options.alg_name and said.method.lower() != options.alg_name.lower():
        notes.append(f"editor {said.method}, but the hyperparameters are for {options.alg_name}")
    if given := said.method or options.alg_name:
        return given
    folders = [said.hyperparameters] if said.hyperparameters else []
    for name in (path.stem, *(one.resolve().parent.name for one in (*folders, path))):
        if editor := _editor_in(name):
            notes.append(f"editor {editor} read from the name {name!r}")
            return editor
    notes.append("the editor is unknown; give it with --method")
    return _UNKNOWN


@lru_cache
def _editor_in(name: str) -> str | None:
    """Return the editor in a file's or folder's name; the files of a run are in one folder."""
    return next((editor for editor, named in _NAMED.items() if named.search(name)), None)


# -- records ---------------------------------------------------------------------------------------


def _records(data: Any, name: str) -> list[Mapping[str, Any]]:
    records = _bare([data] if isinstance(data, dict) else data)
    if not isinstance(records, list) or not records:
        raise BadInput(f"{name} holds no record: expected a list of objects with pre and post")
    refuse_data_set(records, name)
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not record.keys() & _SIDES:
            raise BadInput(f"{name}: record {index} is no object with pre, post, requested_rewrite")
    if not any(record.keys() & {"post", "requested_rewrite"} for record in records):
        raise BadInput(f"{name} has only results from before an edit: no record has a post")
    return records


def _bare(data: Any) -> Any:
    """Return the records without a wrapping object: ``metrics``, as the editor calls them."""
    if not isinstance(data, list):
        return data
    records: list[Any] = []
    for one in data:
        inside = one.get("metrics") if isinstance(one, dict) and not one.keys() & _SIDES else None
        if isinstance(inside, list):
            records += inside
        else:
            records.append(one if inside is None else inside)
    return records


def _edit(
    record: Mapping[str, Any], setup: _Setup, place: str, index: int, digest: Callable[[], str]
) -> Edit:
    said = finite(member(record, "requested_rewrite", place), place)
    case = finite(record.get("case_id"), place)
    notes = list(setup.uncertain)
    if not said:
        # Edits of unknown content are distinguished by their place, for any file name.
        identity = f"record {index} of file {digest()[:12]}"
        notes.append(f"the requested change is not in the file ({identity})")
    if case is not None and not isinstance(case, int | str):
        raise BadInput(f"{place}: case_id is {type(case).__name__}, no number or text")
    about = {"case_id": case, "num_edits": n_together(record)}
    return Edit(
        model=setup.model,
        editor=setup.editor,
        hyperparameters=setup.hyperparameters.values,
        request={**said, **{key: value for key, value in about.items() if value is not None}},
        restriction="layers" if setup.hyperparameters.edited_modules else None,
        components=setup.components,
        note="; ".join(notes) or None,
    )


def _outcomes(
    record: Mapping[str, Any], edit: str, said: Said, place: str, notes: ReadingNotes
) -> list[Outcome]:
    pre, post = (member(record, name, place) for name in ("pre", "post"))
    whole = protocols(record, place)
    rest = {key: value for key, value in record.items() if key not in _RECORD_KEYS}
    before, after = (
        _taken(
            figures(_without_likelihoods(side), place, notes.left_out),
            whole | protocols(side, place),
            said,
        )
        | likelihoods(side, place, notes.left_out.odd)
        for side in (pre, post)
    )
    beside = _taken(figures(rest, place, notes.left_out), whole, said)
    _check_alike(beside, after, place)
    after = beside | after
    # A value that several edits took together is not a result of one of them.
    timed = {} if n_together(record) else {"time_seconds": record.get("time")}
    taken = figures(timed, place, notes.left_out)
    after |= {(name, "wall-clock"): figure for name, figure in taken.items()}
    matched = matches(*(finite(member(side, "locality", place), place) for side in (pre, post)))
    notes.matched(matched)
    after |= {(name, COMPUTED): figure for name, figure in matched.items() if figure}
    return [
        _outcome(edit, said.task, taken, before.get(taken), after.get(taken))
        for taken in dict.fromkeys([*before, *after])
    ]


def _check_alike(
    beside: Mapping[tuple[str, str], Figure], after: Mapping[tuple[str, str], Figure], place: str
) -> None:
    """Refuse a result that a record gives twice, next to ``post`` and in it, with two values."""
    for (name, protocol), figure in beside.items():
        other = after.get((name, protocol), figure)
        if other != figure:
            raise BadInput(
                f"{place}: {name} is {figure[0]:g} next to post and {other[0]:g} in it; it is"
                " unknown which of them was measured after the edit"
            )


def _without_likelihoods(side: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in side.items() if key not in LIKELIHOODS}


def _taken(
    found: Figures, by_metric: Mapping[str, str], said: Said
) -> dict[tuple[str, str], Figure]:
    """Return results by metric and protocol, because before and after must agree in both."""
    otherwise = said.protocol or _UNKNOWN
    return {(name, by_metric.get(name, otherwise)): one for name, one in found.items()}


def _outcome(
    edit: str,
    task: str | None,
    taken: tuple[str, str],
    before: Figure | None,
    after: Figure | None,
) -> Outcome:
    counts = {side[1] for side in (before, after) if side is not None}
    return Outcome(
        edit=edit,
        metric=taken[0],
        protocol=taken[1],
        task=task,
        before=before and before[0],
        after=after and after[0],
        n_prompts=counts.pop() if len(counts) == 1 else None,
    )
