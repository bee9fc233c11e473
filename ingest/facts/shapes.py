"""The shapes that a record of a fact has in files, and a fact of each of them.

A record is checked whole: a key that its shape does not have is an error, and so is a text that is
missing, empty or too long. Keys of other data sets that no fact needs are known and not read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.facts.base import SUBJECT, Fact
from registry.errors import BadInput
from registry.limits import check_length

__all__ = ["COUNTERFACT", "PLAIN", "ZSRE", "Shape", "check_known", "fact_of", "shape_of"]

_SHOWN = 60
_LARGEST_CASE = 2**63
_REWRITE = "requested_rewrite"


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of records.

    Attributes:
        name: Its name, for errors.
        needed: Keys that each record has.
        optional: Keys that are read where a record has them.
        unread: Other keys that records of the data set have.
    """

    name: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    unread: tuple[str, ...] = ()


PLAIN = Shape(
    "a fact",
    ("prompt", "subject", "target_new"),
    ("target_true", "paraphrases", "neighbours"),
)
"""This project's own shape, as JSON or as columns of a table."""

COUNTERFACT = Shape(
    "a record of CounterFact",
    (_REWRITE,),
    ("case_id", "paraphrase_prompts", "neighborhood_prompts"),
    ("pararel_idx", "attribute_prompts", "generation_prompts", "portability"),
)
"""The shape of CounterFact (Meng et al. 2022, arXiv 2202.05262), and of HierarchyData."""

_REWRITE_SHAPE = Shape(
    _REWRITE,
    ("prompt", "subject", "target_new"),
    ("target_true",),
    ("relation_id", "question"),
)

ZSRE = Shape(
    "a record of zsRE",
    ("subject", "src", "alt"),
    ("answers", "rephrase", "case_id"),
    ("pred", "loc", "loc_ans", "cond", "portability"),
)
"""The shape of zsRE as MEND has it (Mitchell et al. 2021, arXiv 2110.11309)."""


def shape_of(record: Mapping[str, Any]) -> Shape:
    """Return the shape that the keys of a record tell; the plain one if none other does."""
    if _REWRITE in record:
        return COUNTERFACT
    return ZSRE if "src" in record else PLAIN


def fact_of(record: Any, shape: Shape, where: str) -> Fact:
    """Return the fact of a record.

    Args:
        record: As JSON has it.
        shape: Its shape.
        where: The file and the place of the record in it, for errors.

    Raises:
        BadInput: The record has not this shape; the text names its place.
    """
    try:
        if not isinstance(record, dict):
            raise BadInput(
                f"a fact is an object with {', '.join(map(repr, shape.needed))}; "
                f"got {_shown(record)}"
            )
        check_known(record, shape)
        return _BUILD[shape](record)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def check_known(keys: Collection[str], shape: Shape, what: str = "key") -> None:
    """Refuse keys that a shape does not have, and keys without those that it needs.

    Args:
        keys: The keys of a record, or the columns of a table.
        shape: Its shape.
        what: The term for a key.

    Raises:
        BadInput: A key is unknown or missing; the text names the known ones.
    """
    read = (*shape.needed, *shape.optional)
    unknown = next((key for key in keys if key not in (*read, *shape.unread)), None)
    missing = next((key for key in shape.needed if key not in keys), None)
    if unknown is None and missing is None:
        return
    wrong = f"is missing the {what} {missing!r}" if unknown is None else ""
    raise BadInput(
        f"{wrong or f'has the unknown {what} {unknown!r:.80}'}; {shape.name} has "
        f"{', '.join(shape.needed)}, and may have {', '.join(shape.optional)}"
    )


def _plain(record: Mapping[str, Any]) -> Fact:
    subject = _text(record, "subject")
    true = record.get("target_true")
    return Fact(
        prompt=_placed(_text(record, "prompt"), subject),
        subject=subject,
        target_new=_text(record, "target_new"),
        target_true=None if true is None else _text(record, "target_true"),
        paraphrases=_filled(_texts(record, "paraphrases"), subject),
        neighbours=_filled(_texts(record, "neighbours"), subject),
    )


def _of_counterfact(record: Mapping[str, Any]) -> Fact:
    rewrite = record[_REWRITE]
    if not isinstance(rewrite, dict):
        raise BadInput(f"{_REWRITE!r} must be one object; got {_shown(rewrite)}")
    check_known(rewrite, _REWRITE_SHAPE)
    subject = _text(rewrite, "subject")
    true = rewrite.get("target_true")
    return Fact(
        prompt=_placed(_text(rewrite, "prompt"), subject),
        subject=subject,
        target_new=_target(rewrite, "target_new"),
        target_true=None if true is None else _target(rewrite, "target_true"),
        paraphrases=_filled(_texts(record, "paraphrase_prompts"), subject),
        neighbours=_filled(_texts(record, "neighborhood_prompts"), subject),
        case=_case(record),
    )


def _of_zsre(record: Mapping[str, Any]) -> Fact:
    subject, answers = _text(record, "subject"), _texts(record, "answers")
    rephrase = record.get("rephrase")
    return Fact(
        prompt=_placed_in_question(_text(record, "src"), subject),
        subject=subject,
        target_new=_text(record, "alt"),
        target_true=answers[0] if answers else None,
        paraphrases=(
            (_text(record, "rephrase"),)
            if isinstance(rephrase, str)
            else _texts(record, "rephrase")
        ),
        case=_case(record),
    )


_BUILD: Mapping[Shape, Callable[[Mapping[str, Any]], Fact]] = {
    PLAIN: _plain,
    COUNTERFACT: _of_counterfact,
    ZSRE: _of_zsre,
}


def _placed(prompt: str, subject: str) -> str:
    """Return a prompt with ``{}`` in place of its subject, if it has none and the place is clear.

    Raises:
        BadInput: The subject is not in the prompt, or several times.
    """
    if SUBJECT in prompt:
        return prompt
    places = _places(prompt, subject)
    if len(places) == 1:
        return prompt.replace(subject, SUBJECT)
    found = f"has its subject {subject[:_SHOWN]!r} {len(places)} times and {SUBJECT} nowhere"
    if not places:
        found = f"has neither {SUBJECT} nor its subject {subject[:_SHOWN]!r}"
    raise BadInput(
        f"the prompt {prompt[:_SHOWN]!r} {found}; write {SUBJECT} once, where the subject is"
    )


def _placed_in_question(question: str, subject: str) -> str:
    """Return a question with ``{}`` for its subject where this is a whole word first.

    A subject such as ``Ada`` may also be a part of another word.

    Raises:
        BadInput: The subject is not in the question.
    """
    places = _places(question, subject)
    if not places:
        raise BadInput(
            f"'src' must contain its subject {subject[:_SHOWN]!r}; got {question[:_SHOWN]!r}"
        )
    end = len(subject)
    at = next((at for at in places if _is_whole(question, at, at + end)), places[0])
    return question[:at] + SUBJECT + question[at + end :]


def _is_whole(text: str, start: int, end: int) -> bool:
    """Return whether no letter or digit stands directly before or after a part of a text."""
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())


def _places(text: str, part: str) -> list[int]:
    """Return where a part begins in a text, also where two of them overlap."""
    found, at = [], text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _filled(templates: tuple[str, ...], subject: str) -> tuple[str, ...]:
    return tuple(one.replace(SUBJECT, subject) for one in templates)


def _target(record: Mapping[str, Any], key: str) -> str:
    """Return a target that is a text, or an object with its text as ``str``."""
    target = record[key]
    if not isinstance(target, dict):
        return _text(record, key)
    if "str" not in target:
        raise BadInput(f"{key!r} is an object without 'str', which has the text")
    return _checked(target["str"], key)


def _text(record: Mapping[str, Any], key: str) -> str:
    return _checked(record[key], key)


def _texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = record.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadInput(f"{key!r} must be a list of texts; got {_shown(value)}")
    return tuple(_checked(one, f"{key}, text {at}") for at, one in enumerate(value))


def _checked(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{key!r} must be a text that is not empty; got {_shown(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{key!r} holds half a character, such as \\ud800; write it whole")
    check_length("text", value)
    return value


def _case(record: Mapping[str, Any]) -> int | str | None:
    case = record.get("case_id")
    if case is None:
        return None
    if isinstance(case, str):
        return _checked(case, "case_id")
    if isinstance(case, bool) or not isinstance(case, int) or abs(case) >= _LARGEST_CASE:
        raise BadInput(
            f"'case_id' must be a text or a whole number below 2**63; got {_shown(case)}"
        )
    return case


def _shown(value: Any) -> str:
    """Show a value in an error; lists and objects may be nested too deeply for ``repr``."""
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    return f"{value!r:.80}"
