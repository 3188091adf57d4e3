"""The cache of trained networks: same result, right key, and no trouble from bad files or full disks."""

import functools
import io
import pickle
import subprocess
import sys
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


@pytest.mark.parametrize("damage", [b"", b"not a torch file", None, "cut", "flipped", "foreign"])
def test_a_damaged_or_foreign_file_is_trained_anew_with_a_warning(trainings, folder, damage):
    expected = run()
    (path,) = folder.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "flipped":  # in the middle, where a weight may stand
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "foreign":
        rewrite(path, key="another")
    elif damage is None:  # a file that would run code when unpickled
        path.write_bytes(cache._sealed(pickle.dumps(Bomb())))
    else:
        path.write_bytes(damage)
    with pytest.warns(UserWarning, match="cannot be used .* training again"):
        again = run()
    assert len(trainings) == 2 and torch.equal(expected[0], again[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    assert len(trainings) == 2


def rewrite(path, **changes):
    """Change entries of a stored run."""
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(cache._checked(path.read_bytes())), weights_only=True) | changes, buffer)
    path.write_bytes(cache._sealed(buffer.getvalue()))


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_a_file_with_other_shapes_does_not_leave_half_loaded_networks(folder):
    expected = run()
    (path,) = folder.iterdir()
    rewrite(path, states=[mlp(n_classes=3, width=8).state_dict(), mlp(width=9).state_dict()])
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


def test_what_cannot_be_kept_is_said_once(tmp_path, monkeypatch):
    (tmp_path / "wall").write_text("in the way")
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "wall" / "cache"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        first = run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(run()[0], first[0])


def test_without_a_home_folder_the_course_runs_without_a_cache(monkeypatch):
    monkeypatch.delenv("OOD_CACHE")
    monkeypatch.setattr("pathlib.Path.expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home directory")))
    with pytest.warns(UserWarning, match="no home folder; set OOD_CACHE"):
        run()


def test_an_interrupt_keeps_no_half_run(folder):
    def stop(step, loss):
        raise KeyboardInterrupt

    models = [mlp(width=8, n_classes=3)]
    with pytest.raises(KeyboardInterrupt):
        interrupted = functools.partial(real, callback=stop)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "train", interrupted)
            cache.cached_train(models, WORLD, LOSS, steps=5)
    assert not folder.exists() or not list(folder.iterdir())
    assert models[0](torch.zeros(1, 2)).isfinite().all()  # usable as it is
    run()
    assert len(list(folder.iterdir())) == 1


TWO_NOTEBOOKS = """
import functools, torch, warnings
from ood_helpers import cache, data, losses, models
warnings.simplefilter("error")
for _ in range(3):
    nets = [models.mlp(width=8, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    cache.cached_train(nets, data.TwoGaussians(), functools.partial(losses.confidence_loss, beta=1.0), steps=20)
print(sum(float(p.detach().double().sum()) for net in nets for p in net.parameters()))
"""


def test_two_notebooks_share_a_cache_at_once(folder):
    both = [subprocess.Popen([sys.executable, "-c", TWO_NOTEBOOKS], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert said[0] == said[1] != "" and [process.returncode for process in both] == [0, 0]
    assert [path.suffix for path in folder.iterdir()] == [".pt"]


def test_what_has_no_lasting_description_is_refused():
    for bad in [lambda a, y, b: a.sum((1, 2)), functools.partial(LOSS.func, beta=object())]:
        with pytest.raises(ValueError, match="only this package's worlds and losses"):
            run(loss=bad)
    with pytest.raises(ValueError, match="call train"):
        run(callback=print)
