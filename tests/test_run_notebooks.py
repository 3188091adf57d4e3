"""Tests of tools/run_notebooks.py on small notebooks of their own, each run with a real kernel."""

import base64

import nbformat
import pytest
import run_notebooks
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PIXEL = base64.b64encode(b"any bytes").decode()
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}
DEMO = f"""
import base64
import ipywidgets
from ood_helpers.widgets import page

class Item:
    box = ipywidgets.VBox()

page.show(Item, "Beta is *1*.", base64.b64decode({PIXEL!r}))
"""


@pytest.fixture
def stored(tmp_path):
    """A function that writes cells (code, in order) to a notebook and returns its path."""

    def store(*sources):
        path = tmp_path / "lesson.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# T"), *map(new_code_cell, sources)]), path)
        return path

    return store


def rerun(path):
    """The notebook at `path` after the tool has run it; fails when the tool does."""
    assert run_notebooks.main([str(path)]) == 0
    return nbformat.read(path, as_version=4)


def test_runs_in_order_in_its_own_folder_and_normalises_metadata(stored, tmp_path, capsys):
    notebook = rerun(stored("from pathlib import Path\nprint(Path.cwd().name)", "1 + 1"))
    first, second = notebook.cells[1:]
    assert (first.execution_count, second.execution_count) == (1, 2)
    assert first.outputs[0].text.strip() == tmp_path.name
    assert second.outputs[0].data["text/plain"] == "2"
    assert notebook.metadata == run_notebooks.METADATA
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert "execution" not in first.metadata
    assert "lesson.ipynb: " in (printed := capsys.readouterr().out) and " s, " in printed and " kB" in printed


def test_cell_ids_and_tags_stay_and_a_second_run_changes_nothing(stored):
    path = stored("print('same')", DEMO)
    before = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert [cell.id for cell in rerun(path).cells] == before
    first = path.read_bytes()
    rerun(path)
    assert path.read_bytes() == first


def test_prints_of_a_cell_are_stored_as_one_whatever_their_timing(stored):
    source = "import time\nfor n in range(3):\n    print(n, flush=True)\n    time.sleep(0.3)"
    (output,) = rerun(stored(source)).cells[1].outputs
    assert output.text == "0\n1\n2\n"


def test_demo_leaves_picture_then_sentence(stored):
    outputs = rerun(stored(DEMO)).cells[1].outputs
    assert [set(output.data) for output in outputs] == [{"image/png", "text/plain"}, {"text/markdown"}]
    assert [output.output_type for output in outputs] == ["display_data", "display_data"]
    assert outputs[0].data["image/png"].strip() == PIXEL
    assert outputs[1].data["text/markdown"] == "Beta is *1*."


def test_progress_bar_and_plain_widgets_leave_nothing(stored):
    bar = "import time\nfrom ood_helpers.progress import progress\nfor _ in progress(range(3), 3, 'x'):\n    time.sleep(0.6)"
    notebook = rerun(stored(bar, "import ipywidgets\nipywidgets.IntSlider()"))
    assert [cell.outputs for cell in notebook.cells[1:]] == [[], []]
    assert "widgets" not in notebook.metadata


def test_an_output_without_a_widget_is_kept_as_it_is():
    output = new_output("display_data", data={"image/png": PIXEL, "text/markdown": "s", "text/plain": "s"})
    assert run_notebooks.without_widget(output) == [output]


@pytest.mark.parametrize(
    "source, complaint",
    [
        ("raise ValueError('no beta')", "ValueError: no beta"),
        ("import sys\nprint('careful', file=sys.stderr)", "wrote to stderr:\ncareful"),
        ("import warnings\nwarnings.warn('old name')", "old name"),
        ("import os\nos._exit(1)", "the kernel died in cell 3 ('import os')"),
    ],
)
def test_a_failing_cell_is_named_and_the_file_left_alone(stored, capsys, source, complaint):
    path = stored("x = 1", source, "x = 2")
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    message = capsys.readouterr().err
    assert "cell 3" in message and source.splitlines()[0] in message and complaint in message
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_one_failure_does_not_keep_the_others_from_running(stored, tmp_path, capsys):
    good = tmp_path / "good.ipynb"
    stored("1 + 1").rename(good)
    bad = stored("1 / 0")
    assert run_notebooks.main([str(bad), str(good), str(tmp_path / "absent.ipynb")]) == 1
    printed = capsys.readouterr()
    assert "good.ipynb: " in printed.out
    assert "lesson.ipynb: FAILED" in printed.err and "absent.ipynb: FAILED" in printed.err


def test_a_slow_cell_is_named(stored, capsys, monkeypatch):
    monkeypatch.setattr(run_notebooks, "SECONDS_PER_CELL", 1)
    assert run_notebooks.main([str(stored("import time", "time.sleep(60)"))]) == 1
    assert "cell 3 ('time.sleep(60)') took longer than 1 s" in capsys.readouterr().err
