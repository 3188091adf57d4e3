"""The reading edition: small pages in a browser that may fetch nothing from a network, then all pages of the course."""

import importlib
import io
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import make_site
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from ood_helpers import models, plotting, widgets

pytestmark = pytest.mark.xdist_group("site")  # their fixtures are costly: one process for all of them

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "site"))
demo_pictures = importlib.import_module("demo_pictures")  # runs in a notebook's kernel, next to no other module

PAGES = make_site.pages_of(make_site.course())


# --- the parts ------------------------------------------------------------------------------------------------------------


def test_a_formula_becomes_mathml_and_an_unknown_command_is_named():
    assert make_site.formula(r"\min_G f", "block").startswith('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"')
    assert "munder" in make_site.formula(r"\min_G f", "block") and "munder" not in make_site.formula(r"\min_G f", "inline")
    for bad in (r"\nonsense{x}", "x_{"):
        with pytest.raises(ValueError, match=re.escape(repr(bad))):
            make_site.formula(bad, "inline")


def test_links_lead_to_pages_and_formulas_in_code_stay(tmp_path):
    pages = [make_site.Page(tmp_path / f"{name}.ipynb", f"{name}.html") for name in ("one", "two")]
    pages.append(make_site.Page(tmp_path / "solutions" / "one.ipynb", "solutions/one.html"))
    html = make_site.Text(pages[2], pages).html(
        "[a](../two.ipynb#2-The-end) [b](../gone.ipynb) [c](https://x.org) `$x$` $x$\n\n## 2 The *end*"
    )
    assert 'href="../two.html#2-the-end"' in html and 'href="https://x.org"' in html and 'id="2-the-end"' in html
    assert "gone" not in html and "b" in html and "<code>$x$</code>" in html and html.count("<math") == 1


def test_markdown_that_a_cell_shows_becomes_html(tmp_path):
    page = make_site.Page(tmp_path / "one.ipynb", "one.html")
    shown = new_output("display_data", data={"text/markdown": "| k\\* |\n| --: |\n| $x$ |", "text/plain": "k"})
    html = make_site.as_html(shown, make_site.Text(page, [page]), None, "one-1", "").data["text/html"]
    assert html.count("<td") == 1 and "text-align:right" in html and "k*" in html and "<math" in html


def test_a_question_is_read_from_its_cell_only_if_all_of_it_is_written_there():
    assert make_site.question('widgets.Question("Q", {"a": "x", "b": "y"}, right="b")') == ["Q", {"a": "x", "b": "y"}, "b"]
    assert make_site.question('widgets.Question(f"{n}", answers, "b")') is None and make_site.question("x = 1") is None


def test_few_positions_are_all_drawn_the_important_ones_first():
    few = demo_pictures.wanted([2, 3], [(0, 1), (1, 2)])
    assert few[:2] == [(0, 1), (1, 2)] and sorted(few) == [(a, b) for a in range(2) for b in range(3)]


def test_of_many_positions_each_control_moves_by_itself_from_every_preset():
    sizes, anchors = [10, 5, 4], [(0, 0, 0), (9, 4, 3)]
    many = demo_pictures.wanted(sizes, anchors, most=34)
    ways = [{(a, *anchor[1:]) for a in range(10)} | {(anchor[0], b, anchor[2]) for b in range(5)} for anchor in anchors]
    ways = [way | {(*anchor[:2], c) for c in range(4)} for way, anchor in zip(ways, anchors, strict=True)]
    assert many[:2] == anchors and set(many[2:18]) == ways[0] - {anchors[0]} and set(many) == ways[0] | ways[1]
    assert demo_pictures.wanted(sizes, anchors, most=40)[:34] == many
    assert demo_pictures.wanted(sizes, anchors, most=1) == many[:2]  # never fewer than the presets


def test_a_picture_is_kept_as_what_differs_and_looks_the_same_when_laid_over():
    base = np.full((40, 60, 3), (253, 252, 251), dtype=np.uint8)
    base[:4] = np.arange(60)[:, None]  # more colours than are kept
    picture = base.copy()
    picture[5:9, 20:30] = 200, 30, 30
    for kind, quality in demo_pictures.ENCODINGS:
        over = Image.open(io.BytesIO(demo_pictures.encoded(picture, base, kind, quality))).convert("RGBA")
        laid = Image.fromarray(base).convert("RGBA")
        laid.alpha_composite(over)
        apart = np.abs(np.asarray(laid)[..., :3].astype(int) - picture)
        assert apart.max() == 0 if kind == "lossless" else 0 < apart.mean() < 3
        opaque = np.asarray(over)[..., 3] == 255
        margin = 2 * demo_pictures.MARGIN
        assert opaque[5:9, 20:30].all() and not opaque[20:].any()
        assert opaque.sum() == ((4 + margin) * (10 + margin) if kind == "lossless" else (16 + margin // 2) * (16 + margin))


def test_few_colors_keep_flat_areas_exactly():
    pixels = np.concatenate([np.full((500, 3), (253, 252, 251)), np.repeat(np.arange(60), 2)[:, None].repeat(3, 1)]).astype(
        np.uint8
    )
    few = demo_pictures.with_few_colors(pixels, 8)
    assert (few[:500] == pixels[:500]).all() and len(np.unique(few, axis=0)) == 8
    assert (demo_pictures.with_few_colors(pixels, 61) == pixels).all()


def test_pictures_that_do_not_fit_are_left_out_from_the_end():
    random = np.random.default_rng(0)
    base = np.zeros((40, 60, 3), dtype=np.uint8)
    pictures = [random.integers(1, 255, (40, 60, 3), dtype=np.uint8) for _ in range(5)]
    sizes = [min(len(demo_pictures.encoded(p, base, *how)) for how in demo_pictures.ENCODINGS) for p in pictures]
    files = demo_pictures.fitting(pictures, base, most=sum(sizes[:4]))
    assert len(files) == 4 and sum(map(len, files)) <= sum(sizes[:4])
    assert len(demo_pictures.fitting([pictures[0]] * 50, base, most=3 * sizes[0])) == 50  # equal pictures count once


# --- small pages in a browser ---------------------------------------------------------------------------------------------

DEMO = """
from ood_helpers import plotting, widgets
figure, ax = plotting.figure(width=4, height=2)
(bar,) = ax.bar([0], [0])
ax.set(xlim=(-1, 9), ylim=(0, 10))

def update(height, hue, width):
    bar.set(height=height, width=width, color=hue)
    return f"The {hue} bar is {height} <high> and {width} wide."

controls = {
    "height": widgets.slider("height", list(range(8)), 3, "how high"),
    "hue": widgets.choice("hue", ["red", "green", "blue"], "red", "its colour"),
    "width": widgets.slider("width", [(f"{w} units", w) for w in range(1, 9)], 1, "how wide"),
}
widgets.Demo(figure, update, controls, {"Wide": {"height": 3, "hue": "red", "width": 8}})
"""
MAP = """
from ood_helpers import data, models, widgets

networks = dict(zip((1, 2, 500), [models.mlp(width=width) for width in (4, 5, 500)]))
widgets.LivingMap(
    networks,
    {"which": widgets.slider("which", [1, 2, 500], 1, "which network"), "box": widgets.choice("box", [10, 50], 50, "")},
    window="box",
    world=data.TwoGaussians(),
    sentence=lambda which, box: f"This is network {which} in {box}.",
)
"""
WIDE = "widgets.LivingMap(networks[500])"
QUESTION = 'widgets.Question("How *many*?", {"one": "Too few.", "two": "Just `so`."}, "two")'


def lesson(title, *cells):
    cells = [new_markdown_cell(f"# {title}"), *cells]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return new_notebook(cells=cells, metadata=metadata)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small site: a lesson with a demo, a question and a formula, and one that follows it."""
    folder = tmp_path_factory.mktemp("lessons")
    text = new_markdown_cell(
        "## A formula\n\nIt says $$ \\frac{a}{b} \\le 1, $$ and [the next](11_second.ipynb#the-end) goes on."
    )
    nbformat.write(
        lesson("First: why?", text, new_code_cell(DEMO), new_code_cell(QUESTION), new_code_cell(MAP), new_code_cell(WIDE)),
        folder / "10_first.ipynb",
    )
    nbformat.write(lesson("Second: so", new_markdown_cell("## The end\n\nDone.")), folder / "11_second.ipynb")
    out = folder / "site"
    command = [sys.executable, ROOT / "tools" / "make_site.py", "--out", out, *sorted(folder.glob("*.ipynb"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def reader(browser):
    """A page that may read files only; at the end it must have asked for nothing else and reported no error."""
    page = browser.new_page()
    wrong = []
    page.route(re.compile(r"^(?!file:|data:)"), lambda route: (wrong.append(route.request.url), route.abort()))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: request.failure == "net::ERR_ABORTED" or wrong.append(f"{request.url} failed"))
    yield page
    page.close()
    assert wrong == []


def seen(demo):
    """What a reader sees of a demo once its picture is there: the picture's address, the sentence, the shown values."""
    for picture in demo.locator("img").all():
        picture.evaluate("image => image.decode()")
    values = [*demo.locator("output").all_inner_texts(), demo.locator("select").input_value()]
    return demo.locator(".over").get_attribute("src"), demo.locator(".sentence").inner_text(), values


@pytest.mark.browser
def test_sliders_presets_and_choices_move_picture_and_sentence_by_keyboard(small, reader):
    reader.goto((small / "10_first.html").as_uri())
    demo = reader.locator(".demo")
    first = seen(demo)
    assert first[1:] == ("The red bar is 3 <high> and 1 wide.", ["3", "1 units", "0"])
    demo.get_by_label("height").press("ArrowRight")
    second = seen(demo)
    assert second[1:] == ("The red bar is 4 <high> and 1 wide.", ["4", "1 units", "0"]) and second[0] != first[0]
    assert demo.get_by_label("height").get_attribute("aria-valuetext") == "4"
    demo.get_by_role("button", name="Wide").press("Enter")
    assert seen(demo)[1:] == ("The red bar is 3 <high> and 8 wide.", ["3", "8 units", "0"])
    demo.get_by_label("hue").select_option("blue")
    assert seen(demo)[1:] == ("The blue bar is 3 <high> and 8 wide.", ["3", "8 units", "2"])
    # (4, blue, 8 wide) is two moves from Wide and three from Reset: not among those drawn. The nearest of that height is shown
    demo.get_by_label("height").press("ArrowRight")
    assert seen(demo)[1:] == ("The red bar is 4 <high> and 8 wide.", ["4", "8 units", "0"])
    assert demo.locator(".moved").inner_text() == "Moved as well: hue to red."
    assert "of the notebook's 192 positions are here" in demo.inner_text()
    demo.get_by_role("button", name="Reset").press("Enter")
    assert seen(demo) == first and demo.locator(".moved").inner_text() == ""


@pytest.mark.browser
def test_a_living_map_moves_without_a_kernel_and_says_what_does_not_fit(small, reader):
    reader.goto((small / "10_first.html").as_uri())
    living = reader.locator(".living-map").first
    assert living.locator("img").count() == 1  # what remains without JavaScript, or before the map is in sight
    living.scroll_into_view_if_needed()
    reader.wait_for_selector(".ood-map canvas[data-drawn]")
    assert living.locator(".said").inner_text() == "This is network 1 in 50." and living.locator(".still > img").count() == 0
    assert "4 of the notebook's 6 positions are here" in living.inner_text()
    living.locator("input[type=range]").press("ArrowRight")
    finished = "() => { const v = document.querySelector('.ood-map').oodView; return v.done === v.job && !v.waiting; }"
    reader.wait_for_function(finished)
    before = living.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    assert living.locator(".said").inner_text() == "This is network 2 in 50."
    living.locator("input[type=range]").press("ArrowRight")  # the wide network is too large
    assert living.locator(".moved").inner_text() == "Only in the notebook: which 500."
    assert living.locator("input[type=range]").input_value() == "1"
    reader.wait_for_function(finished)
    assert living.locator("canvas").evaluate("canvas => canvas.toDataURL()") == before
    wide = reader.locator(".living-map").nth(1)
    assert wide.locator("img").count() == 1 and "the network of this map takes 1,350 kB" in wide.inner_text()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("asked", "before", "expected"),
    [
        ([1, 1], [1, 0], [1, 1]),  # kept
        ([2, 1], [1, 1], [2, 0]),  # the moved control as asked, the other one as near as can be
        ([2, 3], [2, 0], [1, 3]),
        ([3, 0], [1, 0], [1, 0]),  # none has it: nothing moves
        ([3, 3], [0, 0], [1, 3]),  # a preset moves two
    ],
)
def test_a_map_goes_to_the_nearest_position_that_is_kept(small, reader, asked, before, expected):
    reader.goto((small / "10_first.html").as_uri())
    places = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 3], [2, 0]]
    assert reader.evaluate("all => nearest(...all)", [places, asked, before]) == expected


@pytest.mark.browser
def test_a_question_answers_a_formula_is_drawn_and_links_lead_on_and_back(small, reader):
    reader.goto((small / "index.html").as_uri())
    reader.get_by_role("link", name="10 First").click()
    assert reader.locator("math mfrac").evaluate("f => f.getBoundingClientRect().height") > 20
    question = reader.locator(".question")
    assert "Just so" not in reader.locator("main").inner_text()
    question.get_by_label("one").press("Space")
    assert question.locator("[role=status]").inner_text() == "✗ No. Too few."
    reader.keyboard.press("ArrowDown")
    assert question.locator("[role=status]").inner_text() == "✓ Right. Just so."
    reader.get_by_role("button", name="Hide code").click()
    assert not reader.locator(".input").first.is_visible()
    reader.get_by_role("link", name="the next", exact=True).click()
    assert reader.url.endswith("11_second.html#the-end") and reader.title() == "Second: so"
    reader.locator("footer").get_by_role("link", name="← 10 First").click()
    assert reader.url.endswith("10_first.html")
    reader.locator("header").get_by_role("link", name="11 Second →").click()
    assert reader.url.endswith("11_second.html")


def test_a_map_keeps_as_many_positions_as_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_pictures, "MAP_BYTES", 60_000)
    figure, ax = plotting.figure(width=3, height=2)
    (line,) = ax.plot([0, 1], [0, 1])
    figure.set_layout_engine("none")  # its layout would move a little, drawing by drawing

    def sentence(width, box):
        line.set_ydata([0, width])
        return f"{width} and {box}", {"figure": figure, "points": ([[1 / 3, 123.456789]] * 9, [0] * 9)}

    nets = {width: models.mlp(width=width) for width in (4, 90, 100, 8, 30)}
    controls = {"width": widgets.choice("width", list(nets), 4, ""), "box": widgets.slider("box", [10, 50], 50, "")}
    living = widgets.LivingMap(nets, controls, window="box", sentence=sentence, presets={"Near": {"width": 8, "box": 10}})
    found = demo_pictures.kept(living, 3, tmp_path)
    state = json.loads((tmp_path / "map-3.js").read_text().removeprefix("oodMaps[3] = "))
    there = {i for i, shape in enumerate(state["spec"]["networks"]) if shape["at"] is not None}
    assert there == {0, 3, 4}  # the smaller ones, beside the first
    assert (found["here"], found["of"], found["map"]) == (6, 10, 3)
    assert set(state["notes"]) == {f"{width},{box}" for width in (0, 3, 4) for box in (0, 1)}
    names = {note["picture"] for note in state["notes"].values()}
    assert len(names) == 3 and all((tmp_path / name).exists() for name in names)  # one file for a figure that two positions share
    assert state["notes"]["0,1"]["points"][0] == [0.3333, 123.5, 0]
    assert 20_000 < sum(file.stat().st_size for file in tmp_path.iterdir()) <= 60_000


def test_the_pictures_are_small_and_a_cell_that_fails_is_named(small, tmp_path, capsys):
    (stored,) = (small / "demos" / "10_first").glob("demos.json")
    demo, living, wide = json.loads(stored.read_text())["demos"].values()
    assert living["map"] == 1 and living["sentence"] == "This is network 1 in 50." and wide["map"] is None
    assert [file.name for file in stored.parent.glob("map-*")] == ["map-1.js"]
    assert len(demo["positions"]) == demo_pictures.MOST < demo["of"]
    pictures = list(stored.parent.glob("0-*.webp"))
    assert sum(file.stat().st_size for file in pictures) < 400_000 and len(pictures) == len(demo["positions"]) + 1
    nbformat.write(lesson("Bad", new_code_cell("# widgets.Demo(\n1 / 0")), tmp_path / "12_bad.ipynb")
    assert make_site.main(["--out", str(tmp_path / "site"), str(tmp_path / "12_bad.ipynb")]) == 1
    assert "12_bad: FAILED: cell 3 ('# widgets.Demo(') raised ZeroDivisionError" in capsys.readouterr().err


# --- the pages of the course ----------------------------------------------------------------------------------------------


class Addresses(HTMLParser):
    """The addresses on a page: of links, of what is loaded with the page, and the anchors to which one can go."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag != "a":
            self.loaded += [attributes[name] for name in ("src", "href", "srcset", "poster") if name in attributes]


@cache
def addresses(file):
    return Addresses(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole course with the stored outputs, without demos."""
    out = tmp_path_factory.mktemp("site")
    assert make_site.main(["--no-demos", "--out", str(out)]) == 0
    return out


def dead(file):
    """What is wrong with the addresses on a page: links that lead nowhere, and what is loaded from elsewhere or is missing."""
    found = []
    for address in addresses(file).loaded:
        if address != "data:," and not (file.parent / unquote(address)).is_file():
            found.append(f"loads {address}")
    for address in addresses(file).links:
        path, _, anchor = address.partition("#")
        target = (file.parent / unquote(path)).resolve() if path else file
        if re.match(r"https?:", address):
            continue
        if not target.is_file():
            found.append(f"link to {address}: no such file")
        elif anchor and unquote(anchor) not in addresses(target).anchors:
            found.append(f"link to {address}: no such anchor")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.url)
def test_no_link_of_a_page_is_dead_and_nothing_comes_from_the_network(site, page):
    file = site / page.url
    assert dead(file) == []
    text = file.read_text(encoding="utf-8")
    assert text.count("<figure><img") == sum(
        "image/png" in out.get("data", {}) for c in page.notebook.cells for out in c.get("outputs", [])
    )
    assert text.count('<fieldset class="question">') == sum("widgets.Question(" in cell.source for cell in page.notebook.cells)
    assert not re.search(
        r"\$\$|\\frac|\\sum", re.sub(r'alttext="[^"]*"|<pre.*?</pre>|<code>.*?</code>', "", text, flags=re.DOTALL)
    )


def test_every_page_is_reached_and_a_dead_link_is_noticed(site, tmp_path):
    assert dead(site / "index.html") == []
    notebooks = [page.url for page in PAGES if not page.kind]
    assert addresses(site / "index.html").links == [url for page in PAGES if not page.kind for url in row(page)]
    assert 'rel="next" class="next">' not in (site / notebooks[-1]).read_text()
    assert "url(" not in (site / "style.css").read_text() and "@import" not in (site / "style.css").read_text()
    bad = tmp_path / "bad.html"
    bad.write_text('<a href="gone.html">x</a><a href="#gone">y</a><script src="https://x.org/a.js"></script><p id="here">')
    assert len(dead(bad)) == 3


def row(page):
    """The links of a page's row in the table of contents."""
    return [p.url for p in PAGES if p.name == page.name]


@pytest.mark.browser
def test_every_page_opens_without_an_error_and_fits_a_phone(site, reader):
    for name in ["index.html", *(page.url for page in PAGES)]:
        for width in (375, 1280):
            reader.set_viewport_size({"width": width, "height": 800})
            reader.goto((site / name).as_uri())
            assert reader.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
