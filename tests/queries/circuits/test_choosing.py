"""Which circuits stand for tasks: by size and faithfulness, all, or those that are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queries.answers.stability import stability
from queries.circuits.choosing import Chosen, choose_circuits
from queries.circuits.replicates import ceiling, group_alike, replicates
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Ablation, Circuit, Level, Task
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import (
    CAPITALS_CIRCUIT,
    GROUPED,
    IOI,
    IOI_AT_POSITIONS,
    MONTHS,
    NODES_ONLY,
    NUMERALS,
    SMOLLM2,
    SUPERSEDED,
)


def circuit(seed: int, task: str, size: int | None, **fields: Any) -> Circuit:
    """A circuit of which a rule chose so many edges, whatever it has."""
    selection = None if size is None else {"top": size, "by": "absolute"}
    made = examples.circuit(seed, task=task)
    return made.model_copy(update={"selection": selection, **fields})


NUMERALS_TASK, MONTHS_TASK = "sequence/numerals", "sequence/months"
IOI_20, IOI_20_BETTER, IOI_40 = (circuit(n, "ioi", size) for n, size in ((1, 20), (2, 20), (3, 40)))
NUMERALS_10, NUMERALS_20, NUMERALS_40 = (
    circuit(seed, NUMERALS_TASK, size) for seed, size in ((4, 10), (5, 20), (6, 40))
)
MONTHS_20, MONTHS_40 = circuit(7, MONTHS_TASK, 20), circuit(8, MONTHS_TASK, 40)
MONTHS_20_ZERO = circuit(9, MONTHS_TASK, 20, ablation=Ablation.ZERO)
MEASURED = [
    (IOI_20, 0.5), (IOI_20_BETTER, 0.7), (IOI_40, 0.9), (NUMERALS_10, 0.99), (NUMERALS_20, 0.6),
    (NUMERALS_40, 0.95), (MONTHS_20, 0.3), (MONTHS_40, 0.2), (MONTHS_20_ZERO, 0.8),
]  # fmt: skip
CAPITALS_33 = circuit(10, "capitals", 33)
# Of these nobody says how many edges were chosen, so that the edges they have count.
NUMBER_WORDS = [circuit(seed, "sequence/number-words", None) for seed in (11, 12)]
PROMPTS = [digit * 64 for digit in "12345"]
PARAMETERS = {"method": "eap", "steps": 5}
SEEDS = [
    circuit(20 + n, "agreement", 20, prompt_set=prompts, parameters=PARAMETERS)
    for n, prompts in enumerate(PROMPTS[:3])
]
OTHERWISE = [
    circuit(30, "agreement", 20, prompt_set=PROMPTS[3], parameters={"method": "eap", "steps": 9}),
    circuit(31, "agreement", 40, prompt_set=PROMPTS[3], parameters=PARAMETERS),
    circuit(
        32, "agreement", 20, prompt_set=PROMPTS[3], parameters=PARAMETERS, metric="probability"
    ),
    circuit(33, "agreement", 20, prompt_set=PROMPTS[0], parameters=PARAMETERS),
    circuit(34, "agreement", 20, parameters=PARAMETERS),
]
# The mean over its own prompts takes the place of what is ablated.
MEANS = [
    circuit(
        40 + n, "agreement", 20, prompt_set=prompts, ablation=Ablation.MEAN,
        parameters={**PARAMETERS, "reference": prompts},
    )
    for n, prompts in enumerate(PROMPTS[:2])
]  # fmt: skip
# Found otherwise on prompts on which a circuit was found the same way as on others.
SHADOWING = circuit(50, "agreement", 20, prompt_set=PROMPTS[1], parameters={"method": "exact"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("choosing")) as registry:
        registry.record(examples.GPT2, *examples.TASKS, CAPITALS_33, *NUMBER_WORDS)
        registry.record(*(one for one, _ in MEASURED))
        registry.record(*(examples.faithfulness(one, value) for one, value in MEASURED))
        registry.record(Task(slug="agreement", family="agreement"))
        registry.record(*(examples.prompt_set(id, "agreement") for id in PROMPTS))
        registry.record(*SEEDS, *OTHERWISE, *MEANS)
        registry.record(SHADOWING)
        yield registry


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("choosing") / "small") as registry:
        small_registry.fill(registry)
        yield registry


def ids(*circuits: Circuit) -> tuple[str, ...]:
    return tuple(one.id for one in circuits)


# -- the best --------------------------------------------------------------------------------------


def test_the_best_are_the_most_faithful_of_the_smallest_size_that_all_tasks_have(
    tiny: Registry,
) -> None:
    assert choose_circuits(tiny, ["ioi", NUMERALS_TASK]) == Chosen(
        "gpt2", {"ioi": ids(IOI_20_BETTER), NUMERALS_TASK: ids(NUMERALS_20)}, 20
    )


def test_what_was_ablated_otherwise_is_not_the_same_size_of_circuit(tiny: Registry) -> None:
    found = choose_circuits(tiny, [MONTHS_TASK, "ioi", NUMERALS_TASK])
    assert found.ids == ids(MONTHS_20, IOI_20_BETTER, NUMERALS_20)
    assert list(found.by_task) == [MONTHS_TASK, "ioi", NUMERALS_TASK]
    assert (found.size, found.notes) == (20, ())


def test_where_no_size_is_common_each_task_has_its_most_faithful_and_a_note_says_so(
    tiny: Registry,
) -> None:
    found = choose_circuits(tiny, ["capitals", "ioi"])
    assert found.by_task == {"capitals": ids(CAPITALS_33), "ioi": ids(IOI_40)}
    assert found.size is None
    (note,) = found.notes
    assert "there is no size at which" in note
    assert "(capitals 33, ioi 40)" in note


def test_where_no_size_is_common_and_nothing_tells_the_most_faithful_the_largest_is_taken(
    tmp_path: Path,
) -> None:
    several = [circuit(seed, "ioi", size) for seed, size in ((91, 10), (92, 25), (93, 15))]
    with Registry.init(tmp_path) as registry:
        registry.record(examples.GPT2, *examples.TASKS, CAPITALS_33, *several)
        found = choose_circuits(registry, ["capitals", "ioi"])
    assert found.by_task["ioi"] == ids(several[1])
    assert any("the largest was used" in note for note in found.notes)


def test_one_task_has_its_smallest_size(tiny: Registry) -> None:
    found = choose_circuits(tiny, [NUMERALS_TASK, NUMERALS_TASK])
    assert (found.by_task, found.size) == ({NUMERALS_TASK: ids(NUMERALS_10)}, 10)


def test_where_nothing_tells_the_most_faithful_a_note_says_what_was_taken(tiny: Registry) -> None:
    alike = [one for one in NUMBER_WORDS if len(one.edges) == len(NUMBER_WORDS[0].edges)]
    assert len(alike) == 2
    found = choose_circuits(tiny, ["sequence/number-words"])
    assert found.ids == (min(one.id for one in alike),)
    assert found.size == len(alike[0].edges)
    (note,) = found.notes
    assert "sequence/number-words has 2 circuits that can be used" in note


def test_circuits_of_edges_go_before_those_of_nodes(small: Registry) -> None:
    found = choose_circuits(small, [MONTHS_TASK])
    assert (found.by_task[MONTHS_TASK], found.size) == (ids(MONTHS), len(MONTHS.edges))
    assert small.document(NODES_ONLY.id).level is Level.NODE


def test_retracted_and_superseded_circuits_stand_for_nothing(small: Registry) -> None:
    found = choose_circuits(small, ["capitals"], circuits="all")
    assert found.by_task == {"capitals": ids(CAPITALS_CIRCUIT)}


# -- all, and filters ------------------------------------------------------------------------------


def test_all_are_all_active_circuits_the_most_faithful_first(tiny: Registry) -> None:
    found = choose_circuits(tiny, ["ioi", MONTHS_TASK], circuits="all")
    assert found.by_task == {
        "ioi": ids(IOI_40, IOI_20_BETTER, IOI_20),
        MONTHS_TASK: ids(MONTHS_20_ZERO, MONTHS_20, MONTHS_40),
    }
    assert (found.size, found.notes) == (None, ())
    assert found.ids == (*found.by_task["ioi"], *found.by_task[MONTHS_TASK])


def test_only_circuits_of_a_method_are_chosen_where_one_is_given(small: Registry) -> None:
    found = choose_circuits(small, ["ioi"], circuits="all", method="published")
    assert found.ids == ids(IOI_AT_POSITIONS)


def test_a_model_that_all_tasks_have_circuits_of_need_not_be_named(small: Registry) -> None:
    found = choose_circuits(small, ["ioi", NUMERALS_TASK], circuits="all")
    assert found.model == "gpt2"
    assert set(found.by_task["ioi"]) == set(ids(IOI, IOI_AT_POSITIONS))
    assert found.by_task[NUMERALS_TASK] == ids(NUMERALS)


def test_of_several_models_one_has_to_be_named(small: Registry) -> None:
    with pytest.raises(BadInput, match=rf"gpt2, {SMOLLM2.slug}.* --model"):
        choose_circuits(small, ["ioi"])
    assert choose_circuits(small, ["ioi"], model="smollm2").ids == ids(GROUPED)


# Of one kind and size, of one kind alone, and of two kinds; each for the same two tasks.
ALIKE = [circuit(60, "ioi", 20), circuit(61, NUMERALS_TASK, 20)]
OF_TWO_SIZES = [circuit(62, "ioi", 20), circuit(63, NUMERALS_TASK, 40)]
OF_TWO_KINDS = [circuit(64, "ioi", 20), circuit(65, NUMERALS_TASK, 20, ablation=Ablation.ZERO)]


def registry_of(home: Path, **of_models: list[Circuit]) -> Registry:
    """A registry with these circuits, as they would be in models of these names."""
    registry = Registry.init(home)
    for model, found in of_models.items():
        registry.record(*(Circuit(**{**one.model_dump(), "model": model}) for one in found))
    return registry


@pytest.mark.parametrize("circuits", ["best", "all"])
@pytest.mark.parametrize(
    "of_models",
    [
        {"one": OF_TWO_KINDS, "two": ALIKE},
        {"one": OF_TWO_KINDS, "two": OF_TWO_SIZES},
        {"one": OF_TWO_SIZES, "two": ALIKE, "zero": OF_TWO_KINDS},
    ],
)
def test_the_only_model_whose_circuits_compare_is_taken_and_a_note_says_so(
    tmp_path: Path, of_models: dict[str, list[Circuit]], circuits: Any
) -> None:
    with registry_of(tmp_path, **of_models) as registry:
        found = choose_circuits(registry, ["ioi", NUMERALS_TASK], circuits=circuits)
        named = choose_circuits(registry, ["ioi", NUMERALS_TASK], circuits=circuits, model="two")
    others = ", ".join(sorted(set(of_models) - {"two"}))
    note, *rest = found.notes
    assert note.startswith(f"circuits of two are used: those of {others} were not found the same")
    assert (found.model, found.by_task, found.size) == ("two", named.by_task, named.size)
    assert tuple(rest) == named.notes


@pytest.mark.parametrize(
    "of_models",
    [
        {"one": ALIKE, "two": ALIKE, "zero": OF_TWO_KINDS},
        {"one": OF_TWO_SIZES, "two": OF_TWO_SIZES},
        {"one": OF_TWO_KINDS, "two": OF_TWO_KINDS},
    ],
)
def test_where_circuits_of_several_models_compare_or_of_none_one_has_to_be_named(
    tmp_path: Path, of_models: dict[str, list[Circuit]]
) -> None:
    message = rf"^{len(of_models)} models have .*\({', '.join(sorted(of_models))}\); .*--model$"
    with (
        registry_of(tmp_path, **of_models) as registry,
        pytest.raises(BadInput, match=message),
    ):
        choose_circuits(registry, ["ioi", NUMERALS_TASK])


@pytest.mark.parametrize(
    ("tasks", "limits", "message"),
    [
        (["ioi", "nothing"], {}, "no task"),
        (["ioi"], {"model": "nothing"}, "no model"),
        ([], {}, "no task is named"),
        (["ioi"], {"circuits": "worst"}, "best, all or ids; got 'worst'"),
        (["capitals"], {"model": "smollm2"}, "capitals has no active circuit of model smollm2"),
        (
            ["ioi"],
            {"model": "gpt2", "method": "guessing"},
            "ioi has no active circuit of model gpt2 and method guessing",
        ),
        (
            ["ioi", "capitals"],
            {"circuits": "all", "method": "nothing"},
            "ioi has no active circuit of method nothing",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    small: Registry, tasks: list[str], limits: dict[str, Any], message: str
) -> None:
    with pytest.raises((BadInput, NotFound), match=message):
        choose_circuits(small, tasks, **limits)


def test_tasks_without_a_common_model_do_not_compare(tmp_path: Path) -> None:
    elsewhere = examples.circuit(1, task="capitals", model="pythia-70m")
    with Registry.init(tmp_path) as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1), elsewhere)
        with pytest.raises(BadInput, match=r"ioi: gpt2; capitals: pythia-70m"):
            choose_circuits(registry, ["ioi", "capitals"])


# -- named -----------------------------------------------------------------------------------------


def test_named_circuits_bring_their_tasks(tiny: Registry) -> None:
    prefixes = [MONTHS_20.id[:10], IOI_20.id, IOI_40.id[:10], IOI_20.id[:10]]
    assert choose_circuits(tiny, [], circuits=prefixes) == Chosen(
        "gpt2", {MONTHS_TASK: ids(MONTHS_20), "ioi": ids(IOI_20, IOI_40)}
    )


def test_named_circuits_stand_in_the_order_of_the_tasks_that_are_given(tiny: Registry) -> None:
    found = choose_circuits(
        tiny, ["ioi", MONTHS_TASK], circuits=[MONTHS_20.id[:10], IOI_20.id[:10]]
    )
    assert found.ids == ids(IOI_20, MONTHS_20)


@pytest.mark.parametrize(
    ("tasks", "named", "message"),
    [
        ([], [], "no circuit is named"),
        (["ioi"], [IOI, NUMERALS], f"{NUMERALS.id[:12]} is of {NUMERALS_TASK}, not of ioi"),
        (["ioi", "capitals"], [IOI], "none of the named circuits is of capitals"),
        ([], [IOI, GROUPED], rf"different models cannot be compared: gpt2, {SMOLLM2.slug}"),
    ],
)
def test_named_circuits_that_fit_no_comparison_are_refused(
    small: Registry, tasks: list[str], named: list[Circuit], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        choose_circuits(small, tasks, circuits=ids(*named))


def test_a_circuit_that_nobody_recorded_cannot_be_named(small: Registry) -> None:
    with pytest.raises(NotFound, match="no circuit 'ffff'"):
        choose_circuits(small, [], circuits=["ffff"])


def test_a_superseded_circuit_may_be_named(small: Registry) -> None:
    assert choose_circuits(small, [], circuits=[SUPERSEDED.id]).ids == ids(SUPERSEDED)


# -- replicates ------------------------------------------------------------------------------------


def test_replicates_were_found_the_same_way_on_other_prompts(tiny: Registry) -> None:
    for one in SEEDS:
        found = replicates(tiny, one)
        assert found[0] == one.id
        # On the first prompts two circuits were found this way; one of them stands for both.
        others = {seed.id for seed in SEEDS if seed is not one}
        assert set(found[1:]) - {OTHERWISE[3].id} <= others
        assert len(found) == 3


def test_the_mean_over_ones_own_prompts_is_the_same_way(tiny: Registry) -> None:
    assert replicates(tiny, MEANS[0]) == ids(*MEANS)
    assert replicates(tiny, MEANS[1]) == ids(*reversed(MEANS))


def stored_prompts(registry: Registry, names: str) -> str:
    """Record a prompt set with a pair for each name, in this order, and return its id."""
    header = {"format": "circuits-prompts/1", "task": "agreement"}
    pairs = [{"clean": f"{name} is", "corrupt": f"{name} are"} for name in names]
    data = "".join(f"{json.dumps(line)}\n" for line in [header, *pairs]).encode()
    address = registry.store_artifact(data)
    kept = examples.prompt_set(address, "agreement")
    registry.record(kept.model_copy(update={"artifact": address, "n_prompts": len(names)}))
    return address


def test_circuits_found_on_the_same_pairs_in_another_order_are_no_replicates(
    tmp_path: Path,
) -> None:
    with Registry.init(tmp_path) as registry:
        registry.record(examples.GPT2, Task(slug="agreement", family="agreement"))
        sets = [stored_prompts(registry, names) for names in ("abc", "cab", "abd", "bca", "abcd")]
        found = [
            circuit(70 + n, "agreement", 20, prompt_set=prompts, parameters=PARAMETERS)
            for n, prompts in enumerate(sets)
        ]
        registry.record(*found)
        first, again, other, last, longer = found
        for one in (first, again, last):
            mine, *others = replicates(registry, one)
            assert (mine, set(others)) == (one.id, set(ids(other, longer)))
        (group,) = group_alike(registry, ids(*found))
        assert (group.circuits, group.n_repeated) == (ids(first, other, longer), 2)
        alone = ids(first, again, last)
        for id in (other.id, longer.id):
            registry.retract(id, reason="to have only repeated ones")
        assert ceiling(registry, first) is None
        assert stability(registry, "agreement").notes[0] == (
            "circuits found the same way on the same prompts are omitted: 2"
        )
        # Without their files, prompts are known by their ids only.
        for address in sets:
            (tmp_path / "artifacts" / address[:2] / address[2:]).unlink()
        assert set(replicates(registry, first)) == set(alone)


@pytest.mark.parametrize("other", [*OTHERWISE[:3], OTHERWISE[4], SHADOWING])
def test_what_was_found_another_way_or_on_unknown_prompts_has_no_replicates(
    tiny: Registry, other: Circuit
) -> None:
    assert replicates(tiny, other) == (other.id,)


def test_a_circuit_that_is_not_in_the_graph_has_no_replicates(small: Registry) -> None:
    assert replicates(small, SUPERSEDED) == (SUPERSEDED.id,)
