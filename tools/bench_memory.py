"""How much memory a notebook's kernel holds after Run All, and how many such kernels a class can have on one machine.

    python tools/bench_memory.py [notebook ...]        without arguments: every notebook of the course; Linux only

Every notebook is run in a kernel of its own, and all kernels stay open until the end. A kernel's resident memory counts pages
that it shares with other kernels (the code of torch, above all) as if they were its own. How many kernels fit is therefore
computed twice: from the resident memory, and from what each kernel has for itself, with the shared pages counted once.
"""

import argparse
import contextlib
import os
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from run_notebooks import NOTEBOOKS, SECONDS_PER_CELL

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import browser as harness

from ood_helpers.kernel.memory import reach

MACHINE = 24 * 1024**3 / 1e6  # MB
SYSTEM = 2 * 1024**3 / 1e6  # MB that the system and the hub keep
CLASSROOM = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as docs/classroom sets them for every student


@dataclass
class Memory:
    """What a process holds, in MB.

    resident      all its pages that are in memory
    peak          the most that was ever resident
    private       the pages that no other process has
    proportional  private pages, and of every shared page the part that falls to this process
    """

    resident: float
    peak: float
    private: float
    proportional: float


def memory(pid):
    """The Memory of process `pid`, as Linux counts it."""
    text = Path(f"/proc/{pid}/status").read_text() + Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {name: int(size) * 1.024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, flags=re.M)}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Memory(*(size / 1000 for size in (kilobytes["VmRSS"], kilobytes["VmHWM"], private, kilobytes["Pss"])))


@contextlib.contextmanager
def kernel_after_run_all(path):
    """The process number of a kernel in which all cells of the notebook at `path` have run; it lives as long as the block."""
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=folder, extra_arguments=["--log-level=40"]
    )
    client.reset_execution_trackers()
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
        yield client.km.provisioner.pid


def shared(held):
    """MB that the processes of `held`, a list of Memory, share; counted once."""
    return sum(m.proportional - m.private for m in held)


def kernels(room, each, once=0.0):
    """How many kernels fit into `room` MB if each takes the mean of `each`, and all of them together `once` more."""
    return int((room - once) / statistics.mean(each))


def servers():
    """The private memory, in MB, of a JupyterLab server on which nothing is open: with a hub every student has one."""
    with harness.Lab(NOTEBOOKS) as one, harness.Lab(NOTEBOOKS) as other:
        return statistics.mean(memory(lab._server.pid).private for lab in (one, other))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="How much memory a notebook's kernel holds after Run All.")
    parser.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    paths = parser.parse_args(arguments).paths or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not Path("/proc/self/smaps_rollup").exists():
        sys.exit("shared memory is counted only by Linux: there is no /proc/self/smaps_rollup here")
    os.environ |= CLASSROOM
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(kernel_after_run_all(path)) for path in paths]
        held = [memory(pid) for pid in pids]
    print(f"memory of the kernels after Run All, in MB, all {len(held)} open (reach: at most {reach() / 1e6:.0f} resident)")
    print(f"  {'':28s}{'resident':>10s}{'peak':>10s}{'private':>10s}{'proportional':>14s}")
    for path, m in zip(paths, held, strict=True):
        note = "   above the reach" if m.resident > reach() / 1e6 else ""
        print(f"  {path.name:28s}{m.resident:10.0f}{m.peak:10.0f}{m.private:10.0f}{m.proportional:14.0f}{note}")
    room, once, server = MACHINE - SYSTEM, shared(held), servers()
    largest = max(held, key=lambda m: m.resident)
    print(f"  shared by all, counted once {once:.0f} MB; a JupyterLab server without kernels {server:.0f} MB of its own")
    print(f"kernels on a machine of 24 GiB, of which the system keeps {SYSTEM / 1024:.0f}")
    for name, some in (("of all notebooks alike", held), ("of the largest notebook", [largest])):
        by_resident = kernels(room, [m.resident for m in some])
        by_private = kernels(room, [m.private for m in some], once)
        with_server = kernels(room, [m.private + server for m in some], once)
        print(f"  {name:26s}{by_resident:4d} by resident memory, {by_private:4d} with shared pages counted once,")
        print(f"  {'':26s}{with_server:4d} students on a hub, each with a server and one kernel")


if __name__ == "__main__":
    main()
