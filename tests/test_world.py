"""A world of one's own: what is painted is trained on, survives, and is kept in a file; what cannot be is told in a sentence."""

import json

import pytest
import torch

from ood_helpers import widgets
from ood_helpers.widgets import world

WALL = ([[-8.0, 0], [8, 0], [0, 12]], [0, 1, -1])


def painted(made, *points):
    made.painting.painted = [list(point) for point in points]
    return made.sentence


@pytest.mark.parametrize(
    "kind, says", [("plain", "sees no OOD"), ("confident", "β = 1"), ("reject", "reject"), ("closed", "proved")]
)
def test_every_kind_learns_what_is_painted_and_says_so(kind, says):
    made = widgets.World(WALL, kind=kind, width=16, first=400)
    assert "400 steps: 100% of the painted points right" in made.sentence and says in made.sentence
    assert made.painting.network is made._drawn and made.world.n_classes == 2 and len(made.world.out) == 1
    assert torch.equal(made._drawn(made.world.x).argmax(1), made.world.y)
    before = made.painting.weights
    made.step(5)
    assert made.steps == 405 and made.painting.weights != before


@pytest.mark.parametrize("name", world._PRESETS)
def test_presets_can_be_trained_and_begin_a_new_network(name):
    made = widgets.World(width=8, first=3)
    made.preset(name)
    made.step(2)
    assert made.steps == 2 and made.error is None and made.world.n_classes == max(world._PRESETS[name][1]) + 1


@pytest.mark.parametrize(
    "points, says",
    [
        ([], "Nothing is painted yet"),
        ([(0, 0, -1)], "OOD points only"),
        ([(0, 0, 0)], "One class leaves nothing"),
        ([(0, 0, 0)] * 4, "One class leaves nothing"),
        ([(0, 0, 0), (1, 1, 2)], "Class 1 has no point"),
        ([(0, 0, 3)], "Class 0 has no point"),
    ],
)
def test_what_cannot_be_trained_on_is_told_and_nothing_is_lost(points, says):
    made = widgets.World(width=8, first=3)
    assert says in painted(made, *points) and made.painting.network is None
    made.step(3)
    assert says in made.sentence and made.error is None and len(made.painting.painted) == len(points)
    with pytest.raises(ValueError, match=says):
        _ = made.world
    painted(made, (-9.0, 0, 0), (9.0, 0, 1))
    made.step(3)
    assert "3 steps" in made.sentence and made.painting.network is made._drawn


def test_one_class_is_enough_for_reject_and_two_in_one_place_are_named():
    made = widgets.World(kind="reject", width=8)
    painted(made, (0, 0, 0))
    made.step(3)
    assert made.steps == 3 and made.error is None
    assert "stand in one place" in painted(made, (0, 0, 0), (0, 0, 1))


def test_points_may_change_while_it_trains_and_a_new_class_is_a_new_network():
    made = widgets.World(WALL, width=8, first=10)
    network = made.network
    painted(made, *made.painting.painted, (3.0, 3.0, 1))
    made.step(5)
    assert made.network is network and made.steps == 15
    painted(made, *made.painting.painted, (0.0, -9.0, 2))
    made.step(5)
    assert made.network is not network and made.steps == 5 and made.network[-1].out_features == 3
    made.controls["width"].value = 16
    made.reset()
    assert made.steps == 0 and made.network[0].out_features == 16


def test_beta_counts_where_there_is_doubt_to_weigh():
    made = widgets.World(WALL, kind="plain", width=8)
    assert made.controls["beta"].disabled
    made.controls["kind"].value = "confident"
    assert not made.controls["beta"].disabled and "β = 1" in made.sentence
    made.controls["beta"].value = 10.0
    assert "β = 10" in made.sentence


def test_a_file_keeps_the_world(tmp_path):
    made = widgets.World(WALL, width=8, std=2.0, file=str(tmp_path / "mine"))
    made._save("Save")
    assert "Saved" in made.sentence and [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    saved = made.painting.painted
    painted(made)
    made.painting.std = 1.0
    made._load("Load")
    assert made.painting.painted == saved and made.painting.std == 2.0 and "Loaded" in made.sentence
    again = widgets.World(tmp_path / "mine.json", width=8)
    assert again.painting.painted == saved and again.world.std == 2.0


GOOD = {"format": world._FORMAT, "std": 1.0, "points": [[0, 0, 0], [1, 2.5, -1]]}


@pytest.mark.parametrize(
    "content, says",
    [
        ("", "not JSON"),
        ("[1, 2", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must say"),
        (json.dumps(GOOD | {"format": "another"}), "must say"),
        (json.dumps(GOOD | {"std": 0}), "std must be"),
        (json.dumps(GOOD | {"std": True}), "std must be"),
        (json.dumps(GOOD | {"points": {}}), "must be a list"),
        (json.dumps(GOOD | {"points": [[0, 0, 0], [0, 0]]}), "point 2 must be"),
        (json.dumps(GOOD | {"points": [[0, 0, 4]]}), "class be 0 to 3"),
        (json.dumps(GOOD | {"points": [[0, 0, 0.5]]}), "class be 0 to 3"),
        (json.dumps(GOOD | {"points": [[0, "1", 0]]}), "three numbers"),
        (json.dumps(GOOD | {"points": [[0, float("nan"), 0]]}), "three numbers"),
        (json.dumps(GOOD | {"points": [[0, 2e6, 0]]}), "within"),
    ],
)
def test_a_bad_file_is_named_and_what_is_painted_stays(tmp_path, content, says):
    path = tmp_path / "bad.json"
    path.write_bytes(content.encode("latin-1"))
    made = widgets.World(WALL, width=8, first=3, file=str(path))
    before = made.painting.painted
    made._load("Load")
    assert says in made.sentence and "stays as it is" in made.sentence and made.painting.painted == before and made.steps == 3
    made._save("Save")  # over something else: refused
    assert "nothing is written over it" in made.sentence and path.read_bytes() == content.encode("latin-1")
    with pytest.raises(ValueError, match=says):
        widgets.World(path)


@pytest.mark.parametrize("name", ["", "  ", "nowhere.json", "."])
def test_a_file_that_is_none_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    made = widgets.World(WALL, width=8, file=name)
    made._load("Load")
    assert "stays as it is" in made.sentence and list(tmp_path.iterdir()) == []


def test_a_good_file_is_read(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(GOOD))
    assert world.read(tmp_path / "w.json") == ([[0.0, 0.0, 0], [1.0, 2.5, -1]], 1.0)


@pytest.mark.parametrize(
    "bad", [{"kind": "best"}, {"width": 3}, {"std": -1.0}, {"points": ([[0, 0]], [7])}, {"points": ([[0]], [0])}]
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError):
        widgets.World(**{"points": WALL} | bad)
