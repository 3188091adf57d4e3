"""What may go wrong in a class: interrupts at any moment, cells out of order. `make order` tries it with every notebook."""

import functools
import sys
from pathlib import Path

import check_order
import nbformat
import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook

import ood_helpers
from ood_helpers import cache, gan, models, polytopes
from ood_helpers.data import TwoGaussians
from ood_helpers.lab import experiment
from ood_helpers.losses import confidence_loss
from ood_helpers.training import train

WORLD, SMALL = TwoGaussians(), TwoGaussians(std=0.1, separation=0.7)
LOSS = functools.partial(confidence_loss, beta=1.0)


# --- interrupts -----------------------------------------------------------------------------------------------------------------


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def networks(width=8):
    return [models.mlp(width=width, generator=seeded(s)) for s in range(2)]


def triple():
    return [gan.generator(5, 8, generator=seeded(1)), gan.discriminator(2, 8, generator=seeded(2)), networks()[0]]


def weights(nets):
    return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])


def training():
    train(nets := networks(), WORLD, LOSS, steps=4, batch=8)
    return weights(nets).numpy()


def cached_training():
    cache.cached_train(nets := networks(), WORLD, LOSS, steps=4, batch=8)
    return weights(nets).numpy()


def game():
    nets = triple()
    history = gan.train_gan(*nets, SMALL, steps=3, batch=8, snapshots=(0, 2), samples=5)
    return np.concatenate([weights(nets).numpy(), history.snapshots[2].numpy().ravel()])


def geometry():
    net = networks()[0]
    return np.concatenate([polytopes.plane(net).slopes.ravel(), polytopes.infinity(net).slopes.ravel()])


def an_experiment():
    setting = experiment.Setting("reject", width=8, steps=3, exact=True)
    return np.array([list(row.values())[2:] for row in experiment.run(setting, [0, 1])], dtype=float)


class Interrupt:
    """Ctrl-C at the entry of the `at`-th function of the package that is called: one of the places where Python looks for it.

    Not of a generator expression: it is entered once more when it is thrown away, and there Python drops any exception.
    """

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, frame, event, arg):
        code = frame.f_code
        of_package = Path(code.co_filename).is_relative_to(Path(ood_helpers.__file__).parent)
        if event == "call" and of_package and code.co_name != "<genexpr>":
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt

    def watch(self, work):
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return work()
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("work", [training, cached_training, game, geometry, an_experiment])
def test_after_an_interrupt_anywhere_the_same_cell_gives_the_right_result(work, tmp_path, monkeypatch):
    def folder(name):
        monkeypatch.setenv("OOD_CACHE", str(tmp_path / name))
        return tmp_path / name

    folder("warm")
    work()  # what is read once a process, such as the code that a cached run depends on, is not read again
    folder("whole")
    counter = Interrupt(None)
    right = counter.watch(work)
    for at in np.linspace(1, 0.98 * counter.calls, 8).astype(int):  # at the very end it is too late
        here = folder(str(at))
        with pytest.raises(KeyboardInterrupt):
            Interrupt(at).watch(work)
        assert torch.is_grad_enabled() and all(path.suffix == ".pt" for path in here.glob("*"))
        np.testing.assert_array_equal(work(), right)


class Stop:
    """A callback that interrupts after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step, losses):
        if step + 1 == self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("steps", [1, 5, 64, 65])  # points are drawn for 64 steps at once
def test_an_interrupted_training_leaves_networks_of_their_own(steps):
    stopped, whole, game, whole_game = networks(), networks(), triple(), triple()
    for nets, run in [
        (stopped, lambda: train(stopped, WORLD, LOSS, steps=99, batch=8, callback=Stop(steps))),
        (game, lambda: gan.train_gan(*game, SMALL, steps=99, batch=8, callback=Stop(steps))),
    ]:
        with pytest.raises(KeyboardInterrupt):
            run()
        for parameter in (p for net in nets for p in net.parameters()):
            assert parameter.is_contiguous() and parameter.untyped_storage().nbytes() == parameter.nbytes
        assert torch.tensor(1e-40) * 1 > 0  # the processor takes small numbers as they are again
    train(whole, WORLD, LOSS, steps=steps, batch=8)
    gan.train_gan(*whole_game, SMALL, steps=steps, batch=8)
    assert torch.equal(weights(stopped), weights(whole)) and torch.equal(weights(game), weights(whole_game))


def test_an_interrupt_while_a_run_is_kept_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    whole = Path.write_bytes

    def stop(path, data):
        whole(path, data[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Path, "write_bytes", stop)
        cached_training()
    assert not list(tmp_path.iterdir())
    right = cached_training()
    np.testing.assert_array_equal(cached_training(), right)  # now from the file


SETUP = """
import functools, time, torch
from ood_helpers import cache, data, losses, models

def slowly(step, losses):
    if step == 10:
        print("on its way", flush=True)
    time.sleep(0.05)

real = cache.train
cache.train = functools.partial(real, callback=slowly)
"""
CELL = """
nets = [models.mlp(width=8, generator=torch.Generator().manual_seed(s)) for s in range(2)]
cache.cached_train(nets, data.TwoGaussians(), functools.partial(losses.confidence_loss, beta=1.0), steps=300)
print(torch.cat([p.detach().flatten() for net in nets for p in net.parameters()]).numpy().tobytes().hex())
"""


def test_a_long_cell_is_interrupted_and_run_again(tmp_path, monkeypatch):
    """With a real kernel, and the interrupt that JupyterLab's stop button sends."""
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(SETUP, timeout=300)

        def stop(message):
            if message["content"].get("text", "").startswith("on its way"):
                manager.interrupt_kernel()

        reply = client.execute_interactive(CELL, timeout=300, output_hook=stop)["content"]
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt") and not list(tmp_path.iterdir())
        client.execute_interactive("cache.train = real", timeout=300)
        said = []
        client.execute_interactive(CELL, timeout=300, output_hook=lambda message: said.append(message["content"].get("text", "")))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    train(nets := networks(), WORLD, LOSS, steps=300)
    assert "".join(said).split()[-1] == weights(nets).numpy().tobytes().hex()
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]


# --- cells in any order ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def lesson(tmp_path):
    """A function that writes cells to a notebook and returns its path."""

    def write(*sources):
        path = tmp_path / "lesson.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
        return path

    return write


def test_cells_out_of_order_say_what_to_run_first(lesson):
    path = lesson(
        "import math\nworld = [1, 2]",
        "# how many\nsize = len(world)\nprint(size)",
        "def show():\n    print(size, math.pi)",
        "show()",
        "size = 7\nshow()",
        "size = size + 1",
        "unknown",
        "%%html\n<b>size</b>",
        "size = ",
    )
    with check_order.Kernel(path, "unused") as kernel:
        say = functools.partial(said, kernel)
        assert "`world` is not defined yet" in say(1) and "begins with `world" not in say(2)
        assert "The cell that begins with `import math` defines it. Run the cells above first" in say(1)
        assert "`show` is not defined yet" not in say(2) + say(5)
        assert "`size` is not defined yet" in say(3) and "begins with `size = len(world)`" in say(3)
        assert [say(n) for n in range(5)] == ["", "2\n", "", "2 3.141592653589793\n", "7 3.141592653589793\n"]
        assert "`size` is not what the cells above make it" in say(3)  # cell 4 has changed it since, and show() reads it
        assert [say(n) for n in (1, 3)] == ["2\n", "2 3.141592653589793\n"]
        assert "`size` is not what" in say(5)  # cell 4 was left out
        say(4)
        assert say(5) == "" and "`size` is not what" in say(5)  # twice
        assert say(6) == ""  # no cell makes it: a slip of the pen, which Python's own message tells
        assert say(7) + say(8) == ""
        kernel.notebook.cells.append(new_code_cell("size = 9"))  # the reader adds a cell, and the file is not yet saved
        assert say(9) == "" and say(3) == "9 3.141592653589793\n"


def said(kernel, number):
    """What a cell prints and is told, without tracebacks."""
    kernel.run(number)
    outputs = kernel.notebook.cells[number].outputs
    return "".join(o.get("text") or o.data.get("text/markdown", "") for o in outputs if o.output_type != "error")


def test_wrong_results_of_any_order_are_found(lesson, tmp_path):
    path = lesson("world = [1, 2]", "world.append(3)\nprint(world)", "import random\nprint(random.random())", "1 / 0")
    problems = list(check_order.check(path, tmp_path / "cache"))
    assert [problem.split("'")[0].strip("( ") for problem in problems] == [
        "again: cell 2",
        "double: cell 2",
        "twice: cell 3",
        "again: cell 3",
        "double: cell 3",
        "in order: cell 4",
        "alone: cell 4",
    ]
