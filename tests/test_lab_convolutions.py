"""Convolutional networks for the digits: they train, they are read exactly, and what is closed about them is proved."""

import numpy as np
import pytest
import torch

from ood_helpers import cache, closed, images, polytopes
from ood_helpers.lab import convolutions

DIGITS = images.Digits()


def short(kind, steps=40):  # so many, that BatchNorm's running averages have caught up
    made = [convolutions.network(kind, seed) for seed in (0, 1)]
    history = convolutions.train(made, convolutions.LOSSES[kind], [0, 1], steps=steps)
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
    (model,) = [convolutions.network("closed", 0)]
    history = convolutions.train([model], convolutions.LOSSES["closed"], [0], steps=60)
    assert history.loss[-5:].mean() < 0.8 * history.loss[:5].mean()
    centre, radius, logits = polytopes.horizon_radius(model.head)
    assert (logits == 0).all()
    u = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = u / u.abs().sum(1, keepdim=True)  # of l1 length 1
    pixels = torch.from_numpy(centre[convolutions.FEATURES :])
    assert (model.double()(pixels + 1.001 * radius * u) == 0).all()
    assert polytopes.directions(model, u.numpy())[1].all()  # all classes tie
    assert (model(DIGITS.x_test.double()) == 0).all(1).double().mean() < 0.1


def test_a_head_on_the_features_alone_is_not_closed_where_the_features_stand_still():
    model = convolutions.network("closed on features", 0).eval()
    first = model[0][1]
    with torch.no_grad():
        first.weight[:] = first.weight.abs()  # then nothing passes the first layer in the direction of -1
        model[1].centre[:] = model[0](DIGITS.x_test[:1] - 1000)[0]  # where they stand still
    start, u = DIGITS.x_test[0].double().numpy(), -np.ones(64)
    ray = polytopes.ray(model, start, u)
    assert ray.tie and ray.limit_confidence > 0.1 + 1e-3  # constant, but not the answer of the last biases
    assert isinstance(model[1], closed.Closed)


def test_trained_networks_come_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    (one,) = convolutions.trained("closed", steps=2)
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: pytest.fail("trained again"))
    (again,) = convolutions.trained("closed", steps=2)
    x = DIGITS.x_test[:5]
    assert torch.equal(one(x), again(x)) and not again.training
    for changes in ({"steps": 1}, {"seeds": (1,)}, {"kind": "plain"}):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            convolutions.trained(**{"kind": "closed", "steps": 2} | changes)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind must be one of plain"):
        convolutions.network("open", 0)


def test_a_module_whose_code_is_not_in_the_key_is_refused(tmp_path, monkeypatch):
    class Own(torch.nn.Linear):
        pass

    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"modules of this package and of torch\.nn, not Own"):
        cache.cached_by(convolutions.train, [Own(64, 10)], loss=convolutions.LOSSES["plain"], seed=[0], steps=1)
    assert not list(tmp_path.iterdir())


def test_kept_boundary_images_are_boundary_images_and_the_same_for_all():
    one, other = (DIGITS.kept_boundary(500, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one, DIGITS.kept_boundary(500, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(one, other) and ((x := DIGITS.distance(one) / DIGITS.reach) >= 0.999).all() and (x <= 1.251).all()
    pool = images._kept_boundary(DIGITS)
    assert len(pool) == images._KEPT and (torch.cdist(other, pool).amin(1) < 0.01).all()  # but for rounding
