"""Run the cells of notebooks in every order that a reader may choose, and say where a wrong result goes unnoticed.

    python tools/check_order.py [notebook ...]        without arguments: every notebook of the course; exit code 0 if all is well

Each notebook is run by kernels of its own (some minutes each; nothing is written to it), and these must hold:

- twice    Restart and Run All, twice in a row: the second run, which loads what the first one trained, prints the same
- again    after that, from the last cell back to the first: the same prints, or a word that the cells above must be run
- double   every cell run twice before the next one: the second run prints the same, or a word that …
- alone    every cell as the first one after a restart: it works, or it says which cells must be run first
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from run_notebooks import NOTEBOOKS, describe, without_widget

HINTS = ("This may go wrong", "is not defined yet")
FORGET = "get_ipython().run_line_magic('reset', '-f')"


class Kernel:
    """A kernel that runs single cells of the notebook at `path`, with the folder `cache` for trained networks."""

    def __init__(self, path, cache):
        self.notebook = nbformat.read(path, as_version=4)
        self.cells = [n for n, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"]
        self.client = NotebookClient(
            self.notebook,
            timeout=300,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(path.parent)}},
        )
        self.env = {**os.environ, "OOD_CACHE": str(cache), "JPY_SESSION_NAME": str(path)}

    def __enter__(self):
        self.client.create_kernel_manager()
        self.client.start_new_kernel(env=self.env)
        self.client.start_new_kernel_client()
        return self

    def __exit__(self, *_):
        self.client._cleanup_kernel()

    def run(self, number):
        """Run one cell: (what it prints as text, whether it says what to run first, the name of its error or None)."""
        cell = self.notebook.cells[number]
        self.client.execute_cell(cell, number)
        return shown(cell.outputs)

    def forget(self):
        """Empty the kernel of names, as after a restart."""
        self.client.execute_cell(nbformat.v4.new_code_cell(FORGET), 0)


def shown(outputs):
    """(text, hint, error) of a cell's outputs: as a reader sees them, pictures left out."""
    text, hint, error = [], False, None
    for output in (kept for whole in outputs for kept in without_widget(whole)):
        data = output.get("data", {})
        said = output.get("text") or data.get("text/markdown") or data.get("text/plain") or ""
        if output.output_type == "error":
            error = output.ename
        elif any(word in said for word in HINTS):
            hint = True
        elif "image/png" not in data:
            text.append(said)
    return "".join(text).strip(), hint, error


def check(path, cache):
    """Yield what is wrong with the notebook at `path`, one line each."""
    with Kernel(path, cache) as kernel:
        first = {n: kernel.run(n) for n in kernel.cells}
    with Kernel(path, cache) as kernel:
        second = {n: kernel.run(n) for n in kernel.cells}
        again = {n: kernel.run(n) for n in reversed(kernel.cells)}
    with Kernel(path, cache) as kernel:
        double = {n: (kernel.run(n), kernel.run(n)) for n in kernel.cells}
    with Kernel(path, cache) as kernel:
        alone = {}
        for n in kernel.cells:
            alone[n] = kernel.run(n)
            kernel.forget()
    notebook = kernel.notebook
    for n in kernel.cells:
        where, (text, hint, error) = describe(notebook, n), first[n]
        if error or hint:
            yield f"in order: {where} {error or 'finds fault with the order'}"
        if second[n][0] != text:
            yield f"twice: {where} prints something else in the second run{difference(text, second[n][0])}"
        for order, (other, said, _) in [("again", again[n]), ("double", double[n][1])]:
            if other != text and not said:
                yield f"{order}: {where} prints something else, without a word{difference(text, other)}"
        if alone[n][2] and not (alone[n][1] and alone[n][2] == "NameError"):
            yield f"alone: {where} stops with {alone[n][2]}, without a word on what to run first"


def difference(one, other):
    """The first lines that differ, for the report."""
    lines = one.splitlines(), other.splitlines()
    pair = next(((a, b) for a, b in zip(*lines, strict=False) if a != b), (f"{len(lines[0])} lines", f"{len(lines[1])} lines"))
    return f":\n      {pair[0]}\n      {pair[1]}"


def main(arguments=None):
    """Check the notebooks named in `arguments`; returns the exit code: 1 if a wrong result goes unnoticed."""
    parser = argparse.ArgumentParser(description="Run the cells of notebooks in every order that a reader may choose.")
    parser.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    failed = 0
    for path in parser.parse_args(arguments).paths or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        start = time.perf_counter()
        print(path.name, flush=True)
        with tempfile.TemporaryDirectory() as cache:
            for problem in check(path.resolve(), cache):
                failed += 1
                print("  ✗", problem, flush=True)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
