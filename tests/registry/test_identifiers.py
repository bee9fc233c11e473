"""Names of a model's parts: every one reads back, no two parts share one, order is an order."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadIdentifier
from registry.identifiers import (
    Kind,
    Local,
    can_feed,
    never_feeds,
    node_key,
    parse_component,
    parse_connection,
    parse_local,
    parse_model,
    parse_node_key,
    sort_key,
    to_component_level,
)
from tests.strategies import components, connections, locals_, model_names, ports_of, positions

# One name of every form of the grammar, in the order in which a forward pass meets them.
IN_ORDER = [
    "input",
    "embed",
    "pos_embed",
    "l0.resid_pre#pca[0]",
    "l0.ln1",
    "l0.k_norm",
    "l0.q_norm",
    "a0.h0",
    "a0.h1",
    "a0.kv0",
    "a0.kv0.v#pca[0]",
    "l0.ln1_post",
    "l0.resid_mid#pca[3]",
    "l0.ln2",
    "m0",
    "m0.n17",
    "m0.hidden#pca[1]",
    "m0.f3036#gemmascope",
    "m0.error#gemmascope",
    "l0.ln2_post",
    "l0.resid_post#ndm-3f9a[2]",
    "a9.h6",
    "a10.h7",
    "a10.h7.z#das[0]",
    "m10",
    "ln_final",
    "unembed",
    "logits",
    "logits[50256]",
]


class TestReadingAndWriting:
    @given(local=locals_())
    def test_what_is_written_reads_back(self, local: Local) -> None:
        assert parse_local(str(local)) == local

    @given(local=locals_())
    def test_what_is_read_is_written_as_it_was(self, local: Local) -> None:
        text = str(local)
        assert str(parse_local(text)) == text

    @given(one=locals_(), other=locals_())
    def test_two_parts_never_share_a_name(self, one: Local, other: Local) -> None:
        assert (str(one) == str(other)) == (one == other)

    @given(component=components())
    def test_components_read_back(self, component: object) -> None:
        assert parse_component(str(component)) == component

    @given(connection=connections())
    def test_connections_read_back(self, connection: object) -> None:
        assert parse_connection(str(connection)) == connection

    @given(local=locals_(), position=st.one_of(st.none(), positions, st.just("a@b->c")))
    def test_nodes_keys_read_back(self, local: Local, position: str | None) -> None:
        assert parse_node_key(node_key(local, position)) == (local, position)

    @given(text=st.from_regex(r"[aml]?[0-9]{0,3}[.a-z0-9#\[\]]{0,12}", fullmatch=True))
    def test_a_text_is_the_name_of_a_part_or_refused(self, text: str) -> None:
        try:
            local = parse_local(text)
        except BadIdentifier:
            return
        assert str(local) == text

    @pytest.mark.parametrize("text", IN_ORDER)
    def test_every_form_of_the_grammar_is_read(self, text: str) -> None:
        assert str(parse_local(text)) == text

    @given(model=model_names)
    def test_models_names_are_kept(self, model: str) -> None:
        assert parse_model(model) == model


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a9",
            "a9.h",
            "a09.h6",
            "A9.h6",
            "a9.h6 ",
            "a9.h6\n",
            "a٩.h6",
            "m-1",
            "m3.n",
            "l9.resid_pre",
            "l9.resid_pre#pca[0]",
            "l8.resid_post",
            "l8.ln3",
            "l8.ln1_pre",
            "l8.ln_final",
            "l8.ln1#pca[0]",
            "ln1",
            "a8.q_norm",
            "unembed[3]",
            "l8.resid_post#[0]",
            "l8.resid_post#pca[x]",
            "a4.kv2.q#pca[0]",
            "logits[-1]",
            "logits[ Mary]",
            "gpt2/a9.h6",
            "a9.h6<q>",
            "a9.h6@END",
        ],
    )
    def test_what_the_grammar_has_not_is_refused_with_examples(self, text: str) -> None:
        with pytest.raises(BadIdentifier, match=r"is not a component such as input, a9\.h6"):
            parse_local(text)

    @pytest.mark.parametrize("text", ["", "GPT2", "gpt 2", "gpt2/a9.h6", "gpt2@", "@a", "gpt2@a@b"])
    def test_what_is_no_models_name_is_refused(self, text: str) -> None:
        with pytest.raises(BadIdentifier, match="a model's name: lower-case"):
            parse_model(text)

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("gpt2/a9.h6", "a connection such as"),
            ("a9.h6->a10.h7<q>", "a component with its model"),
            ("gpt2/a9.h6->a10.kv1<q>", "needs one of <k>, <v>"),
            ("gpt2/a9.h6->m10<q>", "m10 has one input and takes no port"),
            ("gpt2/a9.h6->logits<v>", "logits has one input and takes no port"),
            ("gpt2/a9.h6->a10.h7<z>", "is not a component"),
            ("gpt2/a9.h6->gpt2/m10", "is not a component"),
        ],
    )
    def test_what_is_no_connection_is_refused(self, text: str, hint: str) -> None:
        with pytest.raises(BadIdentifier, match=hint):
            parse_connection(text)


class TestOrder:
    def test_parts_sort_as_the_forward_pass_runs(self) -> None:
        mixed = random.Random(0).sample(IN_ORDER, len(IN_ORDER))
        assert sorted(mixed, key=lambda text: sort_key(parse_local(text))) == IN_ORDER

    @given(one=locals_(), other=locals_())
    def test_different_parts_never_tie(self, one: Local, other: Local) -> None:
        assert (sort_key(one) == sort_key(other)) == (one == other)

    @given(parts=st.lists(locals_(), min_size=3, max_size=3), parallel=st.booleans())
    def test_feeding_is_a_strict_order(self, parts: list[Local], parallel: bool) -> None:
        one, two, three = parts
        assert not feeds(one, one, parallel)
        assert not (feeds(one, two, parallel) and feeds(two, one, parallel))
        if feeds(one, two, parallel) and feeds(two, three, parallel):
            assert feeds(one, three, parallel)

    @given(source=locals_(), target=locals_(), parallel=st.booleans())
    def test_nothing_feeds_a_lower_layer(
        self, source: Local, target: Local, parallel: bool
    ) -> None:
        if feeds(source, target, parallel) and target.layer is not None:
            assert source.layer is None or source.layer <= target.layer
            assert sort_key(source) < sort_key(target)

    @pytest.mark.parametrize(
        ("source", "target", "port", "sequential", "parallel"),
        [
            ("a3.h1", "m3", None, True, False),
            ("m3", "a3.h1", "q", False, False),
            ("m3", "a4.h1", "q", True, True),
            ("a3.h1", "a3.h2", "k", False, False),
            ("a3.h1", "a4.h2", "v", True, True),
            ("a3.h1", "a4.kv0", "k", True, True),
            ("a4.kv0", "a4.h2", "k", False, False),
            ("a4.kv0", "a5.h2", "k", False, False),
            ("input", "a0.h0", "q", True, True),
            ("input", "logits", None, True, True),
            ("m11", "logits", None, True, True),
            ("m11", "logits[3]", None, True, True),
            ("logits", "logits[3]", None, False, False),
            ("a0.h0", "input", None, False, False),
            ("input", "embed", None, False, False),
            ("a3.h1", "m3.n7", None, True, False),
            ("m3.n7", "m3", None, False, False),
            ("m3.f12#scope", "a4.h0", "v", True, True),
            ("a3.h1", "m3.f12#scope", None, True, False),
            ("input", "l0.resid_pre#b[0]", None, True, True),
            ("l0.resid_pre#b[0]", "a0.h0", "q", True, True),
            ("l0.resid_pre#b[0]", "l0.attn_out#b[0]", None, True, True),
            ("a0.h0", "l0.resid_mid#b[0]", None, True, True),
            ("l0.attn_out#b[0]", "l0.mlp_out#b[0]", None, True, False),
            ("l0.resid_mid#b[0]", "m0", None, True, False),
            ("m0", "l0.resid_post#b[0]", None, True, True),
            ("l0.resid_mid#b[0]", "l0.resid_post#b[0]", None, True, True),
            ("l0.resid_post#b[0]", "a1.h0", "v", True, True),
            ("l0.resid_post#b[0]", "l0.resid_post#b[1]", None, False, False),
            ("l0.resid_post#b[0]", "m0", None, False, False),
            ("l11.resid_post#b[0]", "logits", None, True, True),
            ("l3.ln1", "a3.h1", "q", False, False),
            ("a3.h1", "l3.ln2", None, False, False),
            ("ln_final", "logits", None, False, False),
            ("m11", "unembed", None, False, False),
        ],
    )
    def test_a_part_feeds_what_reads_after_it_wrote(
        self, source: str, target: str, port: str | None, sequential: bool, parallel: bool
    ) -> None:
        ends = parse_local(source), parse_local(target)
        assert can_feed(*ends, port) is sequential
        assert can_feed(*ends, port, parallel_attn_mlp=True) is parallel

    def test_a_port_that_a_part_does_not_have_is_never_fed(self) -> None:
        source = parse_local("input")
        assert not can_feed(source, parse_local("m3"), "q")
        assert not can_feed(source, parse_local("a3.kv1"), "q")

    @given(source=locals_(), target=locals_(), parallel=st.booleans())
    def test_a_part_feeds_without_a_port_where_it_feeds_any_input(
        self, source: Local, target: Local, parallel: bool
    ) -> None:
        fed = [
            can_feed(source, target, port, parallel_attn_mlp=parallel)
            for port in ports_of(target)
            if port
        ]
        if fed:
            assert can_feed(source, target, parallel_attn_mlp=parallel) is any(fed)

    @pytest.mark.parametrize(
        ("n_layers", "n_heads", "n_kv_heads", "edges"),
        [(12, 12, 12, 32_491), (30, 9, 3, 70_651)],
    )
    def test_edges_of_real_models_are_as_many_as_known(
        self, n_layers: int, n_heads: int, n_kv_heads: int, edges: int
    ) -> None:
        """GPT-2 small and SmolLM2-135M; the former's is the count of Syed et al. (2023)."""
        assert count_edges(n_layers, n_heads, n_kv_heads) == edges


@given(local=locals_())
def test_only_embeddings_fold_to_another_component(local: Local) -> None:
    folded = to_component_level(local)
    if local.kind in {Kind.EMBED, Kind.POS_EMBED}:
        assert folded == Local(Kind.INPUT)
    else:
        assert folded == local


def feeds(source: Local, target: Local, parallel: bool) -> bool:
    """Whether ``source`` can feed any input of ``target``."""
    return any(
        can_feed(source, target, port, parallel_attn_mlp=parallel) for port in ports_of(target)
    )


def count_edges(n_layers: int, n_heads: int, n_kv_heads: int) -> int:
    """Scored edges of a model, keys and values read at the key/value heads where they are fewer."""
    grouped = n_kv_heads < n_heads
    layers = range(n_layers)
    heads = [Local(Kind.HEAD, layer, head) for layer in layers for head in range(n_heads)]
    groups = [Local(Kind.KV_HEAD, layer, head) for layer in layers for head in range(n_kv_heads)]
    mlps = [Local(Kind.MLP, layer) for layer in layers]
    inputs: list[tuple[Local, str | None]] = [(mlp, None) for mlp in mlps]
    inputs.append((Local(Kind.LOGITS), None))
    inputs += itertools.product(heads, "q" if grouped else "qkv")
    inputs += itertools.product(groups, "kv") if grouped else ()
    sources = [Local(Kind.INPUT), *heads, *mlps]
    return sum(can_feed(source, *target) for source in sources for target in inputs)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("L9H6", "a9.h6"), ("l9h6", "a9.h6"), ("L9.H6", "a9.h6"), ("9.6", "a9.h6"),
        ("A9.6", "a9.h6"), ("head.9.6", "a9.h6"), ("mlp3", "m3"), ("MLP 3", "m3"), ("L3.MLP", "m3"),
    ],
)  # fmt: skip
def test_a_part_in_another_tools_spelling_is_refused_with_ours(theirs: str, ours: str) -> None:
    with pytest.raises(BadIdentifier, match=f"did you mean '{ours}'"):
        parse_local(theirs)


@pytest.mark.parametrize("text", ["96", "L9", "mlp", "a9.6.3", "L9H6H7"])
def test_what_may_mean_several_parts_or_none_is_not_guessed_at(text: str) -> None:
    with pytest.raises(BadIdentifier) as refused:
        parse_local(text)
    assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "target", "never"),
    [
        ("a0.h0", "a1.h0", False), ("m0", "a0.h1", False), ("a0.h1", "m0", False),
        ("input", "logits", False), ("a4.kv2", "a4.h3", False),
        ("m5.f1#d", "l5.resid_post.f2#d", False),
        ("a1.h0", "a0.h0", True), ("a1.h0", "a1.h1", True), ("m1", "m1", True),
        ("m1.n3", "m1.n4", True), ("m5.f1#d", "m5.f2#d", True), ("m0", "input", True),
        ("logits", "m0", True), ("logits[3]", "logits", True),
        ("l5.resid_post.f2#d", "m5.f1#d", True), ("a0.h0", "l0.resid_pre.f2#d", True),
    ],
)  # fmt: skip
def test_what_feeds_what_in_no_model_is_known(source: str, target: str, never: bool) -> None:
    assert never_feeds(parse_local(source), parse_local(target)) is never


@given(locals_(), locals_(), st.booleans())
def test_what_can_feed_in_some_model_is_not_ruled_out(
    source: Local, target: Local, parallel: bool
) -> None:
    if can_feed(source, target, parallel_attn_mlp=parallel):
        assert not never_feeds(source, target)
