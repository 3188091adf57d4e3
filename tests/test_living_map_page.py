"""The living map: its JavaScript against Python, number by number, in a page from a file without Jupyter; then its hands."""

import json
from itertools import pairwise
from pathlib import Path

import browser
import numpy as np
import pytest
from small_maps import a_map
from small_networks import build

from ood_helpers import polytopes
from ood_helpers.widgets import living_map

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
SOURCE = Path(living_map.__file__).with_suffix(".js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page from a file that holds the module as `oodMap`."""
    path = tmp_path_factory.mktemp("map") / "page.html"
    module = SOURCE.replace("export default {", "window.oodMap = {")
    path.write_text(f'<!doctype html><meta charset="utf-8"><body><script type="module">{module}</script>', encoding="utf-8")
    with browser.chromium() as chromium:
        page = chromium.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function("window.oodMap")
        yield page
        assert errors == []


def random_networks():
    """Random networks of depth 0 to 4, 1 to 6 outputs, leaky, dead, without biases, with kinks along rows of pixels."""
    rng = np.random.default_rng(0)
    for depth, width, outputs, leak in [
        (0, 1, 2, 0.0), (1, 1, 1, 0.0), (1, 30, 2, 0.0), (2, 40, 3, 0.0), (2, 8, 6, 0.2), (3, 20, 2, 0.0), (4, 10, 3, 0.01),
    ]:  # fmt: skip
        sizes = [2] + [width] * depth + [outputs]
        weights = [rng.normal(size=(m, n)) for n, m in pairwise(sizes)]
        yield weights, [rng.normal(size=len(w)) for w in weights], leak
    plain = [rng.normal(size=(12, 2)), rng.normal(size=(12, 12)), rng.normal(size=(3, 12))]
    yield plain, [np.zeros(12), np.zeros(12), np.zeros(3)], 0.0
    yield plain, [np.full(12, -1e3), np.zeros(12), np.array([1.0, 2, 3])], 0.0  # dead in the window
    rows = [np.array([[0.0, 1], [1, 0], [1, 1], [0, 0]]), rng.normal(size=(2, 4))]
    yield rows, [np.array([0.5, 0.5, 0, 0]), np.zeros(2)], 0.0  # kinks along rows and columns of pixels, and a neuron that is 0


def network_in_page(weights, biases, leak):
    """JavaScript that unpacks a network of float64 numbers."""
    sizes = [weights[0].shape[1], *map(len, biases)]
    numbers = np.concatenate([part.ravel() for pair in zip(weights, biases, strict=True) for part in pair])
    return f"oodMap.unpack({sizes}, {[leak] * (len(weights) - 1)}, Float64Array.from({json.dumps(numbers.tolist())}))"


def pixels(page, network, field, window, side=64):
    """The logits or the pattern of every pixel of a square window (x, y, half width), as JavaScript finds them."""
    x, y, half = window
    square = f"{{x: {x}, y: {y}, half: {half}}}, {side}, {side}"
    return page.evaluate(f"() => Array.from(oodMap.fields({network_in_page(*network)}, {square}).{field})")


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
        codes = pixels(page, (weights, biases, leak), "pattern", (0, 0, half))
        patterns = np.unique(np.concatenate(active, axis=1), axis=0, return_inverse=True)[1].ravel()
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


def test_the_map_has_the_colours_of_its_bands(page, shown):
    living = a_map()
    shown(living)
    side = view(page, "v.side")
    x, y, half = 0.0, 0.0, 50.0
    step = 2 * half / side
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    points = np.stack([x - half + step / 2 + step * column, y + half - (row + 0.5) * step], axis=-1)
    logits = polytopes.read(living.network)(points)
    confidence = 1 / (1 + np.exp(-np.abs(logits[..., 0] - logits[..., 1])))
    band = np.digitize(confidence, [0.6, 0.9])
    colours = [int(c[5:7] + c[3:5] + c[1:3], 16) + (255 << 24) for c in living.spec["look"]["bands"]]
    drawn_pixels = np.reshape(view(page, "Array.from(v.pixels)"), (side, side))
    assert (drawn_pixels == np.array(colours)[band]).mean() > 0.9999


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
    root.get_by_label("polytopes").check()
    drawn(page)
    assert picture(page) != before
    root.get_by_label("polytopes").uncheck()
    drawn(page)
    assert picture(page) == before


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
