"""A world of one's own in a real JupyterLab: painted by mouse and by keyboard, trained, taken back, saved, loaded, run again."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.browser


def test_a_world_is_painted_trained_taken_back_saved_and_kept(lab, browser):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [new_code_cell("from ood_helpers import widgets\nmine = widgets.World(width=8, kind='confident')\nmine")]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), Path(lab.folder) / "world.ipynb")
    with lab.open(browser, "world.ipynb") as notebook:
        notebook.run_all()
        page, demo = notebook.page, notebook.page.locator(".ood-demo")
        canvas, sentence = demo.locator("canvas"), demo.locator(".ood-sentence")
        points = "() => document.querySelector('.ood-demo .ood-map').oodView.painted"
        canvas.scroll_into_view_if_needed()

        def press(name):
            demo.get_by_role("button", name=name, exact=True).click()
            notebook.settle()

        press("OOD")
        canvas.click(position={"x": 290, "y": 100})  # by mouse
        canvas.press("2")  # by keyboard: class 2, up and right of the middle
        for key in ("ArrowUp", "ArrowRight", "Enter"):
            canvas.press(key)
        notebook.settle()
        assert [k for *_, k in page.evaluate(points)] == [0, 1, -1, 2]
        page.wait_for_function("() => document.querySelector('.ood-sentence').innerText.includes('class 2')")
        assert page.evaluate("() => document.activeElement === document.querySelector('.ood-demo canvas')")  # a new network: kept

        said = sentence.inner_text()
        press("Train")
        page.wait_for_function("said => document.querySelector('.ood-sentence').innerText !== said", arg=said)
        press("Pause")
        assert int(re.search(r"([\d,]+) steps", sentence.inner_text())[1].replace(",", "")) > 0

        press("Save")
        assert "Saved" in sentence.inner_text()
        press("clear")
        assert page.evaluate(points) == [] and "Nothing is painted yet" in sentence.inner_text()
        press("Load")
        assert len(page.evaluate(points)) == 4 and "Loaded" in sentence.inner_text()
        press("rings")  # what the kernel does can be taken back as well
        assert len(page.evaluate(points)) > 50
        canvas.press("Control+z")
        notebook.settle()
        assert [k for *_, k in page.evaluate(points)] == [0, 1, -1, 2]

        notebook.menu("Run", "Run All Cells")
        page.wait_for_function("() => document.querySelectorAll('.ood-demo canvas[data-drawn]').length === 1")
        notebook.settle()
        assert [k for *_, k in page.evaluate(points)] == [0, 1, -1, 2]
        assert notebook.errors() == []

        # a projector of 1280 × 800 at 150 %, the file browser closed: all is smaller, and the training stays beside the map
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.set_viewport_size({"width": 853, "height": 800})
        page.wait_for_function("() => document.querySelector('.ood-demo canvas').clientHeight > 300")
        page.set_viewport_size({"width": 853, "height": 533})
        page.wait_for_function("() => document.querySelector('.ood-demo canvas').clientHeight < 330")  # its width stays
        place, train = (part.bounding_box() for part in (canvas, demo.get_by_role("button", name="Train", exact=True)))
        assert train["x"] > place["x"] + place["width"] and train["y"] < place["y"] + place["height"]
