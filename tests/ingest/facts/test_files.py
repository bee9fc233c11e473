"""Files of facts: the shapes that are read, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.facts.base import Fact
from ingest.facts.files import SEPARATOR, read_facts
from ingest.formats.base import Limits
from registry.errors import BadInput

COLUMNS = ("prompt", "subject", "target_new", "target_true", "paraphrases", "neighbours")
FRANCE: dict[str, Any] = {
    "prompt": "The capital of {} is", "subject": "France", "target_new": "Rome",
}  # fmt: skip
COUNTERFACT: dict[str, Any] = {
    "case_id": 7,
    "pararel_idx": 3,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "relation_id": "P36",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
        "subject": "France",
    },
    "paraphrase_prompts": ["It rained. France's capital is"],
    "neighborhood_prompts": ["The city of the Louvre is"],
    "attribute_prompts": [],
    "generation_prompts": ["France is"],
}
ZSRE: dict[str, Any] = {
    "subject": "Ada",
    "src": "Which job did Ada have?",
    "pred": "poet",
    "rephrase": "What was the job of Ada?",
    "alt": "baker",
    "answers": ["mathematician", "writer"],
    "loc": "nq question: who wrote the first novel",
    "loc_ans": "Murasaki",
    "cond": "poet >> baker || Which job did Ada have?",
}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "facts.txt"  # the name tells nothing
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, **limits: int) -> tuple[Fact, ...]:
    return read_facts(written(folder, text), Limits(**limits))


def refused(folder: Path, text: str | bytes, **limits: int) -> str:
    with pytest.raises(BadInput) as caught:
        read(folder, text, **limits)
    says = str(caught.value)
    assert "\n" not in says
    assert says.startswith("facts.txt")
    return says


def as_lines(*records: Any) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def as_csv(facts: tuple[Fact, ...]) -> str:
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(COLUMNS)
    for fact in facts:
        lists = (SEPARATOR.join(one) for one in (fact.paraphrases, fact.neighbours))
        true = fact.target_true or ""
        rows.writerow([fact.prompt, fact.subject, fact.target_new, true, *lists])
    return file.getvalue()


def counterfact(**changes: Any) -> str:
    rewrite = {**COUNTERFACT["requested_rewrite"], **changes}
    return json.dumps([{**COUNTERFACT, "requested_rewrite": rewrite}])


class TestCounterFact:
    def test_its_parts_are_the_facts(self, tmp_path: Path) -> None:
        assert read(tmp_path, json.dumps([COUNTERFACT])) == (
            Fact(
                prompt="The capital of {} is",
                subject="France",
                target_new="Rome",
                target_true="Paris",
                paraphrases=("It rained. France's capital is",),
                neighbours=("The city of the Louvre is",),
                case=7,
            ),
        )

    def test_targets_may_be_texts(self, tmp_path: Path) -> None:
        (fact,) = read(tmp_path, counterfact(target_new="Rome", target_true="Paris"))
        assert (fact.target_new, fact.target_true) == ("Rome", "Paris")

    def test_neighbours_and_paraphrases_may_be_missing(self, tmp_path: Path) -> None:
        bare = {"requested_rewrite": COUNTERFACT["requested_rewrite"]}
        (fact,) = read(tmp_path, json.dumps([bare]))
        assert fact == Fact("The capital of {} is", "France", "Rome", "Paris")

    def test_records_that_differ_in_their_case_alone_are_two_facts(self, tmp_path: Path) -> None:
        both = read(tmp_path, json.dumps([COUNTERFACT, {**COUNTERFACT, "case_id": "7b"}]))
        assert [fact.case for fact in both] == [7, "7b"]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (counterfact(target_new={"id": "Q220"}), "'target_new' is an object without 'str'"),
            (counterfact(target_new=3), "'target_new' must be a text that is not empty; got 3"),
            (counterfact(target_new={"str": float("nan")}), "'target_new' must be a text"),
            (counterfact(place=1), "unknown key 'place'; requested_rewrite has prompt, subject"),
            (json.dumps([{**COUNTERFACT, "near": []}]), "unknown key 'near'"),
            (json.dumps([{**COUNTERFACT, "requested_rewrite": []}]), "got a list of 0"),
            (
                json.dumps([{**COUNTERFACT, "neighborhood_prompts": [{"prompt": "a"}]}]),
                "'neighborhood_prompts, text 0' must be a text that is not empty; got an object",
            ),
            *(
                (json.dumps([{**COUNTERFACT, "case_id": case}]), "'case_id' must be a text or a")
                for case in (float("nan"), 1e999, 10**30, True, [1], 1.5)
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, text: str, says: str) -> None:
        told = refused(tmp_path, text)
        assert told.startswith("facts.txt, record 0 (counted from 0): ")
        assert says in told


class TestZsRE:
    def test_its_parts_are_the_facts(self, tmp_path: Path) -> None:
        assert read(tmp_path, json.dumps([ZSRE])) == (
            Fact(
                prompt="Which job did {} have?",
                subject="Ada",
                target_new="baker",
                target_true="mathematician",
                paraphrases=("What was the job of Ada?",),
            ),
        )

    @pytest.mark.parametrize(
        ("src", "prompt"),
        [
            ("In Adams county, where did Ada live?", "In Adams county, where did {} live?"),
            ("Ada or Ada?", "{} or Ada?"),
            ("Ada", "{}"),
            ("Who saw the Adas?", "Who saw the {}s?"),
        ],
    )
    def test_the_first_whole_word_that_is_the_subject_is_its_place(
        self, tmp_path: Path, src: str, prompt: str
    ) -> None:
        (fact,) = read(tmp_path, json.dumps([{**ZSRE, "src": src}]))
        assert fact.prompt == prompt

    def test_without_answers_the_true_one_is_unknown(self, tmp_path: Path) -> None:
        (fact,) = read(tmp_path, json.dumps([{**ZSRE, "answers": []}]))
        assert fact.target_true is None

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"subject": "Bo"}, "'src' must contain its subject 'Bo'"),
            ({"alt": ""}, "'alt' must be a text that is not empty; got ''"),
            ({"answers": "baker"}, "'answers' must be a list of texts; got 'baker'"),
            ({"rephrase": 1}, "'rephrase' must be a list of texts; got 1"),
            ({"lok": "x"}, "unknown key 'lok'; a record of zsRE has subject, src, alt"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        assert says in refused(tmp_path, json.dumps([{**ZSRE, **changes}]))


class TestPlain:
    @pytest.mark.parametrize("layout", ["list", "indented list", "object", "lines", "line", "bom"])
    def test_every_layout_of_json_gives_the_same(self, tmp_path: Path, layout: str) -> None:
        texts = {
            "list": json.dumps([FRANCE]),
            "indented list": json.dumps([FRANCE], indent=2),
            "object": json.dumps(FRANCE, indent=2),
            "lines": "\n" + as_lines(FRANCE, {**FRANCE, "subject": "Spain"}) + "\n",
            "line": json.dumps(FRANCE),
            "bom": "\ufeff" + as_lines(FRANCE),
        }
        found = read(tmp_path, texts[layout])
        assert found[0] == Fact(**FRANCE)
        assert len(found) == (2 if layout == "lines" else 1)

    def test_braces_stand_for_the_subject_in_other_prompts_too(self, tmp_path: Path) -> None:
        more = {"paraphrases": ["{}'s capital is", "It is"], "neighbours": ["{} or {}:"]}
        (fact,) = read(tmp_path, as_lines({**FRANCE, **more}))
        assert fact.paraphrases == ("France's capital is", "It is")
        assert fact.neighbours == ("France or France:",)

    def test_null_is_none(self, tmp_path: Path) -> None:
        nothing = {"target_true": None, "paraphrases": None, "neighbours": None}
        assert read(tmp_path, as_lines({**FRANCE, **nothing})) == (Fact(**FRANCE),)

    def test_a_prompt_with_its_subject_once_is_read(self, tmp_path: Path) -> None:
        whole = {**FRANCE, "prompt": "The capital of France is"}
        assert read(tmp_path, as_lines(whole)) == (Fact(**FRANCE),)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"prompt": "The capital is"}, "has neither {} nor its subject 'France'; write {}"),
            ({"prompt": "France, France"}, "has its subject 'France' 2 times and {} nowhere"),
            ({"prompt": "aaa", "subject": "aa"}, "has its subject 'aa' 2 times"),
            ({"prompt": "{} and {}"}, "needs {} once, where its subject is"),
            ({"prompt": ""}, "'prompt' must be a text that is not empty"),
            ({"subject": " "}, "'subject' must be a text that is not empty"),
            ({"target_true": 1}, "'target_true' must be a text that is not empty; got 1"),
            ({"paraphrases": "one"}, "'paraphrases' must be a list of texts; got 'one'"),
            ({"neighbours": ["one", None]}, "'neighbours, text 1' must be a text"),
            ({"neighbours": [[[]]]}, "'neighbours, text 0' must be a text"),
            ({"neighbors": []}, "unknown key 'neighbors'; a fact has prompt, subject, target_new"),
            ({"subject": "\ud800"}, "'subject' holds half a character"),
            ({"subject": "a" * 200_000}, "100,000 are allowed"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(
        self, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        told = refused(tmp_path, as_lines({**FRANCE, "subject": "Spain"}, {**FRANCE, **changes}))
        assert told.startswith("facts.txt, line 2: ")
        assert says in told

    @pytest.mark.parametrize("key", FRANCE)
    def test_a_missing_key_is_named(self, tmp_path: Path, key: str) -> None:
        left = {one: value for one, value in FRANCE.items() if one != key}
        assert f"is missing the key {key!r}; a fact has" in refused(tmp_path, as_lines(left))

    @pytest.mark.parametrize("other", [COUNTERFACT, ZSRE])
    def test_shapes_are_not_mixed(self, tmp_path: Path, other: dict[str, Any]) -> None:
        assert "line 2: has the unknown key" in refused(tmp_path, as_lines(FRANCE, other))


class TestCSV:
    def test_columns_have_any_order(self, tmp_path: Path) -> None:
        text = 'subject,target_new, prompt\nFrance,"Rome",The capital of {} is\n\n'
        assert read(tmp_path, text) == (Fact(**FRANCE),)

    def test_a_cell_has_several_texts_or_none(self, tmp_path: Path) -> None:
        head = "prompt,subject,target_new,target_true,paraphrases,neighbours\n"
        (fact,) = read(tmp_path, f"{head}The capital of {{}} is,France,Rome,,{{}}: | B|C, \n")
        assert fact.target_true is None
        assert fact.paraphrases == ("France:", "B|C")
        assert fact.neighbours == ()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("hello", "line 1: the table has the unknown column 'hello'; a fact has prompt"),
            ("prompt,subject", "line 1: the table is missing the column 'target_new'"),
            ("prompt,subject,prompt", "line 1: the column 'prompt' appears twice"),
            ("prompt,subject,target_new", "holds no facts; expected"),
            ("prompt,subject,target_new\n\n{} is,A\n", "line 3: 2 columns, but the first line"),
            ("prompt,subject,target_new\n{} is,A,\n", "line 2: 'target_new' must be a text"),
            ('prompt,subject,target_new\n"{}\nis",A,B\n"x', "line 4: a quote is not closed"),
            (f"prompt,subject,target_new\n{{}},A,{'b' * 140_000}", "line 2: field larger"),
            (
                "prompt,subject,target_new,paraphrases\n{} is,A,B,c |  | d\n",
                "line 2: 'paraphrases, text 1' must be a text that is not empty",
            ),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(
        self, tmp_path: Path, text: str, says: str
    ) -> None:
        assert says in refused(tmp_path, text)


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "is empty; expected"),
            (" \n\n", "is empty; expected"),
            ("[]", "holds no facts; expected"),
            (b"\xff\xfe", "is no text in UTF-8"),
            (b"\x80\x04\x95K\x00.", "is no text in UTF-8"),
            ("[" * 100_000, "is nested too deeply"),
            ('[{"prompt": 1', "is no JSON"),
            ("[1]", "record 0 (counted from 0): a fact is an object with 'prompt', 'subject'"),
            ("[[[]]]", "a fact is an object with 'prompt', 'subject', 'target_new'; got a list"),
            ('{"a": 1, "a": 2}', "line 1, has 'a' twice in one object"),
            ('[{"prompt": ' + "9" * 5_000 + "}]", "holds a number that cannot be read"),
            ('{"a": 1}\n{"b"}\n', "line 2, is no JSON"),
        ],
    )
    def test_what_is_no_file_of_facts_is_refused(
        self, tmp_path: Path, text: str | bytes, says: str
    ) -> None:
        assert says in refused(tmp_path, text)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="cannot be read"):
            read_facts(tmp_path / "none.json", Limits())

    def test_a_file_too_large_is_refused(self, tmp_path: Path) -> None:
        assert "10 are allowed" in refused(tmp_path, as_lines(FRANCE), max_bytes=10)

    @pytest.mark.parametrize("layout", ["lines", "list", "csv"])
    def test_too_many_facts_are_refused(self, tmp_path: Path, layout: str) -> None:
        records = [{**FRANCE, "subject": name} for name in ("France", "Spain", "Peru")]
        text = {
            "lines": as_lines(*records),
            "list": json.dumps(records),
            "csv": as_csv(tuple(Fact(**one) for one in records)),
        }[layout]
        assert len(read(tmp_path, text, max_edges=3)) == 3
        assert "has 3 facts and 2 are allowed" in refused(tmp_path, text, max_edges=2)

    def test_a_fact_twice_is_refused(self, tmp_path: Path) -> None:
        spain = {**FRANCE, "subject": "Spain"}
        whole = {**FRANCE, "prompt": "The capital of France is"}  # which is the same fact
        says = refused(tmp_path, as_lines(FRANCE, spain, whole))
        assert says.startswith("facts.txt, line 3: the fact 'The capital of France is' is named")
        assert "first in facts.txt, line 1;" in says


WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="{}\r|"), min_size=1
).filter(lambda text: bool(text.strip()))


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    blank = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}\r|"))
    return Fact(
        prompt=f"{draw(blank)}{{}}{draw(blank)}",
        subject=draw(WORDS),
        target_new=draw(WORDS),
        target_true=draw(st.none() | WORDS),
        paraphrases=tuple(draw(st.lists(WORDS, max_size=3))),
        neighbours=tuple(draw(st.lists(WORDS, max_size=3))),
    )


several = st.lists(facts(), min_size=1, max_size=4, unique=True).map(tuple)


def plain(fact: Fact) -> dict[str, Any]:
    return {key: value for key, value in asdict(fact).items() if key != "case"}


class TestRoundTrips:
    @given(several)
    def test_lines(self, tmp_path_factory: pytest.TempPathFactory, made: tuple[Fact, ...]) -> None:
        folder = tmp_path_factory.getbasetemp()
        assert read(folder, as_lines(*map(plain, made))) == made

    @given(several)
    def test_a_list(self, tmp_path_factory: pytest.TempPathFactory, made: tuple[Fact, ...]) -> None:
        folder = tmp_path_factory.getbasetemp()
        text = json.dumps([plain(fact) for fact in made], ensure_ascii=False)
        assert read(folder, text) == made

    @given(several)
    def test_csv(self, tmp_path_factory: pytest.TempPathFactory, made: tuple[Fact, ...]) -> None:
        folder = tmp_path_factory.getbasetemp()
        assert read(folder, as_csv(made)) == made
