"""Prompts of sequence continuation, kept as one file of lines.

``{"task", "selection", "prompts": {template: [{"S1": ..., "S4": ..., "corr", "incorr",
"text"}]}}``. In the sets for mean ablation, ``S1`` to ``S4`` do not match the texts. The model
received the text, so only the text is kept. The file does not give the tokens or the pairs of clean
and corrupt prompts, so jobs cannot run on such a set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.formats.base import Context, Imported
from ingest.formats.building import also_in_file
from ingest.formats.sequence_continuation.tasks import task_slug
from registry.canonical import canonical_json
from registry.errors import BadInput
from registry.records import PromptSet, Task

__all__ = ["read_prompts"]

_FORMAT = "circuits-texts/1"
_SHOWN = re.compile(r"\bin (\w+)\.")
_MEMBERS = ("S1", "S2", "S3", "S4")


def read_prompts(data: Mapping[str, Any], name: str, context: Context) -> Imported:
    """Read a set of prompts.

    Raises:
        BadInput: It is malformed or empty, or no task is given.
    """
    notes: list[str] = []
    said = also_in_file(context.said, notes, task=task_slug(data.get("task")))
    task = said.need("task")
    rows = list(_rows(data["prompts"], name))
    if not rows:
        raise BadInput(f"{name} holds no prompts")
    if len(rows) > context.limits.max_edges:
        raise BadInput(
            f"{name} has {len(rows):,} prompts and {context.limits.max_edges:,} lines are allowed;"
            " --max-edges raises that"
        )
    artifact = _artifact(task, data.get("selection"), [line for line, _ in rows], name)
    address = hashlib.sha256(artifact).hexdigest()
    templates = len({line["template"] for line, _ in rows})
    notes.append(f"{len(rows):,} prompts of {templates} templates")
    differing = sum(differs for _, differs in rows)
    if differing:
        notes.append(
            f"{differing:,} texts show other members than S1 to S4 next to them; the texts are used"
        )
    return Imported(
        tasks=[Task(slug=task, family=task.partition("/")[0])],
        prompt_sets=[PromptSet(id=address, task=task, n_prompts=len(rows), artifact=address)],
        artifacts=[artifact],
        notes=notes,
    )


def _rows(templates: Mapping[str, Any], name: str) -> Iterator[tuple[dict[str, str], bool]]:
    """Yield each prompt as a line, and whether its members differ from its text."""
    for template, prompts in templates.items():
        if not isinstance(prompts, list):
            raise BadInput(f"{name}: the prompts of {template!r} are no list")
        for at, prompt in enumerate(prompts, 1):
            where = f"{name}: prompt {at} of {template!r}"
            if not isinstance(prompt, dict):
                raise BadInput(f"{where} is no object with text, corr and incorr")
            texts = {ours: _text(prompt, key, where) for ours, key in _FIELDS.items()}
            shown = _SHOWN.findall(texts["text"])
            members = [prompt[key] for key in _MEMBERS if key in prompt]
            yield {"template": template, **texts}, bool(members) and members != shown


_FIELDS = {"text": "text", "correct": "corr", "wrong": "incorr"}


def _text(prompt: Mapping[str, Any], key: str, where: str) -> str:
    text = prompt.get(key)
    if not isinstance(text, str) or not text:
        raise BadInput(f"{where} has no {key}, which must be a text")
    return text


def _artifact(task: str, selection: Any, lines: list[dict[str, str]], name: str) -> bytes:
    header = {"format": _FORMAT, "task": task}
    if isinstance(selection, str):
        header["selection"] = selection
    try:
        return "".join(f"{canonical_json(line)}\n" for line in [header, *lines]).encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{name} holds half a character, which is no text") from error
