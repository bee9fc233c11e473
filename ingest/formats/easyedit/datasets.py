"""Data sets of requests for edits, which contain requests and no measurements.

CounterFact, ZsRE, KnowEdit and MQuAKE look like the results of an editor that ran on them: the same
requests, often under the same names. They are recognised by their keys, so the refusal can name
them. Used by :mod:`ingest.formats.easyedit.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingest.formats.base import NoRecords
from ingest.formats.easyedit.figures import figures

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
"""Name, keys that a record must all have, and keys of which it must have at least one."""


def refuse_data_set(records: Sequence[Any], name: str) -> None:
    """Refuse records that are all requests.

    Args:
        records: The records of a file, as JSON has them.
        name: The file's name.

    Raises:
        NoRecords: All are requests; the text names the data set by its keys.
    """
    objects = [record for record in records if isinstance(record, dict)]
    if not objects or any(
        _is_measured(one, f"{name}, record {at}") for at, one in enumerate(objects)
    ):
        return
    shape = _shape(objects[0])
    if shape is None and not all("requested_rewrite" in record for record in objects):
        return
    what = "requests" if shape is None else f"requests in the format of {shape}"
    raise NoRecords(
        f"{name} is a data set of {what} ({len(records):,} records): nothing was edited or"
        " measured, so there is no edit to record; import the file that an editor wrote after"
        " it ran on them"
    )


def looks_like_data_set(head: bytes) -> bool:
    """Return whether a file's first bytes have the keys of a data set."""
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
