"""Data sets of requests for edits, which hold what to change and nothing that was measured.

CounterFact, ZsRE, KnowEdit and MQuAKE look like the results of an editor that was run on them: the
same requests, often under the same names. They are told by their keys, so that they are refused by
name. Used by :mod:`ingest.formats.easyedit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingest.formats.base import NoRecords
from ingest.formats.easyedit_figures import figures

__all__ = ["looks_like_data_set", "refuse_data_set"]

_SIDES = ("pre", "post")
_OF_COUNTERFACT = (
    "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts",
    "pararel_idx",
)  # fmt: skip
_SHAPES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("MQuAKE", (), ("single_hops", "new_single_hops")),
    ("MQuAKE", ("requested_rewrite", "questions"), ()),
    ("CounterFact", ("requested_rewrite",), _OF_COUNTERFACT),
    ("CounterFact", ("target_new", "rephrase_prompt", "locality_prompt"), ()),
    ("ZsRE", ("src", "alt", "answers"), ()),
    ("ZsRE", ("src", "loc_ans"), ()),
    ("KnowEdit", ("target_new", "prompt"), ("portability", "locality", "rephrase_prompt")),
    ("KnowEdit", ("text", "labels", "locality"), ()),
)
"""Name, keys that a record has all of, and keys that it has one of."""


def refuse_data_set(records: Sequence[Any], name: str) -> None:
    """Refuse records that all are requests.

    Args:
        records: A file's, as JSON has them.
        name: The file's.

    Raises:
        NoRecords: They are; the text names the data set by its shape.
    """
    objects = [record for record in records if isinstance(record, dict)]
    if not objects or any(
        _is_measured(one, f"{name}, record {at}") for at, one in enumerate(objects)
    ):
        return
    shape = _shape(objects[0])
    if shape is None and not all("requested_rewrite" in record for record in objects):
        return
    what = "requests" if shape is None else f"requests in the shape of {shape}"
    raise NoRecords(
        f"{name} is a data set of {what} ({len(records):,} records): nothing was edited or"
        " measured, so that there is no edit to record; import what an editor wrote after it ran"
        " on them"
    )


def looks_like_data_set(head: bytes) -> bool:
    """Whether the keys of a data set stand in a file's first bytes."""
    return any(
        all(f'"{key}"'.encode() in head for key in every)
        and (not some or any(f'"{key}"'.encode() in head for key in some))
        for _, every, some in _SHAPES
    )


def _is_measured(record: Mapping[str, Any], place: str) -> bool:
    if any(record.get(side) for side in _SIDES):
        return True
    return bool(figures({k: v for k, v in record.items() if k != "requested_rewrite"}, place))


def _shape(record: Mapping[str, Any]) -> str | None:
    for shape, every, some in _SHAPES:
        if all(key in record for key in every) and (not some or any(key in record for key in some)):
            return shape
    return None
