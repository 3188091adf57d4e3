"""Before the class: is everything here, does every notebook run, does every demo move, and will memory and disk do?

    python tools/check_class.py [notebook ...]        without arguments: every notebook of the course; exit code 0 if all is well

Each notebook is run in a kernel of its own and each of its demos is moved for up to ten seconds. Nothing is written to the
notebooks. The networks that they train stay in the cache, so that they are there when the class begins.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import psutil
from run_notebooks import NOTEBOOKS, NotebookFailed, execute

from ood_helpers import checks
from ood_helpers.kernel.memory import reach

GB = 1e9
SYSTEM = 2 * GB  # for the system, the server and the browser
DISK = 1 * GB  # trained networks, checkpoints, room to work
PROBE = (
    "import psutil\nfrom ood_helpers import checks\nchecks.demos({seconds})\nprint('memory', psutil.Process().memory_info().rss)"
)


def rehearse(path, seconds):
    """(problems, memory in bytes) of the notebook at `path`, run and its demos moved for up to `seconds` each."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE.format(seconds=seconds)))
    try:
        execute(notebook, path.parent)
    except NotebookFailed as failure:
        return [str(failure)], 0
    *demos, memory = "".join(output.text for output in notebook.cells[-1].outputs if "text" in output).splitlines()
    for line in demos:
        print("   ", line)
    return [line for line in demos if line.startswith("✗")], int(memory.removeprefix("memory "))


def machine():
    """What is wrong with disk and memory, in words; prints what there is."""
    free, memory = shutil.disk_usage(NOTEBOOKS).free, psutil.virtual_memory().available
    kernels = max(0, int((memory - SYSTEM) / reach()))
    print(f"{os.cpu_count()} cores, {free / GB:.0f} GB of disk free,")
    print(f"{memory / GB:.1f} GB of memory free: room for {kernels} notebooks at once")
    if free < DISK:
        yield f"only {free / GB:.1f} GB of disk are free; {DISK / GB:.0f} GB are needed: remove what is not needed"
    if kernels < 1:
        needed = (SYSTEM + reach()) / GB
        yield f"only {memory / GB:.1f} GB of memory are free; {needed:.1f} GB are needed: close other programs"


def main(arguments=None):
    """Check everything; returns the exit code: 1 if something must be mended before the class."""
    parser = argparse.ArgumentParser(description="Before the class: is everything here, and does every demo move?")
    parser.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each demo is moved")
    options = parser.parse_args(arguments)
    problems = list(machine())
    if not checks.environment():
        problems.append("the environment is not complete: see above")
    for path in options.paths or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        start = time.perf_counter()
        print(path.name, flush=True)
        found, memory = rehearse(path, options.seconds)
        if memory > reach():
            found.append(f"the kernel holds {memory / GB:.2f} GB, more than {reach() / GB:.2f} GB")
        problems += [f"{path.name}: {problem}" for problem in found]
        print(f"    {time.perf_counter() - start:.0f} s, {memory / 1e6:.0f} MB of memory", flush=True)
    for problem in problems:
        print("✗", problem)
    if not problems:
        print("✓ Ready for the class.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
