"""The synthetic worlds: where the points are, how they are spread, and what bad arguments say."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from sklearn.datasets import make_moons

from ood_helpers.data import Arc, FourGaussians, Rings, TwoGaussians, TwoMoons


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(0, 50), dim=st.integers(1, 40), std=st.floats(0.1, 3), seed=st.integers(0, 2**31))
def test_every_sampler_gives_n_float32_points_where_they_belong(n, dim, std, seed):
    world = TwoGaussians(std=std, dim=dim, separation=20 * std)
    x, y = world.sample(n, generator=seeded(seed))
    assert x.shape == (n, dim) and x.dtype == torch.float32
    assert y.shape == (n,) and y.dtype == torch.int64 and set(y.tolist()) <= {0, 1}
    shell = world.boundary(n, generator=seeded(seed), inner=3.0, outer=3.5)
    distance = world.mahalanobis(shell)
    assert shell.shape == (n, dim) and ((distance >= 3 * (1 - 1e-4)) & (distance <= 3.5 * (1 + 1e-4))).all()
    box = world.box(n, generator=seeded(seed), half_width=20 * std)
    assert box.shape == (n, dim) and (box.abs() <= 20 * std).all() and (world.mahalanobis(box) >= 3).all()


def test_the_papers_world_has_its_means_and_deviation():
    x, y = TwoGaussians(std=2.0).sample(40_000, generator=seeded())
    for label, centre in [(0, -10.0), (1, 10.0)]:
        points = x[y == label]
        torch.testing.assert_close(points.mean(0), torch.tensor([centre, 0.0]), atol=0.06, rtol=0)
        torch.testing.assert_close(points.T.cov(), 4 * torch.eye(2), atol=0.15, rtol=0)
    assert abs((y == 0).float().mean() - 0.5) < 0.01


@pytest.mark.parametrize("dim", [1, 2, 3, 10, 100, 1000])
def test_shells_are_uniform_in_volume(dim):
    world = TwoGaussians(dim=dim, separation=200.0)
    radius = world.mahalanobis(world.boundary(4000, generator=seeded(), inner=2.0, outer=4.0).double())
    # volume inside radius r, as a share of the shell's: computed from the outer radius inwards, so that 4^1000 does not overflow
    q = 0.5**dim
    share = ((radius / 4) ** dim - q) / (1 - q)
    assert stats.kstest(share, "uniform").pvalue > 0.01


@pytest.mark.parametrize("dim", [1, 2, 1000])
def test_thin_shells_cost_no_more(dim):
    x = TwoGaussians(dim=dim).boundary(100, generator=seeded(), inner=3.0, outer=3.0 + 1e-5)
    assert len(x) == 100


def test_shell_directions_are_uniform():
    world = TwoGaussians()
    x = world.boundary(8000, generator=seeded())
    angle = torch.atan2(x[:, 1], x[:, 0].abs() - 10)
    assert stats.kstest(angle / (2 * torch.pi) + 0.5, "uniform").pvalue > 0.01
    assert abs((x[:, 0] > 0).float().mean() - 0.5) < 0.02


def test_shells_of_close_classes_stay_outside_both():
    world = TwoGaussians(separation=4.0)
    assert world.mahalanobis(world.boundary(500, generator=seeded())).min() >= 3 * (1 - 1e-5)


def test_box_fills_its_volume():
    x = TwoGaussians().box(20_000, generator=seeded(), half_width=50.0)
    disc_share = 2 * torch.pi * 9 / 100**2
    assert abs((x.abs() < 25).all(1).float().mean() - (0.25 - disc_share) / (1 - disc_share)) < 0.012


def test_mahalanobis_is_in_standard_deviations_to_the_nearer_mean():
    world = TwoGaussians(std=2.0)
    torch.testing.assert_close(
        world.mahalanobis(torch.tensor([[-10.0, 6.0], [10.0, 0.0], [0.0, 0.0]])), torch.tensor([3.0, 0.0, 5.0])
    )
    four = FourGaussians()
    torch.testing.assert_close(four.mahalanobis(four.means + 3.0), torch.full((4,), 18**0.5))


def test_four_classes_sit_on_the_corners_of_a_square():
    x, y = FourGaussians(separation=8.0).sample(4000, generator=seeded())
    assert sorted(set(y.tolist())) == [0, 1, 2, 3]
    assert ((x[y == 2] > 0).all(1).float().mean() > 0.99) and ((x[y == 0] < 0).all(1).float().mean() > 0.99)


def test_the_same_seed_gives_the_same_points_and_another_seed_others():
    draw = [TwoGaussians().box(5, generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: TwoGaussians(dim=0), "dim must be a whole number of at least 1; got 0"),
        (lambda: TwoGaussians(dim=2.5), "dim must be"),
        (lambda: TwoGaussians(std=0.0), "std must be a positive number; got 0.0"),
        (lambda: TwoGaussians(std=float("nan")), "std must be"),
        (lambda: FourGaussians(separation=-1.0), "separation must be"),
        (lambda: TwoGaussians().sample(-1, generator=seeded()), "n must be"),
        (lambda: TwoGaussians().sample(5, generator=0), "generator must be a torch.Generator"),
        (lambda: TwoGaussians().boundary(5, generator=seeded(), inner=4.0, outer=3.0), "inner and outer"),
        (lambda: TwoGaussians().box(5, generator=seeded(), half_width=0.0), "half_width must be"),
        (lambda: TwoGaussians(separation=1.0).box(5, generator=seeded(), half_width=1.0), "no room for OOD points"),
        (lambda: TwoGaussians().mahalanobis(torch.zeros(3, 3)), r"shape \[n, 2\]; got torch.float32 \[3, 3\]"),
        (lambda: TwoGaussians().mahalanobis(torch.tensor([[0.0, torch.nan]])), "finite numbers; 1 of its rows"),
        (lambda: TwoGaussians().mahalanobis([[0.0, 1.0]]), "got list"),
    ],
)
def test_bad_input_says_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@settings(max_examples=5)
@given(dim=st.sampled_from([500, 1000]))
def test_high_dimensions_do_not_overflow(dim):
    assert torch.isfinite(TwoGaussians(dim=dim).boundary(10, generator=seeded())).all()


# ---- curves ----

CURVED = [TwoMoons(), Rings()]


@settings(max_examples=25)
@given(
    world=st.one_of(
        st.builds(TwoMoons, std=st.floats(0.1, 2), radius=st.floats(16, 40)),
        st.builds(Rings, std=st.floats(0.1, 1.2), inner=st.floats(1, 9), outer=st.floats(18, 30)),
    ),
    n=st.integers(0, 100),
    seed=st.integers(0, 2**31),
)
def test_curved_samplers_give_n_points_where_they_belong(world, n, seed):
    x, y = world.sample(n, generator=seeded(seed))
    assert x.shape == (n, 2) and x.dtype == torch.float32 and y.dtype == torch.int64 and set(y.tolist()) <= {0, 1}
    distance = world.mahalanobis(world.boundary(n, generator=seeded(seed)))
    assert distance.shape == (n,) and ((distance >= 3 * (1 - 1e-4)) & (distance <= 3.5 * (1 + 1e-4))).all()
    box = world.box(n, generator=seeded(seed))
    assert box.shape == (n, 2) and (box.abs() <= 50).all() and (world.mahalanobis(box) >= 3).all()


@given(
    x=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    radius=st.floats(0.5, 20),
    start=st.floats(-7, 7),
    length=st.floats(0.1, 2 * math.pi),
)
def test_the_distance_to_an_arc_is_that_to_its_nearest_point(x, radius, start, length):
    arc = Arc((1.0, -2.0), radius, start, start + length)
    points = arc.at(torch.linspace(start, start + length, 2001, dtype=torch.float64))
    x = torch.tensor([x], dtype=torch.float64)
    assert arc.distance(x).item() == pytest.approx(torch.cdist(x, points).min().item(), abs=4e-3 * radius)


@pytest.mark.parametrize("world", CURVED)
def test_the_noise_is_across_the_curves_and_the_classes_are_even(world):
    x, y = world.sample(20_000, generator=seeded())
    for k, arc in enumerate(world.arcs):
        points = x[y == k]
        angle = torch.atan2(*(points - torch.tensor(arc.centre)).T.flip(0)) - arc.start
        middle = (angle % (2 * math.pi)) < arc.end - arc.start  # ends apart
        across = (points - torch.tensor(arc.centre)).norm(dim=1)[middle] - arc.radius
        assert across.std().item() == pytest.approx(world.std, rel=0.03)
        assert across.mean().abs() < 0.1
    assert abs((y == 0).float().mean() - 0.5) < 0.015
    assert (world.mahalanobis(x) > 3).float().mean() < 0.006


@pytest.mark.parametrize("world", CURVED)
def test_curved_shells_are_uniform_in_area(world):
    """As many points as area in every part of the window; the area of a part from a fine grid of the whole shell."""
    x = world.boundary(20_000, generator=seeded(), inner=3.0, outer=6.0)
    axis = torch.linspace(-32, 32, 1601)
    cells = torch.cartesian_prod(axis, axis)
    distance = world.mahalanobis(cells)
    cells = cells[(distance >= 3) & (distance <= 6)]
    part = [((p + 32) // 8).long() @ torch.tensor([8, 1]) for p in (x, cells)]
    shares = [p.bincount(minlength=64).double() / len(p) for p in part]
    torch.testing.assert_close(*shares, atol=0.006, rtol=0)


def test_the_moons_are_those_of_scikit_learn():
    points, label = make_moons(200, noise=None)
    world = TwoMoons(radius=16.0)
    x = torch.from_numpy(16 * (points - [0.5, 0.25])).float()
    for k, arc in enumerate(world.arcs):
        assert arc.distance(x[label == k]).max() < 1e-4
    assert world.arcs[0].distance(x[label == 1]).min() == pytest.approx(8.0, abs=0.05)


@pytest.mark.parametrize("world", CURVED)
def test_curved_worlds_fit_a_box_of_half_width_50_and_keep_their_classes_apart(world):
    x, y = world.sample(4000, generator=seeded())
    assert x.abs().max() < 35
    other = torch.stack([arc.distance(x) for arc in world.arcs])
    assert (other.argmin(0) == y).double().mean() > 0.999


def test_every_world_counts_its_classes():
    assert [world.n_classes for world in (TwoGaussians(), FourGaussians(), *CURVED)] == [2, 4, 2, 2]


@pytest.mark.parametrize("world", CURVED)
def test_thin_curved_shells_cost_no_more(world):
    distance = world.mahalanobis(world.boundary(2000, generator=seeded(), inner=3.0, outer=3.001))
    assert distance.min() > 2.999 and distance.max() < 3.002


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TwoMoons(std=0.0), "std must be a positive number; got 0.0"),
        (lambda: TwoMoons(radius=math.inf), "radius must be a positive number; got inf"),
        (lambda: Rings(std=-1.0), "std must be a positive number; got -1.0"),
        (lambda: Rings(inner=5.0, outer=5.0), "inner and outer must satisfy 0 < inner < outer; got 5.0 and 5.0"),
        (lambda: TwoMoons().sample(2.5, generator=seeded()), "n must be"),
        (lambda: TwoMoons().sample(5, generator=None), "generator must be"),
        (lambda: Rings().boundary(5, generator=seeded(), inner=4.0, outer=3.0), "inner and outer must satisfy"),
        (lambda: TwoMoons().box(5, generator=seeded(), half_width=-1.0), "half_width must be"),
        (lambda: Rings().mahalanobis(torch.zeros(3, 3)), r"shape \[n, 2\]"),
    ],
)
def test_bad_curves_say_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()
