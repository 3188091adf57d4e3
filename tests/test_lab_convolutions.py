"""Convolutional networks for the digits: they train, they are read exactly, and what is closed about them is proved."""

import numpy as np
import pytest
import torch

from ood_helpers import cache, images, polytopes
from ood_helpers.closed import Closed
from ood_helpers.lab import closed, convolutions
from ood_helpers.lab.convolutions import ConvolutionalSetting

DIGITS = images.Digits()


def learn(made, kind, steps):
    return convolutions._train(made, DIGITS, convolutions.LOSSES[kind], list(range(len(made))), steps, lr=5e-3)


def short(kind, steps=40):  # so many, that BatchNorm's running averages have caught up
    made = [ConvolutionalSetting(kind).network(seed) for seed in (0, 1)]
    history = learn(made, kind, steps)
    assert history.loss.shape == (steps, 2)
    return made


@pytest.mark.parametrize("kind", convolutions.LOSSES)
def test_every_kind_trains_and_is_read_exactly_its_closed_head_included(kind):
    one, other = short(kind)
    assert not one.training and not torch.equal(one(DIGITS.x_test[:3]), other(DIGITS.x_test[:3]))
    x = DIGITS.x_test[:20]
    read = polytopes.read(one)
    np.testing.assert_allclose(read(x.double().numpy()), one(x).detach().numpy(), atol=1e-4)
    ray = polytopes.ray(one, x[0].double().numpy(), (x[1] - x[0]).double().numpy())
    t = np.linspace(0, 30, 50)
    along = x[0].double() + torch.from_numpy(t)[:, None] * (x[1] - x[0]).double()
    np.testing.assert_allclose(ray.logits(t), one.double()(along).detach().numpy(), atol=1e-9)


def test_a_closed_one_learns_and_gives_the_same_answer_outside_the_ball_in_every_direction():
    setting = ConvolutionalSetting("closed")
    model = setting.network(0)
    history = learn([model], "closed", 60)
    assert history.loss[-5:].mean() < 0.8 * history.loss[:5].mean()
    centre, radius, logits = polytopes.horizon_radius(model.head)
    assert (logits == 0).all()
    u = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = u / u.abs().sum(1, keepdim=True)  # of l1 length 1
    pixels = torch.from_numpy(centre[setting.features :])
    assert (model.double()(pixels + 1.001 * radius * u) == 0).all()
    assert polytopes.directions(model, u.numpy())[1].all()  # all classes tie
    assert (model(DIGITS.x_test.double()) == 0).all(1).double().mean() < 0.1


def test_a_head_on_the_features_alone_is_not_closed_where_the_features_stand_still():
    model = ConvolutionalSetting("closed on features").network(0).eval()
    first = model[0][1]
    with torch.no_grad():
        first.weight[:] = first.weight.abs()  # then nothing passes the first layer in the direction of -1
        model[1].centre[:] = model[0](DIGITS.x_test[:1] - 1000)[0]  # where they stand still
    start, u = DIGITS.x_test[0].double().numpy(), -np.ones(64)
    ray = polytopes.ray(model, start, u)
    assert ray.tie and ray.limit_confidence > 0.1 + 1e-3  # constant, but not the answer of the last biases
    assert isinstance(model[1], Closed)


def test_trained_networks_come_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    (one,) = convolutions.trained(ConvolutionalSetting("closed", steps=2))
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: pytest.fail("trained again"))
    (again,) = convolutions.trained(ConvolutionalSetting("closed", steps=2))
    x = DIGITS.x_test[:5]
    assert torch.equal(one(x), again(x)) and not again.training
    for changes in ({"steps": 1}, {"method": "plain"}, {"lr": 1e-3}):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            convolutions.trained(ConvolutionalSetting(**{"method": "closed", "steps": 2} | changes))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        convolutions.trained(ConvolutionalSetting("closed", steps=2), seeds=(1,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "open"}, "method must be one of plain"),
        ({"shape": "cifar"}, "shape must be one of digits, mnist"),
        ({"channels": 0}, "channels must be"),
        ({"steps": 1.5}, "steps must be"),
        ({"steepness": 0.0}, "steepness must be a positive number"),
        ({"lr": float("nan")}, "lr must be a positive number"),
    ],
)
def test_a_bad_field_is_named(changes, says):
    with pytest.raises(ValueError, match=says):
        ConvolutionalSetting(**changes)


@pytest.mark.parametrize("kind", ["reject", "closed"])
def test_a_run_measures_the_networks_that_trained_gives_the_same_each_time(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    monkeypatch.setattr(closed, "_CLIMB_STEPS", 2)
    monkeypatch.setattr(convolutions, "_WALKS", 2)
    monkeypatch.setattr(convolutions, "_WHOLE_WALKS", {"digits": 2})
    setting = ConvolutionalSetting(kind, steps=30)
    one, other = convolutions.run(setting, [3, 1]), convolutions.run(setting, [1])
    assert str(other) == str(one[1:]) and list(other[0]) == list(setting.columns) and [row["seed"] for row in one] == [3, 1]
    (network,) = convolutions.trained(setting, [1])
    right = (network(DIGITS.x_test).argmax(1) == DIGITS.y_test).double().mean().item()
    assert other[0]["accuracy"] == right > 0.05
    assert (other[0]["certified"] == 1 == other[0]["constant_away"]) == (kind == "closed")
    shares = {name: value for name, value in other[0].items() if name.split("_")[0] in ("auroc", "sure", "climb", "cubes")}
    assert len(shares) == 8 + 9 + 4 + 4 and all(0 <= value <= 1 for value in shares.values())
    assert 0 < other[0]["kinks_inside"] < other[0]["kinks"] and other[0]["last_kink"] > 1


def test_a_larger_image_is_measured_by_the_same_kinds(monkeypatch):
    class Large(images.Digits):
        """Digits enlarged to 28 × 28, in the place of a package that need not be installed."""

        dim = 784
        y_train, y_test = DIGITS.y_train[:200], DIGITS.y_test[:100]
        x_train, x_test = (
            torch.nn.functional.interpolate(x.reshape(-1, 1, 8, 8), size=(28, 28)).flatten(1)
            for x in (DIGITS.x_train[:200], DIGITS.x_test[:100])
        )
        d99 = DIGITS.d99 * 3.5

        def kept_boundary(self, n, *, generator):
            return self.boundary(n, generator=generator)

    monkeypatch.setitem(convolutions._WORLDS, "mnist", Large)
    random, kinds = torch.Generator().manual_seed(0), convolutions._kinds(Large())
    assert list(kinds) == list(convolutions.KINDS)
    for kind, draw in kinds.items():
        x = draw(20, generator=random)
        assert x.shape == (20, 784) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1 and x.std() > 0.1, kind
    frame = kinds["letters"](20, generator=random).reshape(20, 28, 28)
    assert not frame[:, :4].any() and not frame[:, :, -4:].any() and frame[:, 4:24, 4:24].any(2).any(1).all()
    setting = ConvolutionalSetting("closed", "mnist", channels=2, width=8, steps=3, steepness=0.005)
    monkeypatch.setattr(closed, "_CLIMB_STEPS", 1)
    monkeypatch.setattr(convolutions, "_WALKS", 1)
    (row,) = convolutions.run(setting, [0])
    assert row["constant_away"] == 1 and row["data_radius"] < row["radius"] and np.isnan(row["cubes_letters_0.1"])


def test_settings_are_made_without_the_package_that_brings_the_larger_images(monkeypatch):
    monkeypatch.setattr(images.Mnist, "__init__", lambda _self: pytest.fail("loaded"))
    assert {setting.shape for setting in convolutions.SETTINGS.values()} == {"digits", "mnist"}
    assert all(setting.work > 0 for setting in convolutions.SETTINGS.values())


def test_a_module_whose_code_is_not_in_the_key_is_refused(tmp_path, monkeypatch):
    class Own(torch.nn.Linear):
        pass

    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"modules of this package and of torch\.nn, not Own"):
        cache.cached_by(convolutions._train, [Own(64, 10)], loss=convolutions.LOSSES["plain"], seed=[0], steps=1)
    assert not list(tmp_path.iterdir())


def test_kept_boundary_images_are_boundary_images_and_the_same_for_all():
    one, other = (DIGITS.kept_boundary(500, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one, DIGITS.kept_boundary(500, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(one, other) and ((x := DIGITS.distance(one) / DIGITS.d99) >= 0.999).all() and (x <= 1.251).all()
    pool = images._kept_boundary(DIGITS)
    assert len(pool) == images._KEPT and (torch.cdist(other, pool).amin(1) < 0.01).all()  # but for rounding
