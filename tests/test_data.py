"""The synthetic worlds: where the points are, how they are spread, and what bad arguments say."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from sklearn.datasets import make_moons

from ood_helpers.data import FourGaussians, TwoGaussians
from ood_helpers.worlds import Arc, Arcs, Rings, TwoMoons


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


def raw_shells(world, n, generator, inner=3.0, outer=3.5):
    """Points of the shells before any is left out, in the order of random numbers that the stored runs were made with."""
    centre = world.means[torch.randint(len(world.means), (n,), generator=generator)]
    direction = torch.nn.functional.normalize(torch.randn(n, world.dim, generator=generator), dim=1)
    u = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    q = (inner / outer) ** world.dim
    return centre + (world.std * outer * (q + u * (1 - q)) ** (1 / world.dim)).float() * direction


@pytest.mark.parametrize(
    "world",
    [TwoGaussians(), TwoGaussians(dim=10), TwoGaussians(separation=7.1), TwoGaussians(std=0.1, separation=0.71), FourGaussians()],
)
def test_shells_apart_lose_no_point(world):
    """So what was trained on them stays what it was."""
    ours, reference = seeded(5), seeded(5)
    for n in (64, 1, 1000):
        torch.testing.assert_close(world.boundary(n, generator=ours), raw_shells(world, n, reference), rtol=0, atol=0)


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


# ---- shells that overlap ----


class OneArc(Arcs):
    """A world of one class, along an arc."""

    def __init__(self, radius, start, end):
        self.std, self.arcs = 1.0, (Arc((1.0, -1.0), radius, start, end),)


class TwoArcs(Arcs):
    """Two quarter circles of radius 5 whose ends lie near each other."""

    std, arcs = 1.0, (Arc((0.0, 0.0), 5.0, 0.0, math.pi / 2), Arc((0.0, 1.0), 5.0, math.pi / 2, math.pi))


def everywhere(world, n, inner, outer, half_width, generator):
    """n points uniform where the nearest class is inner to outer deviations off: what is left of a box, point by point."""
    kept, count = [], 0
    while count < n:
        x = half_width * (2 * torch.rand(100_000, world.dim, generator=generator) - 1)
        distance = world.mahalanobis(x)
        kept.append(x[(distance >= inner) & (distance <= outer)])
        count += len(kept[-1])
    return torch.cat(kept)[:n]


def homogeneous(first, second, bins):
    """The p-value of the χ² test that points [n, d] and [m, d] are of one distribution, by their cell in a grid of two axes."""
    both = torch.cat([first, second])[:, :2]
    low, high = both.amin(0), both.amax(0)
    cell = ((both - low) / (high - low) * bins * (1 - 1e-6)).long() @ torch.tensor([1, bins][: both.shape[1]])
    counts = torch.stack([part.bincount(minlength=bins**2) for part in (cell[: len(first)], cell[len(first) :])])
    return stats.chi2_contingency(counts[:, counts.sum(0) >= 20].numpy()).pvalue


@pytest.mark.parametrize(
    ("world", "inner", "outer", "half_width"),
    [
        *((TwoGaussians(separation=separation), 3.0, 3.5, 9.0) for separation in (0.0, 0.5, 3.0, 6.0, 6.9)),
        (TwoGaussians(separation=3.0), 0.5, 4.0, 6.0),
        (TwoGaussians(separation=1.0, std=0.3), 0.0, 5.0, 3.0),
        *((TwoGaussians(dim=dim, separation=2.0), 1.0, 2.0, 3.1) for dim in (1, 3, 5)),
        (FourGaussians(separation=3.0), 3.0, 4.0, 6.0),
        (FourGaussians(separation=1.0), 1.0, 3.0, 4.0),
        *((TwoMoons(radius=radius), 3.0, 5.0, 3 * radius + 6) for radius in (0.1, 1.0, 2.0, 6.0)),
        (TwoMoons(), 3.0, 8.0, 33.0),
        (Rings(inner=2.0, outer=3.0), 1.0, 4.0, 8.0),
        (Rings(), 3.0, 9.0, 30.0),
        *((OneArc(4.0, 1.0, 1.0 + turn * math.pi), 1.0, 3.0, 9.0) for turn in (0.1, 0.5, 1.5, 1.9, 1.999)),
        (OneArc(1.0, 0.0, 1.8 * math.pi), 2.0, 3.0, 6.0),
        (TwoArcs(), 1.0, 2.5, 9.0),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "std") else None,
)
def test_points_around_classes_are_uniform_however_their_shells_overlap(world, inner, outer, half_width):
    n = 20_000
    x = world.boundary(n, generator=seeded(1), inner=inner, outer=outer)
    distance = world.mahalanobis(x)
    assert len(x) == n and ((distance >= inner - 1e-4) & (distance <= outer + 1e-4)).all()
    assert homogeneous(x, everywhere(world, n, inner, outer, half_width, seeded(2)), bins=12) > 1e-3


@pytest.mark.parametrize(
    "world", [TwoGaussians(separation=1.0), FourGaussians(separation=4.0), TwoMoons(radius=3.0), Rings(inner=1.0, outer=3.0)]
)
def test_a_box_is_uniform_around_close_classes(world):
    x = world.box(20_000, generator=seeded(1), half_width=12.0)
    assert homogeneous(x, everywhere(world, 20_000, 3.0, math.inf, 12.0, seeded(2)), bins=10) > 1e-3


def test_the_chi_square_test_sees_shells_drawn_twice():
    """What was wrong before: points in both shells came twice as often as others."""
    world = TwoGaussians(separation=3.0)
    x = raw_shells(world, 60_000, seeded(1))
    twice = x[world.mahalanobis(x) >= 3.0][:20_000]
    assert homogeneous(twice, everywhere(world, 20_000, 3.0, 3.5, 9.0, seeded(2)), bins=12) < 1e-12
