"""The cache of trained networks: same result, right key, and no trouble from bad files or full disks."""

import functools
import pickle
import warnings

import pytest
import torch

from ood_helpers import cache
from ood_helpers.data import TwoGaussians
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import mlp

WORLD = TwoGaussians()
LOSS = functools.partial(confidence_loss, beta=1.0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trainings(monkeypatch):
    """Counts the real trainings."""
    count = []
    monkeypatch.setattr(cache, "train", lambda *args, **kw: count.append(1) or real(*args, **kw))
    return count


real = cache.train


def run(world=WORLD, loss=LOSS, ood=None, seed=0, width=8, **settings):
    models = [mlp(width=width, n_classes=3, generator=torch.Generator().manual_seed(s + seed)) for s in range(2)]
    history = cache.cached_train(models, world, loss, ood, **{"steps": 5} | settings)
    return torch.cat([p.detach().flatten() for m in models for p in m.parameters()]), history.loss


def test_the_second_run_is_loaded_and_equal(trainings, folder):
    first, second = run(), run()
    assert len(trainings) == 1 and len(list(folder.iterdir())) == 1
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize(
    "change",
    [
        {"world": TwoGaussians(std=2.0)},
        {"loss": functools.partial(confidence_loss, beta=2.0)},
        {"loss": functools.partial(confidence_loss, beta=torch.tensor([1.0, 2.0]))},
        {"loss": reject_loss},
        {"ood": WORLD.box},
        {"ood": functools.partial(WORLD.box, half_width=60.0)},
        {"ood": TwoGaussians(std=2.0).boundary},
        {"seed": 1},
        {"width": 9},
        {"steps": 6},
        {"lr": 2e-3},
        {"batch": 32},
        {"cosine": True},
    ],
)
def test_every_input_that_matters_is_part_of_the_key(trainings, change):
    run()
    run(**change)
    assert len(trainings) == 2


@pytest.mark.parametrize("damage", [b"", b"not a torch file", None, "cut", "foreign"])
def test_a_damaged_or_foreign_file_is_trained_anew_with_a_warning(trainings, folder, damage):
    expected = run()
    (path,) = folder.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "foreign":
        saved = torch.load(path, weights_only=True)
        torch.save(saved | {"key": "another"}, path)
    elif damage is None:  # a file that would run code when unpickled
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        path.write_bytes(damage)
    with pytest.warns(UserWarning, match="cannot be used .* training again"):
        again = run()
    assert len(trainings) == 2 and torch.equal(expected[0], again[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    assert len(trainings) == 2


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_a_file_with_other_shapes_does_not_leave_half_loaded_networks(folder):
    expected = run()
    (path,) = folder.iterdir()
    saved = torch.load(path, weights_only=True)
    saved["states"][1] = mlp(width=9).state_dict()
    torch.save(saved, path)
    with pytest.warns(UserWarning, match="training again"):
        assert torch.equal(run()[0], expected[0])


def test_a_folder_that_cannot_be_written_only_costs_the_saving(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        run()


def test_a_full_disk_leaves_no_partial_file(folder, monkeypatch):
    def full(path, data):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.warns(UserWarning, match="No space left"):
        run()
    assert not list(folder.iterdir())


def test_what_has_no_lasting_description_is_refused():
    for bad in [lambda a, y, b: a.sum((1, 2)), functools.partial(LOSS.func, beta=object())]:
        with pytest.raises(ValueError, match="only this package's worlds and losses"):
            run(loss=bad)
    with pytest.raises(ValueError, match="call train"):
        run(callback=print)
