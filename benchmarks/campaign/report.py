"""The report of a campaign as one page of Markdown."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from campaign.plan import PARTS, Plan
from campaign.tally import Tally

__all__ = ["report"]

_SHOWN = 20
_LONGEST_CELL = 120
_TARGETS = {part.name: f"`{part.name}`" for part in PARTS}


def report(plan: Plan, title: str, command: str, tally: Tally, lines: Sequence[str]) -> str:
    """The plan, the results, and the lines printed during the campaign."""
    return "\n".join([*_head(plan, title, command), *_body(tally), *_course(lines)]) + "\n"


def _head(plan: Plan, title: str, command: str) -> Iterator[str]:
    writers = sum(part.count for part in PARTS if part.name == "write")
    readers = sum(part.count for part in PARTS if part.name == "read")
    yield f"# Data after kills of processes: {title}"
    yield ""
    yield f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}, with Python"
    yield f"{platform.python_version()} on {os.cpu_count()} processors."
    yield ""
    minutes = f"{plan.seconds / 60:g}"
    yield f"For {minutes} minutes, {writers} processes wrote, {readers} read, and one process"
    yield "each ran `sync`, `rebuild`, `backup`, `gc` and `import` continuously on one registry."
    yield "At random times one of them, or a server, was killed (SIGKILL) and restarted. Every"
    yield "few minutes all were killed, the registry was checked, and a new registry was started."
    yield ""


def _body(tally: Tally) -> Iterator[str]:
    yield "| fault | number |"
    yield "|---|---:|"
    for name, found in _wrong(tally).items():
        yield f"| {name} | {len(found)} |"
    yield ""
    yield from _table("killed", {_TARGETS.get(k, k): n for k, n in tally.kills.items()})
    yield from _table("acknowledged", tally.acknowledged)
    yield from _table("finished steps", tally.done)
    yield from _table("expected errors caused by kills", _with_examples(tally))
    yield from _table("checked at the ends of rounds", tally.checked)
    for name, found in _wrong(tally).items():
        yield from _texts(name, found)


def _wrong(tally: Tally) -> dict[str, list[str]]:
    return {
        "acknowledged records that are missing": tally.losses,
        "answers with incomplete circuits": tally.halves,
        "answers with fewer circuits, without a warning": tally.falls,
        "other faults": tally.faults,
    }


def _with_examples(tally: Tally) -> dict[str, int]:
    return {f"{kind}: {_one_cell(tally.examples[kind])}": n for kind, n in tally.errors.items()}


def _one_cell(text: str) -> str:
    # The addresses of a round's stores are of no use to a reader.
    short = re.sub(r"\S+://\S+[^\s:;,]|/\S+/[^\s\"]+", "ADDRESS", " ".join(text.split()))
    short = short.replace("|", "/")
    return short if len(short) <= _LONGEST_CELL else short[:_LONGEST_CELL] + "..."


def _table(name: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"| {name} | {sum(counts.values()):,} |"
    yield "|---|---:|"
    for key, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        yield f"| {key} | {count:,} |"
    yield ""


def _texts(name: str, found: Sequence[str]) -> Iterator[str]:
    if found:
        yield f"## {name.capitalize()}"
        yield ""
        yield "```"
        yield from (text.rstrip() for text in found[:_SHOWN])
        if len(found) > _SHOWN:
            yield f"... and {len(found) - _SHOWN} more"
        yield "```"
        yield ""


def _course(lines: Sequence[str]) -> Iterator[str]:
    yield "## Course"
    yield ""
    yield "```"
    yield from lines
    yield "```"
