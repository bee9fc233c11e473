"""Prompts and answers as texts: what they are read as, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingest.discovery import (
    attribute_edges,
    compare_with_random,
    evaluate_circuit,
    evaluate_circuits,
    evaluate_complement,
    faithfulness_curve,
    faithfulness_curves,
    logit_difference,
    patch_effects,
    prepare_setting,
)
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models

CLEAN = ["when mary and john went", "when john and mary went to the store ,", "one two three"]
CORRUPT = ["when mary and mary went", "when john and john went to the store ,", "one two four"]
CORRECT, WRONG = ["mary", "john", "four"], ["john", "mary", "one"]
ENDS = {"mary": 5, "john": 7, "four": 18, "one": 15}  # after three special tokens


def bridge(*, prepends_bos: bool) -> Any:
    tokenizer = tiny_models.tokenizer(prepends_bos=prepends_bos)
    return wrap(tiny_models.llama(), tokenizer=tokenizer, slug="tiny-words")


def ids(texts: list[str], bos: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the left, not on the right as texts are, and their mask."""
    words = ["<s>", "</s>", "<unk>", *tiny_models.WORDS]
    rows = [[*bos, *(words.index(word) for word in text.split())] for text in texts]
    longest = max(map(len, rows))
    tokens = torch.tensor([[1] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask


MANY = [["john", "went"], ["mary"], ["one", "two", "store"]]


def test_a_logit_difference_takes_the_mean_of_several_wrong_answers() -> None:
    """Against the same sum written out, prompt by prompt, with its gradient."""
    metric = logit_difference(bridge(prepends_bos=True), CORRECT, MANY)
    words = ["<s>", "</s>", "<unk>", *tiny_models.WORDS]
    torch.manual_seed(0)
    logits = torch.randn(2, len(words), dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0])
    found = metric(logits, index)
    expected = torch.stack(
        [
            logits[row, words.index(CORRECT[at])]
            - torch.stack([logits[row, words.index(word)] for word in MANY[at]]).mean()
            for row, at in enumerate(index.tolist())
        ]
    )
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, wanted)


def test_lists_of_one_wrong_answer_score_as_the_answers_alone() -> None:
    model = bridge(prepends_bos=True)
    alone = logit_difference(model, CORRECT, WRONG)
    listed = logit_difference(model, CORRECT, [[word] for word in WRONG])
    assert torch.equal(alone.wrong, listed.wrong)


def test_a_prompt_needs_a_wrong_answer_and_each_is_one_token() -> None:
    model = bridge(prepends_bos=True)
    with pytest.raises(BadInput, match=r"prompt 1 \(counted from 0\) has no wrong answer"):
        logit_difference(model, CORRECT, [["john"], [], ["one"]])
    with pytest.raises(BadInput, match=r"of prompt 1, wrong answer 1 .* is 2 tokens"):
        logit_difference(model, CORRECT, [["john"], ["mary", "mary went"], ["one"]])


@pytest.mark.parametrize("prepends_bos", [True, False])
def test_texts_score_as_their_token_ids_with_the_bos_token_that_the_tokenizer_puts_in_front(
    prepends_bos: bool,
) -> None:
    model = bridge(prepends_bos=prepends_bos)
    metric = logit_difference(model, CORRECT, WRONG)
    bos = [0] if prepends_bos else []
    clean, mask = ids(CLEAN, bos)
    corrupt, _ = ids(CORRUPT, bos)
    found = attribute_edges(prepare_setting(model, CLEAN, CORRUPT, metric))
    expected = attribute_edges(prepare_setting(model, clean, corrupt, metric, attention_mask=mask))
    torch.testing.assert_close(found.matrix, expected.matrix)
    assert float(found.matrix.abs().max()) > 0.001
    other_bos = [] if prepends_bos else [0]
    clean, mask = ids(CLEAN, other_bos)
    corrupt, _ = ids(CORRUPT, other_bos)
    other = attribute_edges(prepare_setting(model, clean, corrupt, metric, attention_mask=mask))
    assert not torch.allclose(found.matrix, other.matrix)


def test_a_bos_token_that_a_text_begins_with_is_not_put_there_twice() -> None:
    model = bridge(prepends_bos=True)
    metric = logit_difference(model, CORRECT, WRONG)
    found = attribute_edges(
        prepare_setting(
            model, [f"<s> {text}" for text in CLEAN], [f"<s> {text}" for text in CORRUPT], metric
        )
    )
    plain = attribute_edges(prepare_setting(model, CLEAN, CORRUPT, metric))
    assert torch.equal(found.matrix, plain.matrix)


def test_answers_as_texts_are_the_tokens_that_the_metric_compares() -> None:
    model = bridge(prepends_bos=True)
    metric = logit_difference(model, CORRECT, WRONG)
    assert metric.name == "logit_difference"
    logits = torch.randn(2, tiny_models.D_VOCAB)
    index = torch.tensor([2, 0])
    expected = [
        logits[row, ENDS[CORRECT[prompt]]] - logits[row, ENDS[WRONG[prompt]]]
        for row, prompt in enumerate(index.tolist())
    ]
    assert metric(logits, index).tolist() == pytest.approx([float(one) for one in expected])


def test_every_function_that_is_asked_in_a_setting_takes_one_of_texts() -> None:
    model = bridge(prepends_bos=False)
    metric = logit_difference(model, CORRECT, WRONG)
    clean, mask = ids(CLEAN, [])
    corrupt, _ = ids(CORRUPT, [])
    scores = attribute_edges(prepare_setting(model, CLEAN, CORRUPT, metric))
    edges = [edge.id for edge in scores.top(20).edges]
    texts = prepare_setting(model, CLEAN, CORRUPT, metric)
    tokens = prepare_setting(model, clean, corrupt, metric, attention_mask=mask)

    def same(found: Any, expected: Any) -> None:
        assert found.faithfulness == pytest.approx(expected.faithfulness)

    same(evaluate_circuit(texts, edges), evaluate_circuit(tokens, edges))
    same(evaluate_circuits(texts, [edges])[0], evaluate_circuits(tokens, [edges])[0])
    same(evaluate_complement(texts, edges), evaluate_complement(tokens, edges))
    found = faithfulness_curve(texts, scores, by="signed")
    expected = faithfulness_curve(tokens, scores, by="signed")
    assert found.cpr == pytest.approx(expected.cpr)
    both = faithfulness_curves(texts, scores)
    assert both.signed.cpr == pytest.approx(expected.cpr)
    compared = compare_with_random(texts, edges, n=3)
    assert compared.deciles == pytest.approx(compare_with_random(tokens, edges, n=3).deciles)
    patched = patch_effects(texts, edges=edges[:3])
    assert patched.edges == pytest.approx(patch_effects(tokens, edges=edges[:3]).edges)


def test_the_mean_is_taken_of_texts_of_any_number_and_length() -> None:
    model = bridge(prepends_bos=True)
    metric = logit_difference(model, CORRECT, WRONG)
    reference = ["gave a drink", "one"]
    tokens, mask = ids(reference, [0])
    found = attribute_edges(
        prepare_setting(model, CLEAN, None, metric, ablation="mean", reference=reference)
    )
    expected = attribute_edges(
        prepare_setting(
            model, CLEAN, None, metric, ablation="mean", reference=tokens, reference_mask=mask
        )
    )
    torch.testing.assert_close(found.matrix, expected.matrix)
    with pytest.raises(BadInput, match=r"^reference_mask belongs to token ids; "):
        attribute_edges(
            prepare_setting(
                model,
                CLEAN,
                None,
                metric,
                ablation="mean",
                reference=reference,
                reference_mask=mask,
            )
        )


TOKENS = torch.tensor([[3, 4, 5]] * 3)


@pytest.mark.parametrize(
    ("clean", "corrupt", "options", "message"),
    [
        (CLEAN[0], CORRUPT, {}, "^clean must be a list of texts, one for each prompt, or token"),
        ([], [], {}, "^clean must be a list of texts"),
        (CLEAN, [1, 2, 3], {}, "^corrupt must be a list of texts"),
        ([[3, 4], [5, 6]], CORRUPT, {}, "^clean must be a list of texts, one for each prompt"),
        (CLEAN, TOKENS, {}, "^clean and corrupt must both be texts, or both token ids"),
        (CLEAN, CORRUPT[:2], {}, "^clean has 3 prompts and corrupt 2; each needs its counterpart"),
        (
            CLEAN,
            [*CORRUPT[:2], "one two"],
            {},
            r"^prompt 2 \(counted from 0\) has 4 tokens in clean and 3 in corrupt, .* token by "
            "token: 'one two three', 'one two'$",
        ),
        (CLEAN, CORRUPT, {"attention_mask": TOKENS}, "^attention_mask belongs to token ids"),
    ],
)
def test_texts_that_are_no_pairs_are_refused_in_a_line(
    clean: Any, corrupt: Any, options: dict[str, Any], message: str
) -> None:
    model = bridge(prepends_bos=True)
    metric = logit_difference(model, CORRECT, WRONG)
    with pytest.raises(BadInput, match=message) as raised:
        attribute_edges(prepare_setting(model, clean, corrupt, metric, **options))
    assert "\n" not in str(raised.value)


def test_an_empty_text_is_refused_where_nothing_is_put_in_front() -> None:
    model = bridge(prepends_bos=False)
    with pytest.raises(BadInput, match=r"^corrupt 1 \(counted from 0\) is an empty text$"):
        attribute_edges(
            prepare_setting(
                model, CLEAN, [CORRUPT[0], "", CORRUPT[2]], lambda logits, _: logits[:, 0]
            )
        )


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        (["mary john"], ["john"], r"^correct 0 \(counted from 0\) is 2 tokens, 'mary john'; an "),
        (["mary"], [""], r"^wrong 0 \(counted from 0\) is 0 tokens, ''; an answer is one token"),
        (["mary"], ["john", "one"], "^there are 1 correct answers and 2 wrong ones; give both"),
        ("mary", "john", "^correct must be a list of texts|^there are 4"),
    ],
)
def test_answers_that_are_no_tokens_are_refused(correct: Any, wrong: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        logit_difference(bridge(prepends_bos=True), correct, wrong)


def test_a_model_without_a_tokenizer_reads_no_texts() -> None:
    model = wrap(tiny_models.gpt2())
    with pytest.raises(BadInput, match=r"^the model has no tokenizer to read texts "):
        attribute_edges(prepare_setting(model, CLEAN, CORRUPT, lambda logits, _: logits[:, 0]))
