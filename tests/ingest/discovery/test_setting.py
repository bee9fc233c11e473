"""One prepared setting gives what settings of their own give, with fewer runs of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest import discovery
from ingest.discovery import (
    Setting,
    ablate_parts,
    attribute_edges,
    changed_weights,
    compare_parts_with_random,
    compare_subspaces_with_random,
    compare_with_random,
    evaluate_circuit,
    evaluate_circuits,
    evaluate_complement,
    evaluate_parts,
    faithfulness_curve,
    faithfulness_curves,
    named_weights,
    part_circuit,
    patch_effects,
    prepare_parts,
    prepare_setting,
    subspace_circuit,
)
from ingest.discovery.ablation import setting as module
from ingest.discovery.evaluation.controls import compare_each_with_random
from ingest.discovery.model.present import present
from registry.errors import (
    BadInput,
    CircuitsError,
    NonFiniteScores,
    SettingNeeded,
    UnsupportedModel,
)
from tests.ingest.discovery.decoders import (
    N_PROMPTS,
    bridge,
    clean_ids,
    corrupt_ids,
    metric,
)

ABLATIONS = ("resample", "mean", "zero")
SIZES = (0.1, 0.5, 1.0)


def prepared(model: Any, ablation: Any = "resample", **more: Any) -> Setting:
    reference = clean_ids() if ablation == "mean" else None
    told = {"ablation": ablation, "reference": reference, **more}
    return prepare_setting(model, clean_ids(), corrupt_ids(), metric(), **told)


def circuit(setting: Setting) -> list[str]:
    """Two thirds of all edges."""
    every = [setting.space.edge_id(*cell) for cell in setting.space.edges()]
    return [edge for at, edge in enumerate(every) if at % 3]


def evaluated(found: Any) -> list[Tensor]:
    return [found.circuit, found.empty, found.full]


QUESTIONS: dict[str, Callable[[Setting], list[Tensor]]] = {
    "attribution": lambda s: [attribute_edges(s).matrix],
    "integrated": lambda s: [attribute_edges(s, method="eap-ig-inputs", steps=2).matrix],
    "evaluation": lambda s: evaluated(evaluate_circuit(s, circuit(s))),
    "curve": lambda s: [
        part
        for point in faithfulness_curve(s, SCORES[s.space], by="absolute", sizes=SIZES).points
        for part in evaluated(point.evaluation)
    ],
    "complement": lambda s: evaluated(evaluate_complement(s, circuit(s))),
    "controls": lambda s: [
        part
        for one in compare_with_random(s, circuit(s), n=3).controls
        for part in evaluated(one)
    ],
    "patching": lambda s: [
        torch.tensor(list(patch_effects(s, edges=circuit(s)[:2], nodes=["m0"]).edges.values()))
    ],
    "parts": lambda s: [ablate_parts(s, [["a0.h1"], ["m1", "m0"]]).ablated],
    "ends": lambda s: [s.ends.full, s.ends.empty],
}  # fmt: skip
SCORES: dict[Any, Any] = {}


@contextmanager
def counted(model: Any) -> Iterator[list[tuple[int, int]]]:
    """Prompts and positions of each forward pass; with the hook in place it is another model."""
    ran: list[tuple[int, int]] = []

    def note(_: object, args: object, output: Any) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        ran.append((stream.shape[0], stream.shape[1]))

    handle = model.blocks[0].register_forward_hook(note)
    try:
        yield ran
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "ablation"),
    [("gpt2", "resample"), ("llama", "mean"), ("gemma2", "zero"), ("neox", "mean")],
)
def test_answers_are_bit_for_bit_those_of_settings_of_their_own_in_any_order(
    name: str, ablation: str
) -> None:
    model = bridge(name)
    shared = prepared(model, ablation)
    SCORES[shared.space] = attribute_edges(prepared(model, ablation))
    expected = {of: ask(prepared(model, ablation)) for of, ask in QUESTIONS.items()}
    for of in [*QUESTIONS, *reversed(QUESTIONS)]:
        for found, alone in zip(QUESTIONS[of](shared), expected[of], strict=True):
            assert torch.equal(found, alone), of


@pytest.mark.parametrize(
    ("ablation", "alone", "together"), [("resample", 34, 22), ("zero", 35, 20)]
)
def test_what_questions_share_is_run_once(ablation: str, alone: int, together: int) -> None:
    model = bridge("gpt2")
    scores = attribute_edges(prepared(model, ablation))
    SCORES[scores.space] = scores
    asked = ["attribution", "evaluation", "curve", "complement", "controls"]
    with counted(model) as ran:
        for of in asked:
            QUESTIONS[of](prepared(model, ablation))
        apart = len(ran)
        ran.clear()
        setting = prepared(model, ablation)
        for of in asked:
            QUESTIONS[of](setting)
    assert (apart, len(ran)) == (alone, together)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gemma2"])
def test_a_model_that_has_run_is_still_the_same(name: str) -> None:
    model = bridge(name)
    setting = prepared(model)
    before = present(model)
    attribute_edges(setting)
    evaluate_circuit(setting, circuit(setting))
    after = present(model)
    assert before.same(after)
    assert after.same(before)


def test_the_reference_of_a_mean_is_run_once() -> None:
    model = bridge("llama")
    reference = clean_ids()[:, :3]
    setting = prepared(model, "mean", reference=reference)
    with counted(model) as ran:
        for _ in range(2):
            attribute_edges(setting)
            evaluate_circuit(setting, circuit(setting))
            patch_effects(setting, nodes=["m0"])
    assert ran.count((N_PROMPTS, 3)) == 1


def test_ends_are_those_that_circuits_are_measured_between_and_run_once() -> None:
    model = bridge("gpt2")
    setting = prepared(model)
    with counted(model) as ran:
        ends = setting.ends
        before = len(ran)
        assert setting.ends is ends
        assert len(ran) == before
        measured = evaluate_circuit(setting, circuit(setting))
        assert measured.full is ends.full
        assert measured.empty is ends.empty
    every = [setting.space.edge_id(*cell) for cell in setting.space.edges()]
    torch.testing.assert_close(evaluate_circuit(setting, every).circuit, ends.full)
    torch.testing.assert_close(evaluate_circuit(setting, []).circuit, ends.empty)
    assert repr(ends).startswith(f"<Ends of {N_PROMPTS} prompts: full ")


def test_ends_whose_metric_is_not_finite_are_not_kept() -> None:
    broken = True

    def sometimes(logits: Tensor, index: Tensor) -> Tensor:
        return torch.where((index == 1) & broken, torch.nan, logits[:, 0])

    setting = prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), sometimes)
    for _ in range(2):
        with pytest.raises(NonFiniteScores, match="prompt 1"):
            _ = setting.ends
        with pytest.raises(NonFiniteScores, match="prompt 1"):
            evaluate_circuit(setting, circuit(setting))
    broken = False
    assert bool(torch.isfinite(setting.ends.full).all())


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_question_that_is_stopped_leaves_nothing_half_known(ablation: str) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    model = bridge("llama")
    setting = prepared(model, ablation, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate_circuit(setting, circuit(setting), progress=stop)
    alone = prepared(model, ablation, batch_size=1)
    expected = evaluate_circuit(alone, circuit(alone))
    found = evaluate_circuit(setting, circuit(setting))
    assert all(map(torch.equal, evaluated(found), evaluated(expected)))


def _in_place(model: Any) -> None:
    with torch.no_grad():
        model.original_model.get_output_embeddings().weight.mul_(1.5)


def _past_autograd(model: Any) -> None:
    next(iter(named_weights(model).values())).data[5, 0] += 1.0


def _hook(model: Any) -> None:
    model.blocks[0].hook_in.add_hook(lambda value, hook: 1.5 * value)


@pytest.mark.parametrize("change", [_in_place, _past_autograd, _hook])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_model_that_has_changed_is_run_anew(change: Callable[[Any], None], ablation: str) -> None:
    model = bridge("llama")
    setting = prepared(model, ablation)
    before = evaluate_circuit(setting, circuit(setting))
    change(model)
    found = evaluate_circuit(setting, circuit(setting))
    expected = evaluate_circuit(prepared(model, ablation), circuit(setting))
    assert all(map(torch.equal, evaluated(found), evaluated(expected)))
    assert not torch.equal(found.full, before.full)


def test_a_model_that_no_longer_does_what_was_proven_is_refused() -> None:
    model = bridge("gpt2")
    setting = prepared(model)
    evaluate_circuit(setting, circuit(setting))
    model.blocks[1].mlp.register_forward_hook(lambda _, args, output: 2 * output)
    with pytest.raises(UnsupportedModel, match="senders do not add up"):
        evaluate_circuit(setting, circuit(setting))
    with pytest.raises(UnsupportedModel, match="senders do not add up"):
        attribute_edges(setting)


def test_inside_changed_weights_a_setting_answers_for_these_and_then_for_the_old() -> None:
    model = bridge("llama")
    setting = prepared(model)
    before = evaluate_circuit(setting, circuit(setting))
    name, weight = next(
        (name, weight) for name, weight in named_weights(model).items() if "down_proj" in name
    )
    with changed_weights(model, added={name: torch.ones_like(weight)}):
        inside = evaluate_circuit(setting, circuit(setting))
        fresh = evaluate_circuit(prepared(model), circuit(setting))
    assert all(map(torch.equal, evaluated(inside), evaluated(fresh)))
    assert not torch.equal(inside.circuit, before.circuit)
    after = evaluate_circuit(setting, circuit(setting))
    assert all(map(torch.equal, evaluated(after), evaluated(before)))


def test_a_setting_in_smaller_runs_shares_what_is_known() -> None:
    model = bridge("gpt2", torch.float64)
    setting = prepared(model)
    whole = attribute_edges(setting)
    with counted(model) as ran:
        _ = setting.ends  # with the hook in place the model is another
        attribute_edges(setting)
        ran.clear()
        summed = attribute_edges(setting.with_batch_size(1))
        assert [n_prompts for n_prompts, _ in ran] == [1] * 2 * N_PROMPTS
        assert setting.with_batch_size(2).ends is setting.ends
    torch.testing.assert_close(summed.matrix, whole.matrix)
    with pytest.raises(BadInput, match="batch_size must be a whole number of at least 1; got 0"):
        setting.with_batch_size(0)


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_streams_that_are_too_large_to_keep_are_made_anew(
    ablation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bridge("gemma2")
    keeping = prepared(model, ablation)
    with counted(model) as ran:
        expected = [evaluate_circuit(keeping, circuit(keeping)) for _ in range(2)]
        kept = len(ran)
        ran.clear()
        monkeypatch.setattr(module, "_STREAM_BYTES", 0)
        setting = prepared(model, ablation)
        found = [evaluate_circuit(setting, circuit(setting)) for _ in range(2)]
        assert len(ran) == kept + 1
    for one, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, evaluated(one), evaluated(other)))


def test_prompts_of_several_lengths_keep_a_stream_of_each() -> None:
    model = bridge("gpt2", torch.float64)
    mask = torch.ones_like(clean_ids())
    mask[0, -1] = 0
    setting = prepared(model, "zero", attention_mask=mask)
    first, second = (evaluate_circuit(setting, circuit(setting)) for _ in range(2))
    assert torch.equal(first.circuit, second.circuit)
    alone = prepare_setting(model, clean_ids()[:1, :-1], None, _first_of(), ablation="zero")
    torch.testing.assert_close(evaluate_circuit(alone, circuit(alone)).circuit, first.circuit[:1])


def _first_of() -> Callable[[Tensor, Tensor], Tensor]:
    whole = metric()
    return lambda logits, index: whole(logits, 0 * index)


def test_a_setting_says_what_it_is() -> None:
    setting = prepared(bridge("gpt2"), "mean")
    assert repr(setting) == f"<Setting of GPT2LMHeadModel, mean, on {N_PROMPTS} prompts>"
    assert (setting.ablation, setting.kv_heads, setting.n_prompts) == ("mean", "grouped", N_PROMPTS)


OLD: dict[str, Callable[..., Any]] = {
    "attribute_edges": attribute_edges,
    "evaluate_circuit": evaluate_circuit,
    "evaluate_circuits": evaluate_circuits,
    "evaluate_complement": evaluate_complement,
    "faithfulness_curve": faithfulness_curve,
    "faithfulness_curves": faithfulness_curves,
    "compare_with_random": compare_with_random,
    "compare_each_with_random": compare_each_with_random,
    "patch_effects": patch_effects,
    "ablate_parts": ablate_parts,
    "prepare_parts": prepare_parts,
    "part_circuit": part_circuit,
    "evaluate_parts": evaluate_parts,
    "compare_parts_with_random": compare_parts_with_random,
    "subspace_circuit": subspace_circuit,
    "compare_subspaces_with_random": compare_subspaces_with_random,
}


@pytest.mark.parametrize("name", sorted(OLD))
def test_a_model_in_the_place_of_a_setting_is_refused_in_one_line(name: str) -> None:
    given = (bridge("gpt2"), clean_ids(), corrupt_ids(), metric())
    with pytest.raises(SettingNeeded, match=rf"^{name} takes a prepared setting first, not ") as e:
        OLD[name](*given, ablation="resample")
    assert f"{name}(prepare_setting(model, clean, corrupt, metric), ...)" in str(e.value)
    assert "\n" not in str(e.value)
    assert isinstance(e.value, TypeError)
    assert isinstance(e.value, CircuitsError)
    with pytest.raises(SettingNeeded, match="not NoneType"):
        OLD[name]()


def test_every_function_that_runs_a_metric_takes_a_setting() -> None:
    import inspect

    taking = {
        name
        for name in discovery.__all__
        for one in [inspect.unwrap(getattr(discovery, name))]
        if inspect.isfunction(one) and "setting" in one.__annotations__
    }
    assert taking == OLD.keys() - {"compare_each_with_random"}
