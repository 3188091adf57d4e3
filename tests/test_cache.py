"""The cache of trained networks: same result, right key, and no trouble from bad files or full disks."""

import dataclasses
import functools
import io
import itertools
import pickle
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ood_helpers import cache, data, gan, other_losses
from ood_helpers.data import TwoGaussians
from ood_helpers.horizon import far_field_loss, silent_horizon_loss
from ood_helpers.images import Digits
from ood_helpers.lab.samples import Pools
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import closed_mlp, mlp, mlps
from ood_helpers.other_losses import acet_penalty, ceda_loss
from ood_helpers.worlds import Rings

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


def test_snapshots_are_those_of_shorter_runs_and_are_kept(trainings, folder):
    def numbers(networks):
        return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])

    models = mlps(range(2), width=8)
    first, second = (cache.cached_snapshots(models, WORLD, LOSS, [1, 7, 4], seed=[3, 4]) for _ in range(2))
    assert len(trainings) == 1 and list(first) == [1, 7, 4] and torch.equal(numbers(models), numbers(mlps(range(2), width=8)))
    for steps, networks in first.items():
        shorter = mlps(range(2), width=8)
        real(shorter, WORLD, LOSS, steps=steps, seed=[3, 4])
        assert torch.equal(numbers(networks), numbers(second[steps]))
        torch.testing.assert_close(numbers(networks), numbers(shorter))
    cache.cached_snapshots(models, WORLD, LOSS, [1, 7], seed=[3, 4])
    assert len(trainings) == 2, "other moments are another run"


@pytest.mark.parametrize("moments", [[], [0, 5], [5, 5], [2.5], ["3"]])
def test_moments_are_different_whole_numbers(moments):
    with pytest.raises(ValueError, match="moments must be"):
        cache.cached_snapshots(mlps(range(2), width=8), WORLD, LOSS, moments)


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
        {"penalty": far_field_loss},
        {"world": Rings(), "ood": WORLD.boundary},
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
    said = [process.communicate(timeout=600)[0] for process in both]
    assert said[0] == said[1] != "" and [process.returncode for process in both] == [0, 0]
    assert [path.suffix for path in folder.iterdir()] == [".pt"]


def test_what_has_no_lasting_description_is_refused():
    for bad in [lambda a, y, b: a.sum((1, 2)), functools.partial(LOSS.func, beta=object())]:
        with pytest.raises(ValueError, match="only this package's worlds and losses"):
            run(loss=bad)
    for wrong in ({"callback": print}, {"stpes": 5}):
        with pytest.raises(TypeError, match=f"cached_train.* unexpected keyword argument '{next(iter(wrong))}'"):
            run(**wrong)


# ---- the key: code ----


def key(models=None, world=WORLD, loss=LOSS, ood=None, **settings):
    models = mlp(width=4, generator=torch.Generator().manual_seed(0)) if models is None else models
    return cache._key(models, world, loss, ood, settings)


POOLS = Pools({0: (torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.ones(3, 2))})
TRAINING = {f"ood_helpers.{name}" for name in ("arrays", "cache", "data", "files", "models", "training")}
RUNS = {  # what is trained: modules that it meets besides these, and some that it does not
    "plain": ({}, {"losses"}, {"horizon", "images", "gan", "polytopes", "lab.samples", "plotting", "widgets.demo", "checks.gan"}),
    "a penalty": ({"penalty": silent_horizon_loss}, {"losses", "horizon"}, {"images", "polytopes.plane", "plotting"}),
    "a penalty in a partial": ({"penalty": functools.partial(silent_horizon_loss, margin=0.2)}, {"losses", "horizon"}, {"gan"}),
    "images": ({"world": Digits()}, {"losses", "images"}, {"horizon", "plotting"}),
    "pools": (
        {"world": POOLS, "ood": POOLS.ood},
        {"losses", "lab.samples", "samplers", "horizon", "polytopes", "polytopes.measures", "lab.experiment"},
        {"plotting", "lab.claims", "lab.gans", "widgets.live", "images", "checks.answers"},
    ),
}


@pytest.mark.parametrize("run_of", RUNS)
def test_the_source_of_every_module_met_is_in_the_key_and_no_other(run_of, monkeypatch):
    how, met, foreign = RUNS[run_of]
    source, before = cache._source, key(**how)

    def after_an_edit(edited):
        monkeypatch.setattr(cache, "_source", lambda name: source(name) + b"# edited" * (name == edited))
        return key(**how)

    for name in TRAINING | {f"ood_helpers.{name}" for name in met}:
        assert after_an_edit(name) != before, name
    for name in foreign:
        source(f"ood_helpers.{name}")  # there is such a module
        assert after_an_edit(f"ood_helpers.{name}") == before, name


IMPORTS = """
import os, ood_helpers.data as world
from ood_helpers import losses, nothing
from ood_helpers.polytopes import infinity, plane as picture
from . import samples
from ..files import write_whole
from .stored import *
import ood_helpers_of_another, torch.nn
def late():
    from ood_helpers.gan import sample
"""


def test_imports_of_every_form_are_followed():
    found = cache._imports("ood_helpers.lab.experiment", IMPORTS.encode())
    names = "data losses polytopes.infinity polytopes.plane lab.samples files lab.stored gan".split()
    assert found == {"ood_helpers", *(f"ood_helpers.{name}" for name in names)}  # the package itself: it might hold `nothing`
    assert cache._imports("ood_helpers.lab", b"from . import samples") == {"ood_helpers.lab.samples"}


EDITED = """
import functools, torch
from pathlib import Path
from ood_helpers import cache, data, lab, losses, models
loss = functools.partial(losses.confidence_loss, beta=1.0)
pools = lab.samples.Pools({0: (torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.ones(3, 2))})
model = models.mlp(width=4, generator=torch.Generator().manual_seed(0))
for edited in [None, "plotting.py", "widgets/demo.py", "lab/samples.py", "samplers.py"]:
    if edited:
        path = Path(cache.__file__).parent / edited
        path.write_text(path.read_text() + "# edited")
    print(cache._key(model, pools, loss, pools.ood, {}), cache._key(model, data.TwoGaussians(), loss, None, {}))
"""


def test_an_edit_of_the_package_changes_the_keys_that_it_may_change(tmp_path):
    package = Path(cache.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    run = subprocess.run([sys.executable, "-c", EDITED], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, stdout=-1, text=True)
    (of_pools, of_a_world) = zip(*(line.split() for line in run.stdout.splitlines()), strict=True)
    assert of_pools[0] == of_pools[1] == of_pools[2] and len(set(of_pools)) == 3
    assert len(set(of_a_world)) == 1


@pytest.mark.parametrize("library", [torch, np])
def test_another_version_of_a_library_is_another_run(monkeypatch, library):
    before = key()
    monkeypatch.setattr(library, "__version__", "9.9.9")
    assert key() != before


def test_another_default_type_is_another_run():
    before = key()
    torch.set_default_dtype(torch.float64)  # worlds give other points
    try:
        assert key(mlp(width=4, generator=torch.Generator().manual_seed(0)).float()) != before
    finally:
        torch.set_default_dtype(torch.float32)


# ---- the key: values ----


def described(value):
    return repr(cache._describe(value, set()))


VALUES = [
    None, 0, False, 0.0, -0.0, "0", b"0", 0j, 1, True, 1.0, np.nextafter(1, 2), np.float32(1), np.float64(1), np.int64(1),
    np.True_, float("nan"), float("inf"), [], (), {}, [[]], [1], (1,),
    {1: 1}, {1.0: 1}, {"1": 1}, [1, 2], [2, 1], range(2), [0, 1],
    np.ones(1), np.ones(1, np.float32), np.ones((1, 1)), torch.ones(1), torch.ones(1).double(), torch.ones(1, 1), torch.ones(()),
    torch.ones(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool), torch.zeros(1), -torch.zeros(1), torch.ones(1).bfloat16(),
    torch.ones(1).half(), torch.empty(0), torch.empty(0, 2), torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(3, 2).T,
    confidence_loss, ceda_loss, functools.partial(confidence_loss), functools.partial(confidence_loss, beta=1),
    functools.partial(confidence_loss, beta=1.0), functools.partial(confidence_loss, beta=torch.tensor(1.0)),
    functools.partial(functools.partial(confidence_loss), 1), TwoGaussians(), TwoGaussians(dim=3), Rings(), WORLD.box,
    WORLD.boundary, TwoGaussians(std=2.0).box, TwoGaussians.box,
]  # fmt: skip


def test_values_that_differ_are_described_apart():
    for (i, a), (j, b) in itertools.product(enumerate(VALUES), repeat=2):
        assert (described(a) == described(b)) == (i == j), (a, b)


def test_equal_values_are_described_alike_however_they_came_to_be():
    grown = torch.arange(12.0).reshape(3, 4)
    assert described(grown.T[1:]) == described(grown.T[1:].contiguous())
    assert described(grown.requires_grad_()) == described(grown.detach())
    assert described(torch.tensor([1 + 2j]).conj().imag) == described(torch.tensor([-2.0]))
    swapped = [
        functools.partial(other_losses.energy_loss, m_in=-5.0, m_out=-1.0),
        functools.partial(other_losses.energy_loss, m_out=-1.0, m_in=-5.0),
    ]
    assert described(swapped[0]) == described(swapped[1])
    assert key(steps=5, lr=1e-3) == key(lr=1e-3, steps=5)
    shared = torch.ones(3)
    assert described([shared, shared]) == described([torch.ones(3), torch.ones(3)])


@functools.wraps(confidence_loss)
def disguised(*args, **kwargs):
    return 2 * confidence_loss(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Disguised(TwoGaussians):
    """A subclass that says it is its base."""

    def boundary(self, n, *, generator, inner=1.0, outer=9.0):
        return super().boundary(n, generator=generator, inner=inner, outer=outer)


Disguised.__module__, Disguised.__qualname__, Disguised.__name__ = TwoGaussians.__module__, "TwoGaussians", "TwoGaussians"


class Number(float):
    """A number with a behaviour of its own."""


@pytest.mark.parametrize(
    "value",
    [
        disguised, Disguised(), Disguised().boundary, Number(1), lambda: 0, print, len, object(), {1, 2}, torch.Generator(),
        nn.ReLU(), types.MethodType(lambda self, n, *, generator: None, WORLD), types.MethodType(print, WORLD),
        acet_penalty(WORLD.boundary, 1.0, generator=torch.Generator()), torch.ones(2).to_sparse(), torch.ones(2, device="meta"),
        np.array([object()]), dataclasses.make_dataclass("Own", ["x"])(1), functools.partial(gan.sample, mlp(width=2)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_the_key_could_not_tell_apart_is_refused(value):
    for how in ({"world": value}, {"loss": value}, {"ood": value}, {"penalty": value}, {"lr": [value]}):
        with pytest.raises(ValueError, match="only this package's worlds and losses"):
            key(**how)


def test_what_a_notebook_changes_in_the_package_is_seen_or_refused(monkeypatch):
    before, plain = key(), key(loss=other_losses.energy_loss)
    with monkeypatch.context() as patch:
        patch.setattr(other_losses.energy_loss, "__defaults__", (-5.0, -1.0, 0.2))
        assert key(loss=other_losses.energy_loss) != plain
    for name in ("sample", "boundary"):
        with monkeypatch.context() as patch:
            patch.setattr(data.TwoGaussians, name, lambda self, n, *, generator: None)
            with pytest.raises(ValueError, match="only this package's worlds"):
                key()
    world = TwoGaussians()
    object.__setattr__(world, "boundary", disguised)
    with pytest.raises(ValueError, match="only this package's worlds"):
        key(world=world)
    assert key() == before


# ---- the key: networks ----


def variants():
    """Networks that print alike or nearly so, and yet are trained to other numbers."""

    def fresh(activation=None):
        model = mlp(width=4, generator=torch.Generator().manual_seed(0))
        model[1] = activation or model[1]
        return model

    frozen, one_bias, last = fresh(), fresh(), fresh()
    frozen[0].requires_grad_(False)
    one_bias[0].bias.requires_grad_(False)
    with torch.no_grad():
        last[4].bias[1] += 1e-7
    yield from (fresh(), frozen, one_bias, last, fresh().double(), [fresh()], [fresh(), frozen], [frozen, fresh()])
    yield from map(fresh, (nn.Tanh(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.1 + 1e-12), nn.GELU(), nn.GELU("tanh"), nn.Softplus(2.0)))
    yield from (
        mlp(width=5, generator=torch.Generator().manual_seed(0)),
        mlp(width=4, generator=torch.Generator().manual_seed(1)),
    )


def test_networks_that_train_apart_have_keys_of_their_own():
    keys = [key(models) for models in variants()]
    assert len(set(keys)) == len(keys) and keys == [key(models) for models in variants()]


class ReLU(nn.ReLU):
    """It prints as torch's own."""

    def forward(self, h):
        return super().forward(h - 1)


def test_activations_whose_code_is_not_in_the_key_are_refused():
    for activation in (ReLU(), nn.Sequential(nn.ReLU(), ReLU())):
        model = mlp(width=4)
        model[1] = activation
        with pytest.raises(ValueError, match=r"only activations of torch\.nn"):
            cache.cached_train(model, WORLD, LOSS, steps=2)
    model[1] = nn.ReLU()
    model[1].forward = lambda h: h - 1
    with pytest.raises(ValueError, match="call train"):
        cache.cached_train(model, WORLD, LOSS, steps=2)


def test_a_network_that_training_refuses_is_not_filled_from_the_cache(folder):
    """A pruned or tied one may have the numbers of one that was trained."""

    def network():
        model = mlp(width=4, depth=3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            model[4].weight.copy_(model[2].weight)
        return model

    cache.cached_train(network(), WORLD, LOSS, steps=2)
    tied = network()
    tied[4].weight = tied[2].weight
    hooked = network()
    hooked[2].register_forward_hook(lambda module, x, y: 2 * y)
    for model, says in [(tied, "network 0, layer 4 .* shares its numbers"), (hooked, "network 0, layer 2 .* has hooks")]:
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(ValueError, match=says):
            cache.cached_train(model, WORLD, LOSS, steps=2)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert len(list(folder.iterdir())) == 1


def test_a_loaded_run_is_like_a_trained_one(trainings):
    """Frozen layers stay frozen, .grad is untouched, float64 stays, and the history of one network is that of one network."""

    def network():
        model = mlp(width=4, generator=torch.Generator().manual_seed(0)).double()
        model[0].weight.requires_grad_(False)
        model[2].weight.grad = torch.ones(4, 4, dtype=torch.float64)
        return model

    for models in (lambda: network(), lambda: [network()]):
        (trained, first), (loaded, second) = ((m := models(), cache.cached_train(m, WORLD, LOSS, steps=3)) for _ in range(2))
        assert torch.equal(first.loss, second.loss)
        for made in (trained, loaded):
            model = made[0] if isinstance(made, list) else made
            assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
            assert model[2].weight.grad.eq(1).all() and model[0].weight.grad is None
            assert model[0].weight.dtype == torch.float64 and torch.equal(model[0].weight, network()[0].weight)
            assert not torch.equal(model[2].weight, network()[2].weight)
    assert len(trainings) == 2 and first.loss.shape == (3, 1)


def test_closed_networks_are_kept_and_their_start_is_in_the_key(trainings):
    def of(points, steepness=0.5):
        start = {"points": points, "steepness": steepness, "generator": torch.Generator().manual_seed(0)}
        models = [closed_mlp(2, 8, 2, **start) for _ in range(2)]
        cache.cached_train(models, WORLD, LOSS, steps=3)
        return torch.cat([*(p.detach().flatten() for p in models[1].parameters()), models[1].centre])

    points = WORLD.sample(20, generator=torch.Generator().manual_seed(0))[0]
    assert torch.equal(of(points), of(points)) and len(trainings) == 1
    of(points, steepness=1.0)
    assert len(trainings) == 2
    of(points + 1.0)  # another centre: the weights at the start are the same, up to rounding
    assert len(trainings) == 3


def test_the_centre_of_a_closed_network_is_in_the_key():
    models = [closed_mlp(2, 4, 2, points=[[0.0, 0.0]], generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    models[1].centre += 1
    keys = {cache._key(model, WORLD, LOSS, None, {}) for model in models}
    assert len(keys) == 2
