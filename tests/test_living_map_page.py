"""The living map: its JavaScript against Python, number by number, in a page from a file without Jupyter; then its hands."""

import base64
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_maps import a_box, a_map, networks
from small_networks import build, random_network
from torch import nn

from ood_helpers import data, models, polytopes, widgets
from ood_helpers.widgets import living_map

pytestmark = pytest.mark.browser
SOURCE = Path(living_map.__file__).with_suffix(".js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page from a file that holds the module as `oodMap`."""
    path = tmp_path_factory.mktemp("map") / "page.html"
    module = SOURCE.replace("export default {", "window.oodMap = {")
    path.write_text(f'<!doctype html><meta charset="utf-8"><body><script type="module">{module}</script>', encoding="utf-8")
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function("window.oodMap")
    yield page
    page.close()
    assert errors == []


def random_networks():
    """Random networks of depth 0 to 4, 1 to 6 outputs, leaky, dead, without biases, with kinks along rows of pixels."""
    rng = np.random.default_rng(0)
    for depth, width, outputs, leak in [
        (0, 1, 2, 0.0), (1, 1, 1, 0.0), (1, 30, 2, 0.0), (2, 40, 3, 0.0), (2, 8, 6, 0.2), (3, 20, 2, 0.0), (4, 10, 3, 0.01),
        (2, 100, 2, 0.0), (2, 15, 2, -0.3),
    ]:  # fmt: skip
        sizes = [2] + [width] * depth + [outputs]
        weights = [rng.normal(size=(m, n)) for n, m in pairwise(sizes)]
        yield weights, [rng.normal(size=len(w)) for w in weights], leak
    plain = [rng.normal(size=(12, 2)), rng.normal(size=(12, 12)), rng.normal(size=(3, 12))]
    yield plain, [np.zeros(12), np.zeros(12), np.zeros(3)], 0.0
    yield plain, [np.full(12, -1e3), np.zeros(12), np.array([1.0, 2, 3])], 0.0  # dead in the window
    rows = [np.array([[0.0, 1], [1, 0], [1, 1], [0, 0]]), rng.normal(size=(2, 4))]
    yield rows, [np.array([0.5, 0.5, 0, 0]), np.zeros(2)], 0.0  # kinks along rows and columns of pixels, and a neuron that is 0


def smooth_networks():
    """Networks with sigmoids and tanh, also beside ReLUs, and their torch modules."""
    for bends in [["sigmoid"], ["tanh", "tanh"], ["relu", "sigmoid"], ["tanh", "leaky_relu"]]:
        layers = [nn.Linear(2, 7), *(layer for bend in bends for layer in (models._ACTIVATIONS[bend](), nn.Linear(7, 7)))]
        yield nn.Sequential(*layers, nn.ReLU(), nn.Linear(7, 3)).double()


def network_in_page(weights, biases, leak):
    """JavaScript that unpacks a network of float64 numbers."""
    sizes = [weights[0].shape[1], *map(len, biases)]
    numbers = np.concatenate([part.ravel() for pair in zip(weights, biases, strict=True) for part in pair])
    leaks = leak if isinstance(leak, list) else [leak] * (len(weights) - 1)
    return f"oodMap.unpack({sizes}, {json.dumps(leaks)}, Float64Array.from({json.dumps(numbers.tolist())}))"


def pixels(page, network, field, window, side=64, drawn=""):
    """The logits or the pattern of every pixel of a square window (x, y, half width), as JavaScript finds them.

    drawn  "oodMap.differences": of the network that is drawn, whose outputs are the logits less the last one
    """
    x, y, half = window
    square = f"{{x: {x}, y: {y}, half: {half}}}, {side}, {side}"
    return page.evaluate(f"() => Array.from(oodMap.fields({drawn}({network_in_page(*network)}), {square}).{field})")


@pytest.mark.parametrize("window", [(0.0, 0.0, 4.0), (0.3, -0.2, 1e-2), (10.0, 5.0, 1e5), (0.0, 0.0, 64.0)])
def test_every_pixel_is_the_network_s_answer(page, window):
    side = 64
    x, y, half = window
    step = 2 * half / side
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    points = np.stack([x - half + step / 2 + step * column, y + (side / 2 - row - 0.5) * step], axis=-1)
    for weights, biases, leak in random_networks():
        network = polytopes.network.Network(weights, biases, [leak] * (len(weights) - 1))
        expected = network(points)
        made = pixels(page, (weights, biases, leak), "logits", window)
        size = np.abs(points).max() * np.prod([np.abs(w).sum(1).max() for w in weights]) + 1
        np.testing.assert_allclose(np.reshape(made, expected.shape), expected, atol=1e-12 * size)
        less = np.reshape(pixels(page, (weights, biases, leak), "logits", window, drawn="oodMap.differences"), (side, side, -1))
        np.testing.assert_allclose(less, expected[..., :-1] - expected[..., -1:], atol=1e-12 * size)


def test_every_pixel_of_a_smooth_network_is_its_answer_and_so_is_its_limit(page):
    u = np.random.default_rng(5).normal(size=(50, 2))
    for model in smooth_networks():
        read = living_map._plane(model, None, None)
        numbers = read.weights, read.biases, read.leaks
        axis = 4.0 * (2 * np.arange(16) + 1 - 16) / 16
        points = torch.tensor(np.stack(np.meshgrid(axis, axis[::-1]), axis=-1))
        made = np.reshape(pixels(page, numbers, "logits", (0, 0, 4.0), 16), (16, 16, 3))
        np.testing.assert_allclose(made, model(points).detach(), atol=1e-12)
        script = f"u => {{ const n = {network_in_page(*numbers)}; return u.map((v) => oodMap.farAway(n, v)); }}"
        found = page.evaluate(script, u.tolist())
        logits = model(torch.tensor(1e7 * u)).detach()
        assert [far["winner"] for far in found] == logits.argmax(1).tolist()
        np.testing.assert_allclose([far["limit"] for far in found], logits.softmax(1).amax(1), atol=1e-5)


def test_the_codes_are_as_many_as_the_polytopes_of_plane_that_hold_a_pixel(page):
    side, half = 64, 4.0
    axis = -half + half / side + 2 * half / side * np.arange(side)
    points = np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(2)
    for sizes in ([2, 12, 2], [2, 16, 16, 3], [2, 6, 6, 6, 2]):
        model = random_network(rng, sizes)
        read = polytopes.read(model)
        codes = pixels(page, (read.weights, read.biases, 0.0), "pattern", (0, 0, half))
        there = polytopes.plane(model, -half, half).locate(points)
        pairs = np.unique(np.stack([there, codes]), axis=1)
        assert len(pairs.T) == len(set(there)) == len(set(codes)) > 5


def test_the_codes_of_the_pixels_are_their_polytopes(page):
    """Two pixels have the same code exactly where the same neurons are active."""
    side, half = 64, 4.0
    axis = -half + half / side + 2 * half / side * np.arange(side)
    points = np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)
    for weights, biases, leak in random_networks():
        if len(weights) == 1:
            continue
        h, active = points, []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            z = h @ weight.T + bias
            active.append(z > 0)
            h = np.where(z > 0, z, leak * z)
        patterns = np.unique(np.concatenate(active, axis=1), axis=0, return_inverse=True)[1].ravel()
        for drawn in ("", "oodMap.differences"):
            codes = pixels(page, (weights, biases, leak), "pattern", (0, 0, half), drawn=drawn)
            pairs = np.unique(np.stack([patterns, codes]), axis=1)
            assert len(pairs.T) == len(set(patterns)) == len(set(codes))


def test_rays_and_the_ring_agree_with_infinity(page):
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, 200)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for weights, biases, leak in random_networks():
        model = build(weights, biases, leak)
        circle = polytopes.infinity(model)
        sector = np.searchsorted(circle.start, angles, side="right") - 1
        script = f"u => {{ const n = {network_in_page(weights, biases, leak)}; return u.map((v) => oodMap.farAway(n, v)); }}"
        for far, i in zip(page.evaluate(script, directions.tolist()), sector, strict=True):
            assert (far["winner"], far["tie"]) == (circle.winner[i], circle.tie[i])
            assert far["limit"] == pytest.approx(circle.limit_confidence()[i], abs=1e-9)
        ring = living_map._ring(model, polytopes.read(model), None)
        who = np.array(ring["who"])[np.searchsorted(ring["start"], angles, side="right") - 1]
        np.testing.assert_array_equal(who, np.where(circle.tie, -1, circle.winner)[sector])


# ---- hands, in a page without a kernel ----


@pytest.fixture
def shown(page):
    """A function that shows a map in the page, and gives its root element."""

    def show(living):
        page.evaluate(
            f"""() => {{
            document.body.innerHTML = '<div id="map"></div>';
            window.model = oodMap.still({json.dumps(living.still())});
            oodMap.render({{model, el: document.getElementById("map")}});
        }}"""
        )
        drawn(page)
        return page.locator(".ood-map")

    return show


def drawn(page):
    page.wait_for_function(
        "() => { const v = document.querySelector('.ood-map').oodView; return v.done && v.done === v.job && !v.waiting; }"
    )


def view(page, expression):
    return page.evaluate(f"() => {{ const v = document.querySelector('.ood-map').oodView; return {expression}; }}")


def numbers(page, array, dtype):
    """A typed array of the page. It comes as text: a list of a million numbers keeps the driver busy for seconds."""
    read = f"r.onload = () => done(r.result); r.readAsDataURL(new Blob([({array}).buffer]));"
    text = view(page, f"new Promise((done) => {{ const r = new FileReader(); {read} }})")
    return np.frombuffer(base64.b64decode(text.split(",")[1]), dtype)


def picture(page):
    return view(page, "v.pixels.reduce((sum, p, i) => (Math.imul(sum, 31) + p) | 0, 7)")


def test_a_slider_shows_another_network_without_a_kernel(page, shown):
    root, before = shown(a_map()), picture(page)
    assert root.locator(".said").inner_text() == "beta is 1.0"
    root.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    drawn(page)
    assert picture(page) != before and root.locator(".said").inner_text() == "beta is 0.0"
    root.get_by_text("Reset").click()
    drawn(page)
    assert picture(page) == before and root.locator(".said").inner_text() == "beta is 1.0"


@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
@pytest.mark.parametrize("colours", ["bands", "classes", "shades"])
def test_the_map_has_its_colours(page, shown, colours, outputs):
    """Of the bands, classes or shades that Python says; with three outputs the last is reject."""
    classes = 2 if outputs == 3 else outputs
    nets = networks(width=20, n_classes=outputs)
    nets[1.0][-1].bias.data[-1] += 1.0  # so that reject wins somewhere
    living = a_map(nets, world=None, classes=classes, colours=colours, window=20)
    root = shown(living)
    side = view(page, "v.side")
    axis = 40 * (np.arange(side) + 0.5) / side - 20
    points = np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)
    logits = polytopes.read(living.network)(points)
    assert outputs == 1 or {0, outputs - 1} <= set(logits.argmax(axis=1))
    expected = living_map._shade(logits, outputs == 3, living.spec["look"]).reshape(side, side, 3)
    made = numbers(page, "v.pixels", np.uint8).reshape(side, side, 4)[..., :3] / 255
    close = np.abs(made - expected).max(axis=2) < 1 / 255
    assert close.mean() > 0.9999
    assert root.locator(".key").inner_text().count("reject") == (outputs == 3) * (2 if colours == "bands" else 1)


def test_wheel_keys_and_drag_move_the_window(page, shown):
    root = shown(a_map())
    canvas = root.locator("canvas")
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -100)
    assert view(page, "v.window.half") == 50  # the page scrolls as long as the map has not been chosen
    canvas.focus()
    page.mouse.wheel(0, -100)
    page.wait_for_function("document.querySelector('.ood-map').oodView.window.half < 50")
    for key, expected in [("Home", 50), ("+", 40), ("-", 50)]:
        page.keyboard.press(key)
        assert view(page, "v.window.half") == pytest.approx(expected)
    page.keyboard.press("ArrowRight")
    assert view(page, "v.window.x") == pytest.approx(50 / 8)
    page.keyboard.press("Home")
    page.mouse.down()
    page.mouse.move(middle[0] + 44, middle[1])
    page.mouse.up()
    assert view(page, "v.window.x") == pytest.approx(-10, abs=0.6)  # a tenth of the map's width
    assert view(page, "v.ray") is None  # a drag is no click
    for _ in range(200):
        page.keyboard.press("-")
    assert view(page, "v.window.half") == 1e6
    drawn(page)


def test_a_window_reached_by_hand_is_drawn_like_a_first_one(page, shown):
    """What the painter keeps from row to row belongs to one window."""
    shown(a_map(networks(width=30)))
    for move in ("v.pan(7, 0)", "v.zoom(0.3)", "v.pan(0, 5)", "v.zoom(4)", "v.move({x: -3, y: 20, half: 30})"):
        view(page, move)
        drawn(page)
        kept = view(page, "Array.from(v.pixels)")
        view(page, "(v.rows = null, v.draw())")
        drawn(page)
        assert np.not_equal(kept, view(page, "Array.from(v.pixels)")).sum() <= 3  # a pixel on a border, by its last digit


def test_pointing_tells_the_network_s_answer_and_a_click_its_limit(page, shown):
    living = a_map()
    root = shown(living)
    canvas = root.locator("canvas")
    canvas.hover(position={"x": 250, "y": 150})
    page.wait_for_function("document.querySelector('.here').textContent.includes('confidence')")
    x, y = view(page, "v.hovered")
    logits = polytopes.read(living.network)([[x, y]])[0]
    text = root.locator(".here").inner_text()
    assert f"class {logits.argmax()}" in text and f"{1 / (1 + np.exp(-abs(logits[0] - logits[1]))):.4f}" in text
    canvas.click(position={"x": 250, "y": 150})
    winner, _ = polytopes.directions(living.network, view(page, "[v.ray]"))
    assert f"k* = class {winner[0]}, limit of the confidence 1.0000" in root.locator(".here").inner_text()
    canvas.focus()
    page.keyboard.press("Escape")
    assert view(page, "v.ray") is None
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert view(page, "v.ray") == pytest.approx([0, 50 / 8])


def test_the_polytopes_edges_are_drawn_on_request(page, shown):
    root, before = shown(a_map()), picture(page)
    side = view(page, "v.side")
    plain = numbers(page, "v.pixels", np.uint32).reshape(side, side)
    root.get_by_label("polytopes").check()
    drawn(page)
    edges = numbers(page, "v.pixels", np.uint32).reshape(side, side) != plain
    codes = numbers(page, "oodMap.fields(v.network, v.window, v.side, v.side).pattern", np.int32).reshape(side, side)
    expected = np.zeros_like(edges)
    expected[:, 1:] |= codes[:, 1:] != codes[:, :-1]
    expected[1:] |= codes[1:] != codes[:-1]
    np.testing.assert_array_equal(edges, expected)
    root.get_by_label("polytopes").uncheck()
    drawn(page)
    assert picture(page) == before


def test_a_control_moves_the_window_and_presets_and_a_double_click_know_it(page, shown):
    root = shown(a_map(controls=a_box(), window="box", presets={"Far": {"box": 1000}}))
    box = root.locator("input[type=range]").nth(1)
    box.press("ArrowLeft")
    assert view(page, "v.window.half") == 10
    root.locator("canvas").press("+")
    root.locator("canvas").dblclick()
    assert view(page, "v.window.half") == 10 and view(page, "v.ray") is None
    root.get_by_role("button", name="Far").click()
    assert view(page, "v.window.half") == 1000 and box.input_value() == "2"
    root.locator("canvas").press("+")
    root.get_by_text("Reset").click()
    assert view(page, "v.window.half") == 50 and box.input_value() == "1"


def test_a_note_brings_its_star_and_histograms(page, shown):
    confidences = {"in-distribution": [0.6, 0.95, 0.99], "OOD": [0.5, 0.51]}
    root = shown(a_map(sentence=lambda beta: ("said", {"star": [10.0 * beta, 0], "bars": confidences})))
    assert root.locator("svg path").count() == 3 and "OOD" in root.locator("svg").text_content()
    assert root.get_by_text("most confident OOD point").is_visible()
    assert view(page, "v.note.star") == [10, 0]
    colour = "[...v.context.getImageData(...v.toCanvas([10, 0]).map(Math.round), 1, 1).data].slice(0, 3)"
    assert view(page, colour) == [0xD5, 0x5E, 0x00]


def test_what_is_missing_is_asked_for_and_shown_when_it_comes(page, shown):
    living = a_map()
    root = shown(living)
    before = picture(page)
    page.evaluate(
        """() => {
        const {model} = window, el = document.getElementById("map"), asked = window.asked = [];
        const spec = structuredClone(model.get("spec"));
        spec.networks[0].at = null;
        model.send = (what) => asked.push(what);
        model.set("notes", {});
        model.set("spec", spec);
    }"""
    )
    drawn(page)
    assert root.locator(".said").inner_text() == "…" and picture(page) == before
    page.wait_for_function("window.asked.length === 2")  # the neighbour is fetched before it is wanted
    root.locator("input[type=range]").press("ArrowLeft")
    drawn(page)
    assert page.evaluate("window.asked") == [{"note": "1"}, {"network": 0}, {"note": "0"}]
    assert picture(page) == before and root.get_attribute("aria-busy") == "true"  # the picture before stays so long
    numbers = np.frombuffer(living.weights, "<f4")[: living.spec["networks"][1]["at"]].tolist()
    ring = json.dumps(living.rings["0"])
    page.evaluate(
        f"""() => {{
        window.model.hear("msg:custom", {{sent: 0, ring: {ring}}}, [new DataView(Float32Array.from({numbers}).buffer)]);
        window.model.hear("msg:custom", {{place: "0", note: {{text: "there"}}}}, []);
    }}"""
    )
    drawn(page)
    assert picture(page) != before and root.locator(".said").inner_text() == "there"
    assert root.get_attribute("aria-busy") == "false"


def test_hovering_does_not_shift_the_page(page, shown):
    living = a_map(networks(n_classes=4), world=data.FourGaussians())
    root = shown(living)
    page.set_viewport_size({"width": 400, "height": 800})
    try:
        page.wait_for_function("document.querySelector('.ood-map canvas').clientWidth <= 400")
        before = root.locator(".said").bounding_box()["y"]
        root.locator("canvas").hover(position={"x": 150, "y": 150})
        page.wait_for_function("document.querySelector('.here').textContent.includes('confidence')")
        assert root.locator(".said").bounding_box()["y"] == before
    finally:
        page.set_viewport_size({"width": 1280, "height": 800})


def test_fingers_pan_and_pinch(page, shown):
    shown(a_map())
    page.evaluate(
        """() => {
        const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
        canvas.setPointerCapture = () => {};
        window.finger = (type, pointerId, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
            pointerId, pointerType: "touch", clientX: box.left + x, clientY: box.top + y, bubbles: true,
        }));
    }"""
    )
    touch = [("down", 1, 200, 200), ("move", 1, 244, 200), ("up", 1, 244, 200)]
    page.evaluate("t => t.forEach(([type, ...rest]) => finger('pointer' + type, ...rest))", touch)
    assert view(page, "v.window.x") == pytest.approx(-10, abs=0.1) and view(page, "v.window.half") == 50
    pinch = [("down", 1, 200, 200), ("down", 2, 300, 200), ("move", 2, 400, 200), ("up", 1, 200, 200), ("up", 2, 400, 200)]
    page.evaluate("t => t.forEach(([type, ...rest]) => finger('pointer' + type, ...rest))", pinch)
    assert view(page, "v.window.half") == pytest.approx(25) and view(page, "v.ray") is None
    tap = [("down", 1, 250, 250), ("up", 1, 250, 250)]
    page.evaluate("t => t.forEach(([type, ...rest]) => finger('pointer' + type, ...rest))", tap)
    assert view(page, "v.ray") is not None


def test_two_views_of_one_map_agree(page, shown):
    root = shown(a_map())
    page.evaluate(
        """() => {
        document.body.insertAdjacentHTML("beforeend", '<div id="second"></div>');
        window.second = oodMap.render({model, el: document.getElementById("second")});
    }"""
    )
    other = page.locator("#second .ood-map")
    root.first.locator("input[type=range]").press("ArrowLeft")
    other.locator("canvas").press("+")
    assert other.locator("input[type=range]").input_value() == "0"
    assert view(page, "v.window.half") == 40
    views = "[...document.querySelectorAll('.ood-map')].map((root) => root.oodView)"
    page.wait_for_function(f"{views}.every((v) => v.done === v.job && !v.waiting)")
    a, b = page.evaluate(f"{views}.map((v) => v.pixels.reduce((sum, p) => (Math.imul(sum, 31) + p) | 0, 7))")
    assert a == b
    page.evaluate("window.second()")  # the end of one view leaves the other alive
    root.first.locator("canvas").press("-")
    assert view(page, "v.window.half") == 50


def test_points_are_painted_moved_and_erased_with_the_mouse(page, shown):
    root = shown(widgets.Painting(2))
    canvas, painted = root.locator("canvas"), "window.model.get('painted')"
    canvas.click(position={"x": 200, "y": 200})
    root.get_by_role("button", name="OOD").click()
    canvas.click(position={"x": 300, "y": 300})
    x, y = view(page, "v.toPlane([300, 300])")
    points = page.evaluate(painted)
    assert [p[2] for p in points] == [0, -1] and points[1][:2] == pytest.approx([x, y], abs=0.2)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 350, box["y"] + 250, steps=4)
    page.mouse.up()
    moved = page.evaluate(painted)
    assert len(moved) == 2 and moved[1][:2] == pytest.approx(view(page, "v.toPlane([350, 250])"), abs=0.2)
    assert view(page, "v.window.x") == 0  # the point moves, the window stays
    root.get_by_role("button", name="erase").click()
    canvas.click(position={"x": 200, "y": 200})
    assert [p[2] for p in page.evaluate(painted)] == [-1]
    for left in ([0, -1], [0, -1], [0], []):  # erased, moved, placed, placed
        root.get_by_role("button", name="undo").click()
        assert [p[2] for p in page.evaluate(painted)] == left
    canvas.click(position={"x": 100, "y": 100})
    assert page.evaluate(painted) == []  # there is nothing to erase


def test_points_are_painted_moved_and_erased_by_keyboard(page, shown):
    root = shown(widgets.Painting(2, window=20, points=([[5.0, 5.0]], [1])))
    canvas, painted = root.locator("canvas"), "window.model.get('painted')"
    for key in ("o", "ArrowRight", "ArrowUp", "Enter", "0", "ArrowRight", "Enter"):
        canvas.press(key)
    assert page.evaluate(painted) == [[5, 5, 1], [1, 1, -1], [2, 1, 0]]
    for key in ("m", "ArrowUp", "ArrowUp", "m"):
        canvas.press(key)
    assert page.evaluate(painted)[2] == [2, 3, 0]
    canvas.press("Delete")
    assert page.evaluate(painted) == [[5, 5, 1], [1, 1, -1]]
    canvas.press("Control+z")
    assert page.evaluate(painted)[2] == [2, 3, 0]
    root.get_by_role("button", name="clear").click()
    assert page.evaluate(painted) == []


def test_a_map_appears_below_what_is_painted(page, shown):
    painting = widgets.Painting(2, points=([[0.0, 0]], [0]))
    shown(painting)
    assert view(page, "v.pixels.every((p) => p === 0xffffffff)")
    painting.show(networks()[0.0])
    state = json.dumps({name: painting.still()[name] for name in ("rings", "spec", "weights")})
    page.evaluate(f"() => Object.entries({state}).forEach(([name, value]) => window.model.set(name, value))")
    drawn(page)
    assert view(page, "new Set(v.pixels).size") > 1
    assert view(page, "v.painted") == [[0, 0, 0]]


def test_a_mixed_sweep_says_at_smooth_positions_only_that_they_are_sampled(page, shown):
    nets = {0.0: models.mlp(width=4, activation="sigmoid"), 1.0: models.mlp(width=4)}
    root = shown(a_map(nets))
    hint, edges = root.locator(".here"), root.get_by_label("polytopes")
    assert "sampled" not in hint.inner_text() and edges.is_enabled()
    root.locator("input[type=range]").press("ArrowLeft")
    drawn(page)
    assert "sampled at every pixel" in hint.inner_text() and edges.is_disabled()
    root.locator("input[type=range]").press("ArrowRight")
    drawn(page)
    assert "sampled" not in hint.inner_text() and edges.is_enabled()


def test_map_and_sentence_are_in_sight_together(page, shown):
    try:
        for height in (800, 650):
            page.set_viewport_size({"width": 1280, "height": height})
            root = shown(a_map(controls=a_box(), window="box", presets={"Far": {"box": 1000}}))
            map_, said = root.locator("canvas").bounding_box(), root.locator(".said").bounding_box()
            assert said["y"] + said["height"] < map_["y"] + map_["height"] < height - 120  # what JupyterLab has around it
            assert said["x"] > map_["x"] + map_["width"] and map_["width"] > 300
    finally:
        page.set_viewport_size({"width": 1280, "height": 800})


def test_the_frame_has_the_colours_of_the_winners_far_away(page, shown):
    living = a_map(networks(n_classes=3), world=None, classes=3)
    shown(living)
    angles = np.random.default_rng(3).uniform(0, 2 * np.pi, 200)
    u = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    u /= np.abs(u).max(axis=1, keepdims=True)  # on a square
    winner, tie = polytopes.directions(living.network, u)
    places = "[v.left + (v.side / 2) * (1 + d[0]) + 5 * d[0], v.top + (v.side / 2) * (1 - d[1]) - 5 * d[1]]"
    pixel = f"v.context.getImageData(...{places}.map(Math.floor), 1, 1).data"
    made = view(page, f"{u.tolist()}.map((d) => Array.from({pixel}).slice(0, 3))")
    full = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in living.spec["look"]["full"]]
    expected = np.where(tie[:, None], 0, np.array(full)[winner])
    assert (np.array(made) == expected).all(axis=1).mean() > 0.97  # but for those on a border
    assert len(set(winner)) > 1


def test_it_fits_narrow_and_wide_pages(page, shown):
    shown(a_map())
    try:
        for width in (320, 600, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"document.querySelector('.ood-map canvas').clientWidth <= {width}")
            drawn(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.set_viewport_size({"width": 1280, "height": 800})
