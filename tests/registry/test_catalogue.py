"""Named queries: what a header may say, and how parameters are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from registry.catalogue import bind, collect, load_catalogue, parse_query, read_folder
from registry.errors import BadIdentifier, BadInput, NotFound

HEADER = """\
// heads-of-layer
// Heads of a layer
// that circuits use.
//
// param layer: integer -- Layer, from 0.
// param tasks: list[task] = [] -- Tasks;
//   none means all.
// param least: number = 0.5 -- Smallest effect.
// param model: model = null -- Only this model.
// returns head: string -- Its id.
// returns effect: number? -- Mean effect.
"""
STATEMENT = """\
MATCH (c:Component) // not $this
WHERE c.layer = $layer AND c.x > $least AND c.y <> '$that' AND c.task IN $tasks
RETURN c.id AS head, $model AS effect
"""
QUERY = parse_query(HEADER + STATEMENT, "others/heads_of_layer.cypher")


class TestReading:
    def test_a_header_says_everything(self) -> None:
        assert QUERY.name == "heads-of-layer"
        assert QUERY.purpose == "Heads of a layer that circuits use."
        assert [p.name for p in QUERY.parameters] == ["layer", "tasks", "least", "model"]
        assert [p.required for p in QUERY.parameters] == [True, False, False, False]
        assert [p.default for p in QUERY.parameters] == [None, [], 0.5, None]
        assert QUERY.parameters[1].help == "Tasks; none means all."
        assert [(str(c), c.type) for c in QUERY.columns] == [
            ("head", "string"),
            ("effect", "number?"),
        ]
        assert QUERY.text == HEADER + STATEMENT

    @pytest.mark.parametrize(
        ("before", "after", "line", "expected"),
        [
            ("// heads-of-layer", "// heads", 1, "// heads-of-layer"),
            ("// Heads of a layer\n// that circuits use.\n", "", 1, "a purpose"),
            ("layer: integer --", "layer: whole --", 5, "a type of string, integer"),
            ("layer: integer --", "layer integer --", 5, "param NAME: TYPE"),
            ("integer -- Layer, from 0.", "integer", 5, "-- MEANING"),
            ("number = 0.5", "number = a half", 8, "a default in JSON, not a half"),
            ("// returns head:", "// return head:", 10, "returns NAME"),
            ("head: string --", "head: text --", 10, "string, integer, number"),
            ("// param least: number = 0.5 -- Smallest effect.\n", "", 1, r"\$least"),
            (" AND c.x > $least", "", 1, r"uses \$least"),
            ("returns effect:", "returns head:", 5, "'head' declared once"),
        ],
    )
    def test_a_malformed_header_names_file_and_line(
        self, before: str, after: str, line: int, expected: str
    ) -> None:
        assert before in HEADER + STATEMENT
        text = (HEADER + STATEMENT).replace(before, after)
        with pytest.raises(BadInput, match=rf"others/heads_of_layer.cypher, line {line}: .*") as e:
            parse_query(text, "others/heads_of_layer.cypher")
        assert re.search(expected, str(e.value))

    def test_a_file_without_a_header_is_refused(self) -> None:
        with pytest.raises(BadInput, match=r"x\.cypher, line 1: expected a header"):
            parse_query("MATCH (n) RETURN n.id AS id", "x.cypher")

    def test_files_of_a_folder_are_found_and_others_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "heads_of_layer.cypher").write_text(HEADER + STATEMENT, encoding="utf-8")
        (tmp_path / "notes.txt").write_text("not a query", encoding="utf-8")
        (tmp_path / "old.cypher").mkdir()
        found = list(read_folder(tmp_path, "others"))
        assert [(query.name, query.source) for query in found] == [
            ("heads-of-layer", "others/heads_of_layer.cypher")
        ]

    def test_two_packages_with_one_name_are_both_named(self) -> None:
        mine = parse_query(HEADER + STATEMENT, "mine/heads_of_layer.cypher")
        with pytest.raises(
            BadInput, match=r"others/heads_of_layer\.cypher and mine/heads_of_layer\.cypher"
        ):
            collect([QUERY, mine])

    def test_our_own_queries_are_registered(self) -> None:
        catalogue = load_catalogue()
        assert list(catalogue) == sorted(catalogue)
        first = {"shared-components", "shared-connections", "where-used", "circuits-of-task"}
        assert first | {"nearest-circuits", "edits-touching", "tasks-at-risk"} <= set(catalogue)
        assert all(query.source.startswith("queries/") for query in catalogue.values())

    def test_every_statement_has_a_total_order_and_returns_its_columns(self) -> None:
        for query in load_catalogue().values():
            last = query.text.rpartition("RETURN ")[2]
            assert "\nORDER BY " in last, query.name
            for column in query.columns:
                assert re.search(rf"\b{column}\b", last), (query.name, column)


class TestBinding:
    def test_text_is_read_by_type(self) -> None:
        given = {"layer": "3", "tasks": "ioi, sequence/months,ioi", "least": "1e-3"}
        assert bind(QUERY, given) == {
            "layer": 3,
            "tasks": ["ioi", "sequence/months"],
            "least": 0.001,
            "model": None,
        }

    def test_values_of_python_pass_and_defaults_stand_in(self) -> None:
        assert bind(QUERY, {"layer": 0, "tasks": ("ioi",), "model": None}) == {
            "layer": 0,
            "tasks": ["ioi"],
            "least": 0.5,
            "model": None,
        }

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, r"'heads-of-layer' needs layer \(integer\): Layer, from 0"),
            ({"layer": None}, "needs layer"),
            ({"layer": 1, "task": "ioi"}, "no parameter 'task'; it takes layer, least, model"),
            ({"layer": "one"}, "layer of query 'heads-of-layer': expected a whole number, got 'o"),
            ({"layer": 1.5}, "expected a whole number, got 1.5"),
            ({"layer": True}, "expected a whole number, got True"),
            ({"layer": "9" * 40}, "expected a whole number"),
            ({"layer": 1, "least": "nan"}, "least of query .*: expected a number, got 'nan'"),
            ({"layer": 1, "least": "1e999"}, "expected a number"),
            ({"layer": 1, "tasks": "ioi,,x"}, "expected values separated by commas"),
            ({"layer": 1, "tasks": 3}, r"expected list\[task\], got 3"),
            ({"layer": 1, "tasks": [3]}, "expected text, got 3"),
        ],
    )
    def test_a_wrong_parameter_is_named(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInput, match=message):
            bind(QUERY, given)

    def test_a_broken_model_name_says_what_would_be_right(self) -> None:
        with pytest.raises(BadIdentifier, match="'GPT 2' is not a model's name"):
            bind(QUERY, {"layer": 1, "model": "GPT 2"})

    def test_names_are_resolved_by_their_type(self) -> None:
        resolve = {"task": str.upper, "model": lambda name: f"{name}-135m"}
        bound = bind(QUERY, {"layer": 1, "tasks": "a,b", "model": "smollm2"}, resolve=resolve)
        assert (bound["tasks"], bound["model"]) == (["A", "B"], "smollm2-135m")

    def test_what_a_resolver_does_not_know_stays_its_error(self) -> None:
        def unknown(name: str) -> str:
            raise NotFound("task", name, "nearest: ioi")

        with pytest.raises(NotFound, match="no task 'ios'; nearest: ioi"):
            bind(QUERY, {"layer": 1, "tasks": ["ios"]}, resolve={"task": unknown})

    @pytest.mark.parametrize("value", [0, -1, "0"])
    def test_a_count_starts_at_one(self, value: Any) -> None:
        with pytest.raises(BadInput, match=r"limit of query .* whole number from 1"):
            bind(load_catalogue()["nearest-circuits"], {"circuit": "abcd", "limit": value})
