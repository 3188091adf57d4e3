"""The plugin that holds each notebook's kernel to its reach notices one that holds more; the benchmark counts kernels rightly."""

import gc
import os
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ood_helpers.kernel import memory

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import bench_memory
import kernel_memory


@pytest.fixture
def notebooks(tmp_path):
    """Two notebooks: one holds 50 MB, the other 1100."""
    for name, megabytes in (("light", 50), ("heavy", 1100)):
        cells = [new_code_cell(f"held = b'x' * {megabytes}_000_000"), new_code_cell("len(held)")]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return tmp_path


def test_a_kernel_that_holds_too_much_fails_its_notebook(notebooks):
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name=python3", "-p", "kernel_memory", "-rA", "."]
    environment = {**os.environ, "PYTHONPATH": str(Path(kernel_memory.__file__).parent)}
    ran = subprocess.run(command, cwd=notebooks, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "heavy.ipynb: the kernel holds" in ran.stdout and "light.ipynb: the kernel holds" not in ran.stdout
    assert "1 error" in ran.stdout and "4 passed" in ran.stdout


@pytest.mark.parametrize("cuda, megabytes", [(None, 700), ("13.0", 1050)])
def test_a_build_for_cuda_may_hold_its_libraries_too(monkeypatch, cuda, megabytes):
    monkeypatch.setattr("torch.version.cuda", cuda)
    assert memory.reach() == megabytes * 1e6


def test_the_benchmark_sees_what_a_kernel_holds(notebooks, capsys):
    bench_memory.main([str(notebooks / "light.ipynb"), str(notebooks / "heavy.ipynb")])
    lines = capsys.readouterr().out.splitlines()
    resident = {line.split()[0]: float(line.split()[1]) for line in lines if ".ipynb" in line}
    assert 1040 < resident["heavy.ipynb"] - resident["light.ipynb"] < 1060
    assert any("above the reach" in line for line in lines if "heavy" in line)
    assert not any("above the reach" in line for line in lines if "light" in line)


def test_pages_that_kernels_share_are_counted_once():
    one = bench_memory.Memory(resident=400.0, peak=400.0, private=300.0, proportional=350.0)
    # two kernels share 100 MB: 2 * 350 = 2 * 300 + 100
    assert bench_memory.shared([one, one]) == 100
    assert bench_memory.kernels(1000.0, [400.0, 400.0]) == 2
    assert bench_memory.kernels(1000.0, [300.0, 300.0], once=100.0) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give memory back by themselves")
def test_memory_that_a_cell_frees_goes_back_to_the_system():
    hooks = {}
    memory.load_ipython_extension(types.SimpleNamespace(events=types.SimpleNamespace(register=hooks.setdefault)))
    blocks = [bytearray(b"x" * 100_000) for _ in range(3000)]
    kept = blocks[99::100]  # 3 of 300 MB, spread so that the rest cannot be cut off at the end
    del blocks
    gc.collect()
    before = psutil.Process().memory_info().rss
    hooks["post_run_cell"](None)
    assert before - psutil.Process().memory_info().rss > 250e6 and len(kept) == 30
