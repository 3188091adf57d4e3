"""The talks: what tools/slides.toml names is there, and the slides open from a file and go on by keyboard."""

import re

import make_site
import make_slides
import nbformat
import pytest
from make_slides import Line, marks, place, talk
from nbconvert import SlidesExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebooks import NOTEBOOKS

pytestmark = pytest.mark.xdist_group("slides")  # their fixtures are costly: one process for all of them

OUTLINES = make_slides.outlines()
NEW = ("slide", "subslide")


def course(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def counted(outline):
    return sum(line.kind in NEW for line in outline)


def test_every_notebook_has_a_talk():
    assert list(OUTLINES) == [page.name for page in make_site.pages_of(make_site.course()) if not page.kind]


@pytest.mark.parametrize("name", OUTLINES)
def test_every_line_of_an_outline_has_its_place_and_something_to_show(name):
    notebook, outline = course(name), OUTLINES[name]
    shown = [notebook.cells[place(notebook, line)[0]] for line in outline]
    assert outline[0].kind == "slide" and outline[0].target.startswith("# ")
    assert 10 <= counted(outline) <= 20
    assert [line.target for line, cell in zip(outline, shown, strict=True) if cell.cell_type == "code" and not cell.outputs] == []
    assert any(re.search(r"widgets\.(Demo|LivingMap)\(", cell.source) for cell in shown)
    assert any(line.target.startswith("## Summary") for line in outline)
    assert len(set(map(str, outline))) == len(outline)


def test_notebooks_that_are_marked_agree_with_the_outlines():
    found = {name: [c.metadata.get("slideshow", {}).get("slide_type") for c in course(name).cells] for name in OUTLINES}
    marked = {name: types for name, types in found.items() if any(types)}
    assert marked in ({}, {name: marks(course(name), OUTLINES[name]) for name in OUTLINES})


@pytest.fixture
def notebook():
    cells = [
        new_markdown_cell("# T\n\n**Question.** Why?\n\nNot shown."),
        new_code_cell("x = 1", id="setup"),
        new_code_cell("print('seen')", id="figure", outputs=[nbformat.v4.new_output("stream", text="seen")]),
        new_markdown_cell("*A caption.*\n\n**What you should see.** It.\n\nNot shown either."),
    ]
    return new_notebook(cells=cells)


OUTLINE = [Line("slide", "# T"), Line("+", "**Question.**"), Line("subslide", "@figure"), Line("fragment", "**What you")]


def test_a_talk_is_made_of_paragraphs_and_outputs(notebook):
    told = talk(notebook, [*OUTLINE, Line("slide", "@setup code")])
    assert [cell.source for cell in told.cells[:2]] == ["# T", "**Question.** Why?"] and told.cells[3].source.endswith("It.")
    assert [cell.metadata.slideshow.slide_type for cell in told.cells] == ["slide", "-", "subslide", "fragment", "slide"]
    assert [cell.metadata.with_code for cell in told.cells[2:]] == [False, False, True]


@pytest.mark.parametrize("target, times", [("Gone", 0), ("@gone", 0), ("@figures", 0), ("Not", 2), ("No", 0)])
def test_a_line_without_one_place_is_named(notebook, target, times):
    with pytest.raises(ValueError, match=rf"{re.escape(repr(target))} should be in one place.*in {times}"):
        place(notebook, Line("slide", target))


def test_marks_go_into_the_metadata_and_nothing_else_changes(notebook, tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(make_slides, "outlines", lambda: {"lesson": OUTLINE})
    make_slides.mark(path)
    once = path.read_bytes()
    marked = nbformat.read(path, as_version=4)
    assert [cell.metadata.slideshow.slide_type for cell in marked.cells] == ["slide", "skip", "subslide", "fragment"]
    for cell in marked.cells:
        del cell.metadata["slideshow"]
    assert marked.cells == notebook.cells
    make_slides.mark(path)
    assert path.read_bytes() == once
    html = SlidesExporter().from_filename(path)[0]  # what `jupyter nbconvert --to slides` makes of it
    assert len(re.findall("<section", html)) - html.count("<section ><section") >= 2 and "seen" in html


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The folder of all talks."""
    out = tmp_path_factory.mktemp("site") / "slides"
    assert make_slides.main(["--out", str(out)]) == 0
    return out


@pytest.mark.browser
@pytest.mark.parametrize("name", OUTLINES)
def test_a_talk_opens_from_a_file_and_goes_on_by_keyboard(slides, browser, name):
    wrong, page = [], browser.new_page()
    page.route(re.compile(r"^(?!file:|data:)"), lambda route: (wrong.append(route.request.url), route.abort()))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((slides / f"{name}.html").as_uri())
    page.wait_for_function("Reveal.isReady()")
    total = page.evaluate("Reveal.getTotalSlides()")
    assert total == counted(OUTLINES[name])
    reached = [0]
    for _ in range(100):
        page.keyboard.press("ArrowRight")
        at = page.evaluate("Reveal.getSlidePastCount()")
        if at != reached[-1]:
            reached.append(at)
            fits = page.evaluate("[Reveal.getCurrentSlide().scrollHeight, Reveal.getCurrentSlide().scrollWidth]")
            assert fits[0] <= 720 and fits[1] <= 1280, f"slide {at + 1} is too full: {fits}"
        if at == total - 1:
            break
    assert reached == list(range(total)) and wrong == []
    page.close()
