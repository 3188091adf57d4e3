"""A missing name is told with the remedy in any kernel of the environment, also one that does not know its notebook's file."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook


@pytest.fixture(scope="module")
def shown():
    """The texts that each of some cells shows, run in reverse order in one kernel."""
    sources = ["world = 1", "def later():\n    return world", "print(world)", "later()", "1 / 0", "x = missing_for_ever"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in reversed(sources)])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    nbformat.validate(notebook)
    texts = ["".join(out.get("data", {}).get("text/markdown", "") for out in cell.outputs) for cell in notebook.cells]
    return dict(zip(reversed(sources), texts, strict=True))


def test_a_missing_name_is_told_with_the_remedy(shown):
    for source, name in [("print(world)", "world"), ("x = missing_for_ever", "missing_for_ever"), ("later()", "later")]:
        assert f"`{name}` is not defined yet" in shown[source] and "Run All Above Selected Cell" in shown[source]


def test_other_cells_and_other_errors_say_nothing(shown):
    assert [shown[source] for source in ("world = 1", "1 / 0")] == ["", ""]
