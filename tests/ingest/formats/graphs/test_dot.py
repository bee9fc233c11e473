"""DOT as graphviz and its writers write it, and what merely resembles it."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.graphs.dot import DotGraph, read_dot
from registry.errors import BadInput
from tests.patience import soon


def read(text: str, *, max_edges: int = 1_000) -> DotGraph:
    return read_dot(text, "g.gv", keep={"style", "penwidth"}, max_edges=max_edges)


def links(graph: DotGraph) -> list[tuple[str, str]]:
    return [(edge.tail, edge.head) for edge in graph.edges]


def test_names_may_be_words_numbers_texts_or_html() -> None:
    graph = read('digraph { embed -> "<m0>"; -1.5 -> .5 -> <<b>x</b>> "a" + "b" -> é:n:ne }')
    assert links(graph) == [
        ("embed", "<m0>"), ("-1.5", ".5"), (".5", "<b>x</b>"), ("ab", "é"),
    ]  # fmt: skip


def test_texts_run_over_lines_and_escape_quotes_alone() -> None:
    graph = read('digraph { "a\\"b\\n\\\\" -> "c\\\nd" [style="x\ny"] }')
    assert links(graph) == [('a"b\\n\\\\', "cd")]
    assert graph.edges[0].attributes == {"style": "x\ny"}


def test_names_of_attributes_may_be_quoted_and_unknown_ones_are_dropped() -> None:
    graph = read(
        'digraph { a -> b ["style" = "invis", pos="0,0"; penwidth=1][color=red penwidth=2] }'
    )
    assert graph.edges[0].attributes == {"style": "invis", "penwidth": "2"}


def test_defaults_hold_for_what_follows_in_their_braces() -> None:
    graph = read(
        "digraph { a->b; subgraph s { edge [style=invis]; a->c } edge [penwidth=3]; a->d"
        " node [style=filled] e }"
    )
    assert [edge.attributes for edge in graph.edges] == [{}, {"style": "invis"}, {"penwidth": "3"}]
    assert graph.nodes["e"] == {"style": "filled"}


def test_chains_and_groups_are_edges_of_all_with_all() -> None:
    assert links(read("digraph { {a b} -> c -> subgraph {d; e} }")) == [
        ("a", "c"), ("b", "c"), ("c", "d"), ("c", "e"),
    ]  # fmt: skip


def test_a_strict_graph_has_each_edge_once() -> None:
    graph = read("strict digraph { a->b [penwidth=1]; a->b [style=invis]; b->a }")
    assert links(graph) == [("a", "b"), ("b", "a")]
    assert graph.edges[0].attributes == {"penwidth": "1", "style": "invis"}
    assert len(read("digraph { a->b; a->b }").edges) == 2


def test_the_graphs_own_attributes_are_those_outside_of_inner_braces() -> None:
    graph = read('digraph "" { graph [bb="0,0"]; layout=dot; subgraph cluster { label=x; a } }')
    assert graph.about == {"bb": "0,0", "layout": "dot"}


def test_comments_and_stray_backslashes_are_passed_over() -> None:
    assert links(read("# made by\n// one\ndigraph /* two\n */ { a -> \\\n b }")) == [("a", "b")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: expected a graph or digraph, found its end"),
        ("digraph {\n a ->\n", "line 3: expected '{', found its end"),
        ("digraph { a -> b", "found its end"),
        ("digraph { a -- b }", "edges written with ->"),
        ("graph { a -> b }", "edges written with --"),
        ('digraph { "a }', "expected DOT, found '\"a }'"),
        ("digraph { <a }", "a '>' for each '<'"),
        ("digraph { a [x=] }", "expected a name, found ']'"),
        ("digraph { } digraph { }", "nothing after the graph"),
        ("digraph " + "{" * 50, "nests graphs deeper than 40"),
        ("digraph { a -> b /* }", "expected DOT"),
        ("digraph { \x00 }", "expected DOT"),
    ],
)
def test_what_is_no_dot_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        read(text)


def test_there_is_a_limit_of_edges_and_nodes_even_where_they_repeat() -> None:
    group = "{" + " ".join(f"n{i}" for i in range(40)) + "}"
    with pytest.raises(BadInput, match="more than 1,000 edges"):
        read(f"digraph {{ {group} -> {group} }}")
    with pytest.raises(BadInput, match="more than 1,000 edges"):
        read("strict digraph { " + "a->b;" * 1_001 + "}")
    with pytest.raises(BadInput, match="more than 10 nodes"):
        read(f"digraph {{ {group} }}", max_edges=10)


@pytest.mark.parametrize(
    "text",
    [
        "digraph {" + "a " * 200_000,
        'digraph {"' + "\\" * 400_001,
        "digraph {" + "<" * 400_000,
        "digraph a" + " " * 400_000 + "-",
        "#\n" * 200_000,
        "digraph { a -> b [" + "style=1," * 50_000,
        "digraph {" + "a->" * 100_000,
    ],
)
def test_nonsense_is_refused_in_time(text: str) -> None:
    with soon(), pytest.raises(BadInput):
        read(text, max_edges=10**6)


@given(text=st.text(alphabet='digraph{}[]<>=-"\\;, \n/*#+:a1.', max_size=60))
def test_anything_is_a_graph_or_one_clear_error(text: str) -> None:
    with contextlib.suppress(BadInput):
        graph = read("digraph {" + text + "}")
        assert all(end in graph.nodes for edge in graph.edges for end in (edge.tail, edge.head))
