"""The rehearsal before a class: demos are moved, and what fails is said."""

import gc
import sys
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ood_helpers import checks, data, models, plotting, widgets

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import check_class


@pytest.fixture(autouse=True)
def no_other_demos():
    """Widgets live until they are closed, and their demos with them."""
    ipywidgets.Widget.close_all()
    gc.collect()


def make(log, bad=None):
    """A demo of two controls that keeps a log of what it was asked to draw, and fails where the width is `bad`."""

    def update(width, kind):
        log.append((width, kind))
        if width == bad:
            raise RuntimeError("too wide")
        return f"{width} {kind}"

    controls = {
        "width": widgets.slider("width", [1, 2, 3], 1, ""),
        "kind": widgets.choice("kind", [("A", "a"), ("B", "b")], "a", ""),
    }
    return widgets.Demo(plotting.figure(width=3, height=2)[0], update, controls)


def test_a_rehearsal_moves_every_control_and_leaves_the_demo_as_it_was(capsys):
    log = []
    demo = make(log)
    assert checks.demos(seconds=5)
    assert set(log) == {(1, "a"), (2, "a"), (3, "a"), (1, "b")}
    assert demo.values == {"width": 1, "kind": "a"} and demo.sentence == "1 a"
    assert "✓ demo 1: 5 moves" in capsys.readouterr().out


def test_a_rehearsal_names_the_error_and_ends_in_time(capsys):
    demo = make([], bad=2)
    assert not checks.demos(seconds=5)
    assert "✗ demo 1: RuntimeError: too wide" in capsys.readouterr().out
    assert demo.values["width"] == 1 and demo.error is None
    demo.update = lambda **values: "fine"
    assert checks.demos(seconds=0)
    assert "1 moves" in capsys.readouterr().out


def test_a_rehearsal_steps_a_training_and_begins_it_anew():
    live = widgets.Live(
        plotting.figure(width=3, height=2)[0], lambda: iter(range(50)), lambda steps: f"{steps} steps", stop=20, first=5
    )
    assert checks.demos(seconds=5)
    assert live.sentence == "5 steps"


def test_what_is_closed_or_was_refused_is_not_moved(capsys):
    closed = make([], bad=2)
    closed.close()
    with pytest.raises(ValueError) as kept:  # with its traceback, and so with what was refused
        widgets.LivingMap({1: models.mlp(width=2)}, {"width": widgets.slider("width", [1, 2], 1, "")})
    with pytest.raises(TypeError) as also:
        widgets.Demo(plotting.figure(width=3, height=2)[0], 3, {})
    assert kept and also and checks.demos(seconds=5) and "demo" not in capsys.readouterr().out


CELL = """
from ood_helpers import plotting, widgets
widgets.Demo(plotting.figure(width=3, height=2)[0], lambda n: str(1 / n), {{"n": widgets.slider("n", [1, {last}], 1, "")}})
"""


@pytest.mark.parametrize(
    "source, code, says",
    [
        (CELL.format(last=2), 0, "✓ Ready for the class."),
        (CELL.format(last=0), 1, "✗ lesson.ipynb: ✗ demo 1: ZeroDivisionError"),
        ("1 / 0", 1, "✗ lesson.ipynb: cell 1 ('1 / 0') raised ZeroDivisionError"),
    ],
)
def test_every_notebook_is_run_and_its_demos_moved(tmp_path, capsys, source, code, says):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    before = path.read_bytes()
    assert check_class.main([str(path), "--seconds", "1"]) == code
    assert says in capsys.readouterr().out and path.read_bytes() == before


def test_too_little_disk_or_memory_is_said(monkeypatch):
    assert list(check_class.machine()) == []
    monkeypatch.setattr(check_class, "DISK", 1e18)
    monkeypatch.setattr(check_class, "SYSTEM", 1e18)
    disk, memory = check_class.machine()
    assert "GB of disk are free" in disk and "close other programs" in memory


def test_a_living_map_goes_through_its_positions_and_says_what_fails(capsys):
    said = []

    def sentence(width):
        said.append(width)
        if width == 3:
            raise RuntimeError("three")
        return f"width {width}"

    networks = {width: models.mlp(width=width) for width in (2, 4)}
    world = data.TwoGaussians()
    living = widgets.LivingMap(networks, {"width": widgets.slider("width", [2, 4], 2, "")}, world=world, sentence=sentence)
    assert checks.demos(seconds=5)
    assert "2 moves" in capsys.readouterr().out and set(said) == {2, 4} and living.values == {"width": 2}
    networks[3] = networks[2]
    broken = widgets.LivingMap(networks, {"width": widgets.slider("width", [2, 3], 2, "")}, world=world, sentence=sentence)
    assert not checks.demos(seconds=5)
    assert "This setting failed: RuntimeError: three" in capsys.readouterr().out and broken.values == {"width": 2}
