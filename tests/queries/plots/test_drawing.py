"""Drawings: what is shown, and that a person can read it."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from queries.plots.circuit import DrawnEdge, Picture, draw, figure_of, strongest
from queries.plots.layout import BOX_HEIGHT, BOX_WIDTH, lay_out
from queries.plots.page import DASHES
from queries.plots.picture import OWN, SHARED_BY_ALL
from registry.errors import BadInput
from registry.identifiers import can_feed, parse_local

TASKS = ("ioi", "sequence/numerals", "sequence/months")


def picture(n_edges: int, seed: int = 1, **changes: Any) -> Picture:
    """Random edges between parts of SmolLM2: 30 layers of 9 heads in 3 groups."""
    draw = random.Random(seed)
    names = ["input", *(f"m{layer}" for layer in draw.sample(range(30), 14)), "logits"]
    names += [f"a{layer}.h{draw.randrange(9)}" for layer in draw.sample(range(30), 24)]
    names += [f"a{layer}.kv{draw.randrange(3)}" for layer in draw.sample(range(30), 10)]
    edges: dict[tuple[str, str, str | None], DrawnEdge] = {}
    while len(edges) < n_edges:
        source, target = draw.choice(names), draw.choice(names)
        ports = {"h": "q", "k": draw.choice("kv")}.get(target.partition(".")[2][:1])
        if can_feed(parse_local(source), parse_local(target), ports):
            users = draw.sample(TASKS, draw.randint(1, 3))
            effects = {task: draw.gauss(0.2, 1) for task in users}
            edges[source, target, ports] = DrawnEdge(source, target, ports, effects)
    given = {"title": "Shared", "min_tasks": 2, "heads_per_group": 3, **changes}
    return Picture(tasks=TASKS, edges=tuple(edges.values()), **given)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_two_labels_overlap_and_none_leaves_the_page(seed: int) -> None:
    figure = figure_of(picture(120, seed))
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (axes,) = figure.axes
    boxes = {
        f"{text.get_text()!r} ({place})": text.get_window_extent()
        for place, text in enumerate([*axes.texts, *figure.texts, *figure.legends[0].get_texts()])
    }
    for (one, box), (other, another) in combinations(boxes.items(), 2):
        assert not box.overlaps(another), f"{one} lies on {other}"
    page = figure.bbox
    for name, box in boxes.items():
        assert page.x0 <= box.x0 < box.x1 <= page.x1, name
        assert page.y0 <= box.y0 < box.y1 <= page.y1, name


def test_boxes_keep_apart_and_layers_run_from_left_to_right() -> None:
    shown = strongest(picture(120))
    names = {name for edge in shown for name in (edge.source, edge.target)}
    layout = lay_out(names, [(edge.source, edge.target, edge.port) for edge in shown])
    for (one, a), (other, b) in combinations(layout.places.items(), 2):
        assert abs(a[0] - b[0]) >= BOX_WIDTH or abs(a[1] - b[1]) >= BOX_HEIGHT, (one, other)
    for edge in shown:
        assert layout.places[edge.source][0] < layout.places[edge.target][0], edge
    heads = [y for name, (_, y) in layout.places.items() if name.startswith("a")]
    mlps = [y for name, (_, y) in layout.places.items() if name.startswith("m")]
    assert min(heads) > max(mlps)


def test_every_box_lies_within_the_band_of_its_layer() -> None:
    shown = strongest(picture(120))
    names = {name for edge in shown for name in (edge.source, edge.target)}
    norms = {"l3.ln1", "l3.q_norm", "l3.ln2", "l4.ln1", "l5.ln2_post", "ln_final"}
    for drawn in (names, names | norms):
        layout = lay_out(drawn, [(edge.source, edge.target, edge.port) for edge in shown])
        bands = {layer: (left, right) for layer, left, right in layout.layers}
        for name, (x, _) in layout.places.items():
            layer = parse_local(name).layer
            for other, (left, right) in bands.items():
                if other == layer:
                    assert left < x - BOX_WIDTH / 2 < x + BOX_WIDTH / 2 < right, name
                else:
                    assert x + BOX_WIDTH / 2 < left or right < x - BOX_WIDTH / 2, (name, other)


def test_norms_stand_where_they_are_applied() -> None:
    in_order = ["input", "l3.ln1", "l3.q_norm", "a3.h1", "l3.ln1_post", "l3.ln2", "m3",
                "l3.ln2_post", "l4.ln1", "ln_final", "unembed", "logits"]  # fmt: skip
    layout = lay_out(in_order, [])
    columns = [layout.places[name][0] for name in in_order]
    assert columns == sorted(set(columns))
    assert [layer for layer, _, _ in layout.layers] == [3, 4]
    above = {name for name, (_, height) in layout.places.items() if height >= 0}
    assert above == set(in_order) - {"l3.ln2", "m3", "l3.ln2_post"}


def test_norms_do_not_move_what_is_drawn_without_them() -> None:
    names = ["input", "a3.h1", "a3.h2", "m3", "logits"]
    _, *rest = lay_out([*names, "l3.ln1"], []).places.items()
    assert [height for name, (_, height) in rest if name != "l3.ln1"] == [
        height for name, (_, height) in lay_out(names, []).places.items() if name != "input"
    ]


def test_equal_input_gives_an_equal_layout() -> None:
    shown = strongest(picture(60))
    names = [name for edge in shown for name in (edge.source, edge.target)]
    edges = [(edge.source, edge.target, edge.port) for edge in shown]
    assert lay_out(names, edges) == lay_out(set(names), edges)


def test_the_strongest_shared_edges_are_shown_and_the_page_says_how_many() -> None:
    made = picture(200, max_edges=10)
    shared = [edge for edge in strongest(made) if len(edge.effects) >= 2]
    n_shared = sum(len(edge.effects) >= 2 for edge in made.edges)
    assert len(shared) == 10
    (subtitle,) = (text for text in figure_of(made).texts if text.get_gid() == "subtitle")
    assert f"the strongest 10 of {n_shared} shared edges" in subtitle.get_text()


def test_strength_is_relative_to_the_task() -> None:
    loud = DrawnEdge("input", "m1", None, {"loud": 100.0})
    quiet = DrawnEdge("input", "m2", None, {"quiet": 0.1})
    weak = DrawnEdge("input", "m3", None, {"loud": 50.0})
    made = Picture("t", ("loud", "quiet"), (weak, quiet, loud), max_edges=2)
    assert strongest(made) == (loud, quiet)


def test_an_edge_that_one_task_hardly_uses_is_no_strong_shared_edge() -> None:
    one_sided = DrawnEdge("input", "m1", None, {"a": 1.0, "b": 0.01})
    even = DrawnEdge("input", "m2", None, {"a": 0.3, "b": -0.3})
    largest = DrawnEdge("input", "m3", None, {"a": 1.0, "b": 1.0, "c": 0.01})
    made = Picture("t", ("a", "b", "c"), (one_sided, even, largest), min_tasks=2, max_edges=3)
    assert strongest(made) == (largest, even, one_sided)


def test_wider_lines_are_stronger_and_dashed_ones_hurt() -> None:
    strong = DrawnEdge("input", "m1", None, {"ioi": -2.0})
    weak = DrawnEdge("input", "m2", None, {"ioi": 0.05})
    (axes,) = figure_of(Picture("t", ("ioi",), (strong, weak))).axes
    lines = [patch for patch in axes.patches if patch.get_fill() is False]
    wide, narrow = sorted(lines, key=lambda line: -line.get_linewidth())
    assert wide.get_linewidth() > 2 * narrow.get_linewidth()
    assert wide.get_linestyle() != "solid"
    assert narrow.get_linestyle() == "solid"


def test_an_edge_that_helps_one_task_and_hurts_another_looks_like_neither() -> None:
    effects: list[dict[str, float | None]] = [
        {"ioi": 1.0, "months": 0.5}, {"ioi": -1.0, "months": -0.5}, {"ioi": 9, "months": -1}
    ]  # fmt: skip
    edges = tuple(DrawnEdge("input", f"m{i}", None, of) for i, of in enumerate(effects))
    figure = figure_of(Picture("t", ("ioi", "months"), edges))
    lines = [patch for patch in figure.axes[0].patches if patch.get_fill() is False]
    assert len({str(line.get_linestyle()) for line in lines}) == 3
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"hurts the metric", "helps one, hurts another"} <= labels


def test_components_are_drawn_without_edges_and_counted() -> None:
    figure = figure_of(Picture("t", TASKS, (), components={"a1.h2": 3, "a1.h3": 2, "m4": 3}))
    names = {text.get_text() for text in figure.axes[0].texts if text.get_gid() == "node"}
    assert names == {"a1.h2", "a1.h3", "m4"}
    (subtitle,) = (text for text in figure.texts if text.get_gid() == "subtitle")
    assert "3 shared components, without edges" in subtitle.get_text()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["used by all 3", "used by some, not all"]


def subtitle_of(made: Picture) -> str:
    (text,) = (text for text in figure_of(made).texts if text.get_gid() == "subtitle")
    return text.get_text()


def test_one_part_is_counted_in_the_singular() -> None:
    component = Picture("t", TASKS, (), components={"a1.h2": 3})
    assert "\n1 shared component, without edges; " in subtitle_of(component)
    edge = DrawnEdge("input", "m1", None, {"ioi": 1.0, "months": 1.0})
    assert "\n1 shared edge; " in subtitle_of(Picture("t", ("ioi", "months"), (edge,)))
    alone = DrawnEdge("input", "m1", None, {"ioi": 1.0})
    assert "\n1 edge; " in subtitle_of(Picture("t", ("ioi",), (alone,)))


@pytest.mark.parametrize("n_parts", range(1, 6))
def test_few_parts_make_a_small_page_that_holds_all_texts(n_parts: int) -> None:
    tasks = ("sequence/number-words (0123456789ab)", "sequence/numerals (ba9876543210)")
    names = ["input", "a1.h2", "m3", "a4.h5", "logits"][:n_parts]
    edges = tuple(
        DrawnEdge(one, other, "q" if other.startswith("a") else None, {tasks[0]: 1, tasks[1]: -1})
        for one, other in pairwise(names)
    )
    title = "What both tasks share in a-model-with-a-long-name-instruct-v0.2"
    parts = {} if edges else {names[0]: 2}
    figure = figure_of(Picture(title, tasks, edges, components=parts, heads_per_group=2))
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (axes,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axes.patches if patch.get_gid() in names]
    beside = figure.bbox.width - (max(box.x1 for box in boxes) - min(box.x0 for box in boxes))
    assert figure.get_figwidth() == pytest.approx(4.5) or beside < figure.dpi
    assert " ".join(subtitle_of(Picture(title, tasks, edges, components=parts)).split()).startswith(
        ", ".join(tasks)
    )
    texts = [*figure.texts, *figure.legends[0].get_texts(), *axes.texts]
    for text, other in combinations(texts, 2):
        assert not text.get_window_extent().overlaps(other.get_window_extent()), (text, other)
    for text in texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, text


def test_every_box_has_the_same_size_on_every_page() -> None:
    sizes = set()
    for made in (picture(60), Picture("t", TASKS, (), components={"a1.h2": 3})):
        figure = figure_of(made)
        boxes = [patch for patch in figure.axes[0].patches if patch.get_gid() == "a1.h2"]
        boxes = boxes or [patch for patch in figure.axes[0].patches if patch.get_gid() == "input"]
        (x0, y0), (x1, y1) = boxes[0].get_window_extent().get_points() / figure.dpi
        sizes.add((round(x1 - x0, 3), round(y1 - y0, 3)))
    assert len(sizes) == 1


def test_the_legend_shows_a_whole_period_of_every_dashed_line() -> None:
    effects: list[dict[str, float | None]] = [
        {"ioi": -1.0, "months": -0.5}, {"ioi": 9, "months": -1}
    ]  # fmt: skip
    edges = tuple(DrawnEdge("input", f"m{i}", None, of) for i, of in enumerate(effects))
    (legend,) = figure_of(Picture("t", ("ioi", "months"), edges)).legends
    texts = [text.get_text() for text in legend.get_texts()]
    swatches = dict(zip(texts, legend.legend_handles, strict=True))
    labels = {"hurts": "hurts the metric", "mixed": "helps one, hurts another"}
    for acting, label in labels.items():
        swatch = swatches[label]
        assert isinstance(swatch, Line2D)
        _, dashes = DASHES[acting]
        period_and_dash = (sum(dashes) + dashes[0]) * swatch.get_linewidth()
        assert np.ptp(np.asarray(swatch.get_xdata(), dtype=float)) >= period_and_dash


def test_colours_tell_shared_from_own() -> None:
    users = [TASKS, TASKS[:2], TASKS[:1]]
    edges = tuple(
        DrawnEdge("input", f"m{i}", None, dict.fromkeys(u, 1.0)) for i, u in enumerate(users)
    )
    figure = figure_of(Picture("t", TASKS, edges, min_tasks=2))
    (axes,) = figure.axes
    colours = {patch.get_edgecolor()[:3] for patch in axes.patches if patch.get_fill() is False}
    assert len(colours) == 3
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["used by all 3", "used by some, not all", "used by only one"]


def test_a_part_that_all_use_by_edges_of_their_own_is_drawn_as_theirs() -> None:
    edges = (
        DrawnEdge("input", "m5", None, {"ioi": 1.0, "months": 1.0}),
        DrawnEdge("m3", "m5", None, {"ioi": 1.0}),
        DrawnEdge("m3", "m4", None, {"months": 1.0}),
        DrawnEdge("m1", "m5", None, {"ioi": 1.0}),
    )
    made = Picture("t", ("ioi", "months"), edges, min_tasks=2, users={"m3": 2, "m9": 2})
    boxes = {patch.get_gid(): patch.get_edgecolor() for patch in figure_of(made).axes[0].patches}
    assert boxes["m3"] == boxes["m5"] == to_rgba(SHARED_BY_ALL)
    assert boxes["m1"] == boxes["m4"] == to_rgba(OWN)
    assert "m9" not in boxes


def test_the_legend_tells_the_colour_of_every_box() -> None:
    edges = (DrawnEdge("m1", "m2", None, {"ioi": 1.0}),)
    figure = figure_of(Picture("t", ("ioi", "months"), edges, users={"m1": 2}))
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"used by both", "used by only one"} <= labels


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".SVG"])
def test_a_drawing_is_written_by_its_suffix_and_equal_ones_are_equal_files(
    suffix: str, tmp_path: Path
) -> None:
    made = picture(30)
    for name in ("one", "two"):
        draw(made, tmp_path / f"{name}{suffix}")
    content = (tmp_path / f"one{suffix}").read_bytes()
    start = {".png": b"\x89PNG", ".pdf": b"%PDF"}.get(suffix.lower(), b"<?xml")
    assert content.startswith(start)
    assert content == (tmp_path / f"two{suffix}").read_bytes()


def test_names_in_an_svg_stay_text(tmp_path: Path) -> None:
    draw(picture(30), tmp_path / "s.svg")
    root = ElementTree.parse(tmp_path / "s.svg").getroot()
    texts = {"".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")}
    shown = {name for edge in strongest(picture(30)) for name in (edge.source, edge.target)}
    assert shown <= texts


def test_effects_may_be_unknown() -> None:
    edges = (DrawnEdge("input", "m1", None, {"ioi": None}),)
    assert figure_of(Picture("t", ("ioi",), edges)).axes


def test_nothing_to_draw_and_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to draw"):
        draw(Picture("t", ("ioi",), ()), tmp_path / "a.svg")
    with pytest.raises(BadInput, match=r"a\.gif'; name a file that ends in \.svg, \.png or \.pdf"):
        draw(picture(3), tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "from queries.plots.circuit import DrawnEdge, Picture, figure_of\n"
        "figure_of(Picture('t', ('ioi',), (DrawnEdge('input', 'm1', None, {'ioi': 1.0}),)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "drawing needs the extra 'plots'" in ran.stderr


def test_no_line_ends_in_nowhere() -> None:
    (axes,) = figure_of(picture(60)).axes
    for patch in axes.patches:
        assert np.isfinite(patch.get_path().vertices).all()
