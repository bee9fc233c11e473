"""Which prompts are kept, what is counted, and the file that keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pytest

from ingest.tasks import PromptPair, TokenPair, find_task
from ingest.tasks.prompts import (
    Judge,
    KeptPrompts,
    Verdict,
    keep_answered,
    read_kept,
    split_of_kept,
)
from ingest.tasks.splits import Part, Split
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


def test_fewer_prompts_are_advised_only_where_some_are_answered() -> None:
    with pytest.raises(TooFewPrompts, match=r"or --min-prompts 3$"):
        _keep(_every(100), 20, at_least=5)
    with pytest.raises(TooFewPrompts, match=r"at least 1 is needed.* another BOS policy$"):
        _keep(lambda pairs: [Verdict(False, False) for _ in pairs], 1, at_least=1)


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


def _kept(*pairs: TokenPair, split: Split | None = None) -> KeptPrompts:
    return KeptPrompts("ioi", "m", False, 1, pairs, 1.0, 1.0, len(pairs), split)


PLAIN = TokenPair(PromptPair("a b", "a c", " d", " e"), (1, 2), (1, 3), 4, 5)
SEVERAL = TokenPair(PromptPair("b b", "a c", " d", " e", (" f",)), (2, 2), (1, 3), 4, 5, (6,))
LABELLED = TokenPair(
    PromptPair("c b", "a c", " d", " e", labels={"n": 1, "s": 0.5, "x": True, "t": "z"}),
    (3, 2), (1, 3), 4, 5,
)  # fmt: skip


def test_a_set_of_single_wrong_answers_without_labels_is_written_as_it_always_was() -> None:
    assert _kept(PLAIN).artifact == (
        b'{"bos":false,"format":"circuits-prompts/1","model":"m","task":"ioi"}\n'
        b'{"clean":"a b","clean_ids":[1,2],"correct":" d","correct_id":4,"corrupt":"a c",'
        b'"corrupt_ids":[1,3],"wrong":" e","wrong_id":5}\n'
    )


def test_several_wrong_answers_labels_and_the_split_are_read_back_as_they_were() -> None:
    split = Split(Part.TEST, 3, "t")
    kept = _kept(PLAIN, SEVERAL, LABELLED, split=split)
    assert read_kept(kept.artifact) == kept.pairs
    assert [pair.text.labels for pair in read_kept(kept.artifact)][2] == LABELLED.text.labels
    assert split_of_kept(kept.artifact) == split
    assert split_of_kept(_kept(PLAIN).artifact) is None
    assert kept.record.id != _kept(PLAIN, SEVERAL, LABELLED).record.id


def test_only_sets_with_several_wrong_answers_have_the_newer_format() -> None:
    formats = [
        json.loads(_kept(pair).artifact.partition(b"\n")[0])["format"]
        for pair in (PLAIN, SEVERAL, LABELLED)
    ]
    assert formats == ["circuits-prompts/1", "circuits-prompts/2", "circuits-prompts/1"]


def test_a_set_whose_format_is_too_old_for_its_answers_is_not_read() -> None:
    artifact = _kept(SEVERAL).artifact.replace(b"prompts/2", b"prompts/1")
    with pytest.raises(BadInput, match="not kept as"):
        read_kept(artifact)


@pytest.mark.parametrize("artifact", [b"", b"[]", b'{"split": {"part": "half", "seed": 0}}'])
def test_what_has_no_header_has_no_split(artifact: bytes) -> None:
    with pytest.raises(BadInput, match="no header"):
        split_of_kept(artifact)


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
