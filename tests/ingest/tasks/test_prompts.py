"""Which prompts are kept, what is counted, and the file that keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pytest

from ingest.tasks import TokenPair, find_task
from ingest.tasks.prompts import Judge, KeptPrompts, Verdict, keep_answered, read_kept
from registry.errors import BadInput, TooFewPrompts
from tests.ingest.tasks.words import WholeWords


def _every(nth: int) -> Judge:
    """A model that is right on every n-th prompt it is ever asked, and sure on every second."""
    asked = 0

    def judge(pairs: Sequence[TokenPair]) -> list[Verdict]:
        nonlocal asked
        said = []
        for _ in pairs:
            said.append(Verdict(correct=asked % nth == 0, top1=asked % (2 * nth) == 0))
            asked += 1
        return said

    return judge


def _keep(
    judge: Judge, n: int | None, at_least: int = 1, opening: tuple[int, ...] = ()
) -> KeptPrompts:
    return keep_answered(
        find_task("ioi"), judge, encode=WholeWords(), model="m", opening=opening, seed=1, n=n,
        at_least=at_least,
    )  # fmt: skip


def test_shares_are_of_the_prompts_that_were_asked() -> None:
    kept = _keep(_every(4), 16)
    assert len(kept.pairs) == 16
    right, sure = range(0, kept.n_drawn, 4), range(0, kept.n_drawn, 8)
    assert kept.share_correct == len(right) / kept.n_drawn
    assert kept.share_top1 == len(sure) / kept.n_drawn


def test_no_more_prompts_are_asked_than_are_likely_needed() -> None:
    assert _keep(_every(1), 16).n_drawn == 16
    assert 61 <= _keep(_every(4), 16).n_drawn <= 68


def test_kept_prompts_are_the_answered_ones_in_the_order_drawn() -> None:
    drawn = find_task("ioi").make(1, 32, WholeWords())
    assert _keep(_every(4), 8).pairs == drawn[::4]


def test_too_few_right_answers_end_in_an_error_that_counts_them() -> None:
    with pytest.raises(TooFewPrompts, match="in 3 of 256 prompts of ioi; at least 5 are needed"):
        _keep(_every(100), 20, at_least=5)


def test_the_file_is_named_by_its_hash_and_tells_prompts_and_bos_apart() -> None:
    plain, again, with_bos = (_keep(_every(1), 4, opening=given) for given in ((), (), (999,)))
    assert plain.record == again.record
    assert plain.record.id == hashlib.sha256(plain.artifact).hexdigest()
    assert plain.record.id != with_bos.record.id
    header, first, *rest = map(json.loads, with_bos.artifact.decode().splitlines())
    assert header == {"format": "circuits-prompts/1", "task": "ioi", "model": "m", "bos": True}
    assert (first["clean_ids"][0], first["corrupt_ids"][0]) == (999, 999)
    assert first["clean"] == with_bos.pairs[0].text.clean
    assert len(rest) == 3


@pytest.mark.parametrize("opening", [(), (999,), (998, 999)])
def test_kept_prompts_are_read_back_as_they_were(opening: tuple[int, ...]) -> None:
    kept = _keep(_every(1), 4, opening=opening)
    assert read_kept(kept.artifact) == kept.pairs


@pytest.mark.parametrize(
    "artifact",
    [b"", b"{}", b"\xff", b'{"format": "circuits-prompts/2"}', b"not json", b"[1]"],
)
def test_a_file_of_something_else_is_no_file_of_prompts(artifact: bytes) -> None:
    with pytest.raises(BadInput, match="not kept as circuits-prompts/1"):
        read_kept(artifact)


def test_a_line_that_lacks_a_field_is_not_read() -> None:
    header, line, *_ = _keep(_every(1), 4).artifact.decode().splitlines()
    broken = json.dumps({k: v for k, v in json.loads(line).items() if k != "wrong_id"})
    with pytest.raises(BadInput, match="not kept as circuits-prompts/1"):
        read_kept(f"{header}\n{broken}\n".encode())
