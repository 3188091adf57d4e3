"""Slices through networks that are no chains: their tiles against the network itself, in Python and in the page."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from random_graphs import RandomGraph
from test_living_map import told
from test_living_map_page import SOURCE, drawn, numbers, page, picture, shown, view  # noqa: F401  two of them are fixtures
from torch import nn

from ood_helpers import polytopes, widgets
from ood_helpers.widgets import living_map, slices

SIDE = 64
HOME = {"x": 0.0, "y": 0.0, "half": 1.0}


def a_graph(seed, **shape):
    """A random network with convolutions, pools, skips and concatenations, and a plane of its inputs."""
    model, rng = RandomGraph(seed, **shape), np.random.default_rng(seed)
    return model, {"axes": rng.normal(size=(2, *model.shape)), "origin": rng.normal(size=model.shape)}


def on_the_plane(model, s, axes, origin):
    """Logits [n, K] of the model itself, in float64, at points s [n, 2] of the plane."""
    with torch.no_grad():
        return model(torch.from_numpy(origin + np.tensordot(s, axes, axes=1))).numpy()


def a_cnn(seed=0, classes=3):
    """An untrained network with MaxPool and BatchNorm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(),
        nn.Linear(8, classes),
    ).eval()  # fmt: skip


def a_slice(nets=None, controls=None, **settings):
    plane = {"axes": np.random.default_rng(1).normal(0, 0.3, (2, 1, 6, 6)), "origin": np.zeros((1, 6, 6)), "window": 1.0}
    living = widgets.LivingMap(nets or a_cnn(), controls, **plane | {"patience": 60, "colours": "shades"} | settings)
    living._loop = None  # it answers at once
    return living


def exact(living, window=HOME, i=0):
    """The last tile of a window, and its buffers."""
    *_, found = filter(None, living._slices[i].tiles(window))
    return found


def arrays(tile, buffers):
    """Corners, starts and maps of a tile of polytopes."""
    starts, corners, maps = (np.frombuffer(part, of) for part, of in zip(buffers, ("<u4", "<f8", maps_of(tile)), strict=True))
    return corners.reshape(-1, 2), starts, maps.reshape(len(starts) - 1, -1, 3)


def maps_of(tile):
    return "<f8" if tile["double"] else "<f4"


# ---- in the kernel ----


def test_a_tile_holds_the_polytopes_of_its_window_and_their_maps():
    model, plane = a_graph(3)
    living = widgets.LivingMap(model, **plane, window=1.0, patience=60)
    window = {"x": 0.3, "y": -0.2, "half": 0.5}
    tile, buffers = exact(living, window)
    corners, starts, maps = arrays(tile, buffers)
    cells = polytopes.plane(model, [-0.2, -0.7], [0.8, 0.3], plane["origin"], plane["axes"])
    assert len(cells) == len(starts) - 1 > 5 and tile["says"].startswith(f"{len(cells)} polytopes, exactly")
    for p in range(len(cells)):
        polygon = corners[starts[p] : starts[p + 1]]
        middle = polygon.mean(axis=0)
        logits = on_the_plane(model, middle[None], **plane)[0]
        np.testing.assert_allclose(maps[p, :, :2] @ middle + maps[p, :, 2], logits, atol=1e-5)


def test_maps_travel_in_double_only_where_single_would_be_seen():
    model, plane = a_graph(3)
    assert not exact(widgets.LivingMap(model, **plane, window=1.0, patience=60))[0]["double"]
    plane["axes"] *= 1e4
    assert exact(widgets.LivingMap(model, **plane, window=1.0, patience=60), HOME | {"half": 1e-3, "x": 40.0})[0]["double"]


@pytest.mark.parametrize("patience, side", [(0, 55), (1e9, 440)])
def test_too_many_polytopes_are_said_and_points_stand_in_their_place(monkeypatch, patience, side):
    monkeypatch.setattr(slices, "_MOST", 3)
    living = a_slice(patience=patience)
    (first, _), *_, (tile, [logits]) = filter(None, living._slices[0].tiles(HOME))
    assert first["side"] == 55 and not first["last"] and tile["side"] == side and tile["last"]
    assert "too many to cut" in tile["says"] and f"{side} × {side}" in tile["says"]
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    s = np.stack(np.meshgrid(axis, -axis), axis=-1).reshape(-1, 2)
    expected = on_the_plane(a_cnn().double(), s, living._axes, living._origin)
    np.testing.assert_allclose(np.frombuffer(logits, "<f4").reshape(-1, 3), expected, atol=1e-5)


def test_slow_networks_are_evaluated_at_fewer_points():
    known = a_slice(patience=2)._slices[0]
    for known._pace, sides in [(1e-7, [110, 220, 440]), (1e-5, [110, 220]), (1e-3, [110]), (1e-1, [])]:
        assert known._sides() == sides


def test_a_window_that_rounding_leaves_undecided_is_evaluated_at_points(monkeypatch):
    def undecided(*args):
        raise ArithmeticError("rounding")

    monkeypatch.setattr(polytopes, "plane", undecided)
    tile, _ = exact(a_slice())
    assert tile["last"] and tile["side"] == 440 and "rounding" in tile["says"]


def test_the_count_of_polytopes_is_of_the_right_size():
    for seed in range(4):
        living = a_slice(a_cnn(seed))
        there, guess = len(arrays(*exact(living))[1]) - 1, living._slices[0]._count(HOME)
        assert there / 4 < guess < 4 * there


def test_rays_and_the_frame_of_a_slice_are_those_of_the_network():
    living = a_slice(patience=0)
    axes = living._axes.reshape(2, -1)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 200)
    u = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    read = polytopes.read(living.network, (1, 6, 6))
    winner, tie = polytopes.directions(read, u @ axes)
    ring = living._ring(0)
    found = np.array(ring["who"])[np.searchsorted(ring["start"], angles, side="right") - 1]
    assert (found == np.where(tie, -1, winner)).mean() > 0.97 and len(set(found)) > 1
    for point in u[:5].tolist():
        ray = polytopes.ray(read, np.zeros(36), point @ axes)
        assert living._slices[0].far(point) == {
            "winner": ray.winner, "tie": ray.tie, "leaders": np.flatnonzero(ray.leaders).tolist(),
            "limit": pytest.approx(ray.limit_confidence),
        }  # fmt: skip


def test_the_page_s_questions_are_answered():
    living = a_slice()
    messages = told(living)
    living._asked(None, {"look": {"of": 0, "window": HOME}}, [])
    living._asked(None, {"ray": {"of": 0, "point": [1.0, 0.5]}}, [])
    kinds = [set(content) for content, _ in messages]
    assert kinds == [{"of", "ring"}, {"of", "tile"}, {"of", "tile"}, {"of", "ray", "far"}]
    json.dumps([content for content, _ in messages])
    assert [content["tile"]["last"] for content, _ in messages if "tile" in content] == [False, True]


def test_a_sweep_may_have_chains_and_graphs(page, shown):  # noqa: F811
    chain = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))
    controls = {"kind": widgets.choice("kind", ["chain", "graph"], "chain", "which network")}
    living = a_slice({"chain": chain, "graph": a_cnn()}, controls)
    assert [(shape["slice"], shape["at"]) for shape in living.spec["networks"]] == [(False, 0), (True, None)]
    root = shown(living)
    before = picture(page)
    root.locator("select").select_option("graph")
    drawn(page)
    assert picture(page) != before and "polytopes, exactly" in root.locator(".state").inner_text()
    root.locator("select").select_option("chain")
    drawn(page)
    page.wait_for_function("document.querySelector('.state').textContent === ''")
    assert picture(page) == before


def test_the_stored_picture_shows_the_slice():
    """Red is where a network whose map is known leads with class 1."""

    class Halves(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0], torch.maximum(x[:, 1], x[:, 2])], dim=1)

    axes = [[1.0, 0, 0], [0, 1, -1]]
    living = widgets.LivingMap(Halves(), axes=axes, origin=[0.0, 0, 0], window=1.0, colours="classes")
    image = living._image(0)
    side = len(image)
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    s1, s2 = np.meshgrid(axis, -axis)
    second = (np.abs(s2) > s1)[..., None]
    pale = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in living.spec["look"]["pale"]]
    assert (np.abs(image - np.where(second, pale[1], pale[0])).max(axis=2) < 0.01).mean() > 0.99
    assert Image.open(io.BytesIO(living.picture())).width > 400


def test_a_graph_of_two_inputs_needs_no_axes():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.first(x).relu()
            return self.last(h + self.second(h).relu())

    living = widgets.LivingMap(Residual(), window=1.0)
    assert "exactly" in exact(living)[0]["says"] and living.spec["axes"] == ["x₁", "x₂"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"axes": None, "origin": None}, "axes"),
        ({"axes": np.ones((2, 5))}, "axes"),
        ({"axes": np.ones((2, 1, 6, 6))}, "span a plane"),
        ({"axes": np.ones((3, 1, 6, 6))}, "axes"),
        ({"origin": np.zeros(5)}, "origin"),
        ({"origin": np.full((1, 6, 6), np.nan)}, "origin"),
        ({"patience": -1}, "patience"),
        ({"patience": np.nan}, "patience"),
        ({"patience": "long"}, "patience"),
    ],
)
def test_a_plane_that_is_none_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        a_slice(**settings)


def test_a_network_in_train_mode_and_one_that_is_not_affine_are_refused():
    with pytest.raises(ValueError, match="eval"):
        a_slice(a_cnn().train())
    with pytest.raises(ValueError, match="GELU"):
        a_slice(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)))


def test_weights_that_were_trained_are_seen_and_an_answer_that_came_too_late_is_not():
    living = a_slice()
    before, late = exact(living), living._seen(0, HOME)
    living._looking = late
    messages = told(living)
    with torch.no_grad():
        living.network[-1].weight.mul_(3)
    living.refresh()
    living._show(late)
    [(content, [logits])] = messages
    assert content["anew"] and content["tile"]["side"] == 55 and exact(living)[1][2] != before[1][2]
    s = centres(HOME, 55)[[0, 7, -1]]
    expected = on_the_plane(living.network.double(), s, living._axes, living._origin)
    np.testing.assert_allclose(np.frombuffer(logits, "<f4").reshape(-1, 3)[[0, 7, -1]], expected, atol=1e-5)


# ---- in the page ----


def in_page(tiles, outputs):
    """JavaScript that makes a slice of tiles, each (tile, buffers)."""
    parts = [(tile, [base64.b64encode(part).decode() for part in buffers]) for tile, buffers in tiles]
    return f"""(() => {{
        const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer, made = new oodMap.Slice({outputs});
        for (const [tile, buffers] of {json.dumps(parts)}) made.add(oodMap.tileOf(tile, {outputs}, buffers.map(bytes)));
        return made;
    }})()"""


def fields(page, tiles, outputs, window, field="logits", side=SIDE):  # noqa: F811
    """Differences of the logits, or the code, of every pixel of a window, as the page finds them."""
    square = f"{json.dumps(window)}, {side}, {side}"
    script = f"() => Array.from(oodMap.fields(oodMap.differences({in_page(tiles, outputs)}), {square}).{field})"
    return np.array(page.evaluate(script)).reshape(side, side, -1)


def centres(window, side=SIDE):
    axis = window["half"] * (2 * np.arange(side) + 1 - side) / side
    return np.stack(np.meshgrid(window["x"] + axis, window["y"] - axis), axis=-1).reshape(-1, 2)


WINDOWS = [HOME, {"x": 0.31, "y": -0.27, "half": 0.2}, {"x": 0.123, "y": 0.456, "half": 1e-3}]


@pytest.mark.browser
@pytest.mark.parametrize("coarse", [False, True])
def test_every_pixel_of_a_slice_is_the_network_s_answer(page, coarse):  # noqa: F811
    """Also where kinks coincide, as those of coarse weights do; a pixel's centre may lie on them."""
    cut = 0
    for seed in range(14):
        model, plane = a_graph(seed, coarse=coarse)
        if coarse:
            plane = {"axes": np.rint(4 * plane["axes"]) / 4, "origin": np.rint(plane["origin"])}
        living = widgets.LivingMap(model, **plane, window=1.0, patience=20)
        if not living._slices:  # by chance a chain
            continue
        tile = exact(living)
        cut += "double" in tile[0]
        for window in WINDOWS:
            z = on_the_plane(model, centres(window), **plane)
            if "double" in tile[0]:
                made = fields(page, [tile], 3, window).reshape(-1, 2)
                size = np.abs(z).max() + 1
                np.testing.assert_allclose(made, z[:, :-1] - z[:, -1:], atol=1e-5 + 1e-11 * size)
    assert cut >= 10


@pytest.mark.browser
def test_the_codes_of_the_pixels_of_a_slice_are_their_polytopes(page):  # noqa: F811
    for seed in range(4):
        model, plane = a_graph(seed)
        living = widgets.LivingMap(model, **plane, window=1.0, patience=60)
        codes = fields(page, [exact(living)], 3, HOME, "pattern").ravel()
        there = polytopes.plane(model, -1, 1, plane["origin"], plane["axes"]).locate(centres(HOME))
        pairs = np.unique(np.stack([there, codes]), axis=1)
        assert len(pairs.T) == len(set(there)) == len(set(codes)) > 5


@pytest.mark.browser
def test_pointing_gives_the_logits_of_the_polytope(page):  # noqa: F811
    model, plane = a_graph(5)
    living = widgets.LivingMap(model, **plane, window=1.0, patience=60)
    s = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    script = f"s => {{ const n = {in_page([exact(living)], 3)}; return s.map((p) => oodMap.forward(n, p)); }}"
    np.testing.assert_allclose(page.evaluate(script, s.tolist()), on_the_plane(model, s, **plane), atol=1e-5)
    assert page.evaluate(script, [[1.5, 0], [0, -1.01]]) == [None, None]


@pytest.mark.browser
def test_points_are_shown_as_they_are_and_finer_tiles_above_coarser_ones(page):  # noqa: F811
    living = a_slice(patience=0)
    square = HOME | {"side": SIDE, "last": True}
    s = centres(HOME)
    z = on_the_plane(a_cnn().double(), s, living._axes, living._origin)
    points = (square, [z.astype("f4").tobytes()])
    less = z[:, :-1] - z[:, -1:]
    np.testing.assert_allclose(fields(page, [points], 3, HOME).reshape(-1, 2), less, atol=1e-5)
    inner = {"x": 0.5, "y": 0.5, "half": 0.25, "side": 2, "last": True}, [np.full((4, 3), [9, 0, 0], "f4").tobytes()]
    outer = {"x": 0.0, "y": 0.0, "half": 9.0, "side": 1, "last": True}, [np.full((1, 3), [7, 0, 0], "f4").tobytes()]
    inside = np.abs(s - 0.5).max(axis=1) < 0.25
    for order in ([points, inner, outer], [outer, inner, points]):  # whatever came last
        made = fields(page, order, 3, HOME).reshape(-1, 2)
        np.testing.assert_allclose(made[inside][:, 0], less[inside][:, 0], atol=1e-5)  # points are finer: 1/32, inner 1/4
    made = fields(page, [inner, outer], 3, HOME).reshape(-1, 2)[:, 0]
    np.testing.assert_array_equal(made, np.where(inside, 9, 7))


@pytest.mark.browser
def test_what_is_not_computed_is_hatched_and_the_map_says_what_is(page, shown):  # noqa: F811
    living = a_slice(presets={"Far": {"window": 8}})
    root, state = shown(living), page.locator(".state")
    count = len(arrays(*exact(living))[1]) - 1
    page.wait_for_function("document.querySelector('.state').textContent.includes('exactly')")
    assert state.inner_text() == f"{count:,} polytopes, exactly, in the square of half side 1 around (0, 0)."
    root.get_by_role("button", name="Far").click()
    drawn(page)
    page.wait_for_function("document.querySelector('.state').textContent.includes('running kernel')")
    side = view(page, "v.side")
    made = numbers(page, "v.pixels", np.uint32).reshape(side, side)
    away = np.abs((np.arange(side) + 0.5) / side * 16 - 8)
    away = np.maximum(away[:, None], away)
    hatched = {0xFFFFFFFF, 0xFFBBBBBB}
    assert set(np.unique(made[away > 1 + 1e-9])) == hatched and 0xFFBBBBBB not in made[away < 1 - 1e-9]
    root.locator("canvas").click(position={"x": 150, "y": 150})
    assert "at infinity: that needs a running kernel" in root.locator(".here").inner_text()
    root.get_by_text("Reset").click()
    for _ in range(30):
        root.locator("canvas").press("+")
    drawn(page)
    assert view(page, "v.window.half") < 2e-3 and "exactly" in state.inner_text()
    assert 0xFFBBBBBB not in numbers(page, "v.pixels", np.uint32)


@pytest.mark.browser
def test_a_slice_has_its_colours_and_edges(page, shown):  # noqa: F811
    living = a_slice(a_cnn(2, classes=4), classes=3, colours="bands")
    root = shown(living)
    side = view(page, "v.side")
    z = on_the_plane(a_cnn(2, classes=4).double(), centres(HOME, side), living._axes, living._origin)
    expected = living_map._shade(z, 1, living.spec["look"]).reshape(side, side, 3)
    made = numbers(page, "v.pixels", np.uint8).reshape(side, side, 4)[..., :3] / 255
    assert (np.abs(made - expected).max(axis=2) < 1 / 255).mean() > 0.9995
    plain = numbers(page, "v.pixels", np.uint32).reshape(side, side)
    root.get_by_label("polytopes").check()
    drawn(page)
    edges = numbers(page, "v.pixels", np.uint32).reshape(side, side) != plain
    codes = numbers(page, "oodMap.fields(v.drawn, v.window, v.side, v.side).pattern", np.int32).reshape(side, side)
    other = np.zeros_like(edges)
    other[:, 1:] |= codes[:, 1:] != codes[:, :-1]
    other[1:] |= codes[1:] != codes[:-1]
    assert other.any()
    np.testing.assert_array_equal(edges, other)


@pytest.mark.browser
def test_a_window_is_asked_for_once_and_what_comes_of_it_is_shown(page, shown):  # noqa: F811
    living = a_slice()
    state = living.still() | {"tiles": []}
    page.evaluate(
        f"""() => {{
        document.body.innerHTML = '<div id="map"></div>';
        window.model = oodMap.still({json.dumps(state)});
        window.sent = [];
        window.model.send = (what) => sent.push(what);
        oodMap.render({{model, el: document.getElementById("map")}});
    }}"""
    )
    page.wait_for_function("sent.length === 1 && document.querySelector('.state').textContent === '…'")
    assert page.evaluate("sent") == [{"look": {"of": 0, "window": HOME}}]
    root = page.locator(".ood-map")
    page.wait_for_function("document.querySelector('.ood-map').oodView.canvas.clientWidth > 0")
    messages = told(living)
    living._asked(None, {"look": {"of": 0, "window": HOME}}, [])
    for content, buffers in messages:
        page.wait_for_timeout(50)  # longer than the page waits for what a preset does
        assert page.evaluate("sent.length") == 1 and root.get_attribute("aria-busy") == "true"
        parts = [base64.b64encode(part).decode() for part in buffers]
        page.evaluate(
            f"""() => window.model.hear("msg:custom", {json.dumps(content)}, {parts}.map(
                (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer)))"""
        )
        drawn(page)
        assert (view(page, "new Set(v.pixels).size") > 1) == ("tile" in content)
    page.wait_for_function("document.querySelector('.state').textContent.includes('exactly')")
    assert root.get_attribute("aria-busy") == "false"
    for _ in range(3):
        root.locator("canvas").press("-")  # the hand rests only after the last one
    page.wait_for_function("sent.length > 1")
    root.locator("canvas").press("+")
    page.wait_for_function("sent.length > 2")
    assert page.evaluate("sent.slice(1).map((s) => s.look.window.half)") == pytest.approx([1.25**3, 1.25**2])
    assert root.locator(".state").inner_text() == "…"


# ---- each step of the painter of slices is watched: broken, it draws something else ----

MUTATIONS = {
    "edges from above": ("if (corners[a + 1] > y || corners[b + 1] <= y) continue;", "if (corners[a + 1] >= y) continue;"),
    "edges that end above the row only": ("|| corners[b + 1] <= y) continue;", ") continue;"),
    "corners in place of crossings": ("x = corners[a] + share * (corners[b] - corners[a]);", "x = corners[a];"),
    "the first pixel left out": ("Math.ceil((left - x0) / dx)), to", "Math.ceil((left - x0) / dx) + 1), to"),
    "a pixel too many": ("Math.ceil((right - x0) / dx));", "Math.ceil((right - x0) / dx) + 3);"),
    "one edge forgotten": ("let i = first, j = last; i <= last;", "let i = first, j = last; i < last;"),
    "polygons in one strip only": ("for (let s = from; s <= to; s++) members", "for (let s = from; s <= from; s++) members"),
    "strips from the top": ("((y - this.y + this.half) / (2", "((this.y + this.half - y - 1e-3) / (2"),
    "slopes of the pixel before": ("slope = a * dx,", "slope = a,"),
    "offsets without y": ("offset = a * x0 + b * y + c;", "offset = a * x0 + c;"),
    "logits in place of differences": ("maps[at + 3 * k + i] - maps[end + i])", "maps[at + 3 * k + i])"),
    "one code for all": ("this.number * 1e6 + p, from", "this.number * 1e6, from"),
    "pointing without y": ("maps[at + 3 * k + 1] * y + maps", "maps"),
    "coarse above fine": ("sort((a, b) => b.unit - a.unit", "sort((a, b) => a.unit - b.unit"),
    "rows of points upside down": ("row = Math.floor((this.y + this.half - y)", "row = Math.floor((y - this.y + this.half)"),
    "points of the next column": ("const column = Math.floor((x", "const column = 1 + Math.floor((x"),
    "points as they came": ("this.logits[i + k] - this.logits[i + last];", "this.logits[i + k];"),
    "known is what was known": ("    this.known.fill(0);\n", ""),
    "all is known": ("known[t] = 1;", "known.fill(1);"),
}  # fmt: skip

BROKEN = """(source) => {
    const map = new Function(source.replace("export default {", "return { painterOf,"))();
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer, made = new map.Slice(3);
    for (const [tile, buffers] of window.tiles) made.add(map.tileOf(tile, 3, buffers.map(bytes)));
    const rows = map.painterOf(map.differences(made), 48), known = [];
    for (let r = -12; r < 13; r++) { rows.row(-1.1, 0.04, r / 9, new Float64Array(96), null); known.push(...rows.known); }
    const {logits, pattern} = map.fields(map.differences(made), {x: 0.05, y: 0.1, half: 1}, 48, 48);
    const codes = [...pattern].map((code, i) => code === pattern[i - 1]); // where they change
    const at = [[0.1, 0.2], [-0.4, 0.3], [0.95, -0.9], [3, 3]].map((p) => map.forward(made, p));
    return JSON.stringify([[...logits].map((v) => v.toFixed(6)), codes, known, at]);
}"""


@pytest.fixture(scope="module")
def source_and_right(page):  # noqa: F811
    """The source, and what it draws of an inner square of polytopes upon points."""
    living = a_slice()
    parts = [exact(living, {"x": 0.0, "y": 0.0, "half": 0.6})]
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype("f4")
    parts.append((HOME | {"side": 8, "last": True}, [rows.tobytes()]))
    tiles = [(tile, [base64.b64encode(part).decode() for part in buffers]) for tile, buffers in parts]
    page.evaluate("tiles => { window.tiles = tiles; }", tiles)
    return SOURCE, page.evaluate(BROKEN, SOURCE)


@pytest.mark.browser
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_step_of_a_slice_is_seen(page, source_and_right, mutation):  # noqa: F811
    source, right = source_and_right
    piece, instead = MUTATIONS[mutation]
    assert piece in source and page.evaluate(BROKEN, source) == right
    assert page.evaluate(BROKEN, source.replace(piece, instead)) != right
