"""Run notebooks from a clean start and store their outputs, so that a reader without a kernel sees what a run shows.

    python tools/run_notebooks.py [notebook ...]        without arguments: the course, what goes further, exercises, solutions

A notebook is written only when every cell ran and none of them wrote to stderr; otherwise the file stays as it was, the message
names the cell, and the exit code is 1. Before writing, everything that differs from run to run without a reason is taken out:
widget models (dead without their kernel), timing, and what the machine says of itself.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SECONDS_PER_CELL = 300
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STANDS_FOR_A_WIDGET = r'<div class="ood-static[^>]*>\n\n(.*)\n\n</div>\n\n<style>.*</style>'  # see ood_helpers/widgets/page.py
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA_DROPPED = ("execution", "ExecuteTime")


class NotebookFailed(Exception):
    """A cell raised an error, took too long, or wrote to stderr. The message says which and why."""


def execute(notebook, folder):
    """Run all cells of `notebook` in place, with a fresh kernel whose working directory is `folder`."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    at = 0

    def note(cell, cell_index):
        nonlocal at
        at = cell_index

    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        on_cell_start=note,
        store_widget_state=False,
        coalesce_streams=True,  # where a print is cut into pieces depends on the moment
    )
    try:
        client.execute()
    except CellTimeoutError:
        raise NotebookFailed(f"{describe(notebook, at)} took longer than {SECONDS_PER_CELL} s") from None
    except DeadKernelError:
        raise NotebookFailed(f"the kernel died in {describe(notebook, at)}") from None
    except CellExecutionError as error:
        raise NotebookFailed(f"{describe(notebook, at)} raised {error.ename}: {error.evalue}\n{error.traceback}") from None
    refuse_stderr(notebook)


def describe(notebook, number):
    """Cell `number`, counted from 0, in words: its place counted from 1 and its first line."""
    lines = notebook.cells[number].source.strip().splitlines() or [""]
    return f"cell {number + 1} ({lines[0]!r})"


def refuse_stderr(notebook):
    """Raise NotebookFailed for the first cell that wrote to stderr: a warning in a course is a defect, and must be seen."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise NotebookFailed(f"{describe(notebook, number)} wrote to stderr:\n{output.text}")
            if output.output_type == "error":
                raise NotebookFailed(f"{describe(notebook, number)} has an error output, {output.ename}: {output.evalue}")


def clean(notebook):
    """Take out of `notebook`, in place, what is dead without a kernel and what differs between machines."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        for key in CELL_METADATA_DROPPED:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs for kept in without_widget(output)]


def without_widget(output):
    """The outputs that stand for `output` where no kernel runs: a list of none or one.

    A widget's view goes, with the mark on the words that stand for it, and with what a finished progress bar leaves.
    """
    data = output.get("data", {})
    if WIDGET_VIEW in data or data == {"text/plain": ""}:
        return []
    if words := re.fullmatch(STANDS_FOR_A_WIDGET, data.get("text/markdown", ""), re.DOTALL):
        output.data = {"text/markdown": words[1]}
    return [output]


def write(notebook, path):
    """Write `notebook` to `path` in one step: whoever reads the file sees the old one or the new one, never a half."""
    nbformat.validate(notebook)
    draft = path.with_name(f".{path.name}.part")
    try:
        nbformat.write(notebook, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def run(path):
    """Run the notebook at `path` and store it; raises NotebookFailed, and then leaves the file alone."""
    notebook = nbformat.v4.upgrade(nbformat.read(path, as_version=4))  # gives cells their ids where they have none
    execute(notebook, path.parent)
    clean(notebook)
    write(notebook, path)


def main(arguments=None):
    """Run the notebooks named in `arguments`; returns the exit code: 1 when at least one failed."""
    parser = argparse.ArgumentParser(description="Run notebooks from a clean start and store their outputs.")
    parser.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    paths = parser.parse_args(arguments).paths or [
        path for folder in ("", "further", "exercises", "solutions") for path in sorted((NOTEBOOKS / folder).glob("*.ipynb"))
    ]
    failed = 0
    for path in paths:
        start = time.perf_counter()
        try:
            run(path)
        except (NotebookFailed, OSError, nbformat.reader.NotJSONError) as error:
            failed += 1
            print(f"{path.name}: FAILED, not written: {error}", file=sys.stderr)
        else:
            print(f"{path.name}: {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
