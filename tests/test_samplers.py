"""OOD samplers that see only a training set: where their points are, that they look at nothing else, and what bad input says."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from ood_helpers import data, gan, samplers, worlds

WORLDS = [data.TwoGaussians(), worlds.TwoMoons(), worlds.Rings()]
LEARNED = [samplers.knn_noise, samplers.class_gaussians, samplers.normals]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def training_set(world, n=600, seed=0):
    return world.sample(n, generator=seeded(seed))


def found(sampler, world, n=500, **arguments):
    return sampler(*training_set(world), **arguments)(n, generator=seeded(9))


@settings(max_examples=15)
@given(n=st.integers(0, 20), dim=st.integers(2, 64), sampler=st.sampled_from(LEARNED), seed=st.integers(0, 2**31))
def test_every_sampler_gives_n_finite_points_in_any_dimension(n, dim, sampler, seed):
    x, y = data.TwoGaussians(dim=dim).sample(200, generator=seeded(seed))
    near = {"neighbours": 30} if sampler is samplers.normals else {}
    x_out = sampler(x, y, **near)(n, generator=seeded(seed))
    assert x_out.shape == (n, dim) and x_out.dtype == torch.float32 and torch.isfinite(x_out).all()


@pytest.mark.parametrize("sampler", LEARNED)
def test_the_same_seed_gives_the_same_points_and_the_training_set_stays(sampler):
    x, y = training_set(WORLDS[1])
    before = x.clone()
    ood = sampler(x, y)
    draws = [ood(50, generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2]) and torch.equal(x, before)


@pytest.mark.parametrize("sampler", LEARNED)
@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_points_scale_with_the_training_set(sampler, scale):
    """In other units of length the samples are the same ones."""
    x, y = training_set(WORLDS[2])
    unit = {"noise": scale} if sampler is samplers.knn_noise else {}
    ours, scaled = sampler(x, y)(200, generator=seeded()), sampler(scale * x, y, **unit)(200, generator=seeded())
    same = torch.isclose(scale * ours, scaled, rtol=1e-3, atol=1e-3 * scale).all(1)
    assert same.double().mean() > 0.95  # a rounded distance may decide otherwise about a few


def test_the_reference_is_the_boundary():
    world = WORLDS[1]
    assert torch.equal(samplers.off_boundary(world)(50, generator=seeded()), world.boundary(50, generator=seeded()))
    wide = world.mahalanobis(samplers.off_boundary(world, outer=8.0)(500, generator=seeded()))
    assert 7 < wide.max() <= 8.001 and wide.min() >= 2.999


@pytest.mark.parametrize(("world", "least"), list(zip(WORLDS, (0.95, 0.6, 0.3), strict=True)))
def test_knn_points_are_farther_out_than_the_data(world, least):
    x_out = found(samplers.knn_noise, world)
    assert samplers.share_inside(x_out, world) < 0.7 < 0.98 < samplers.share_inside(training_set(world)[0], world)
    assert samplers.share_covered(x_out, world) > least


def test_more_candidates_are_farther_from_the_data():
    distance = [WORLDS[0].mahalanobis(found(samplers.knn_noise, WORLDS[0], candidates=c)).mean() for c in (1, 30)]
    assert distance[0] + 0.5 < distance[1]


@pytest.mark.parametrize("dim", [2, 10])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_class_gaussians_are_the_tail_of_the_fitted_gaussians(dim, share):
    """Their distances are those of the farthest `share` of ordinary draws; a stretched space gives a covariance to find."""
    x, y = data.TwoGaussians(dim=dim, separation=2000.0).sample(4000, generator=seeded())
    stretch = torch.eye(dim)
    stretch[1, 1], stretch[0, 1] = 5.0, 2.0
    x_out = samplers.class_gaussians(x @ stretch, y, share=share)(1500, generator=seeded(1)) @ stretch.inverse()
    centred = x_out - 1000 * torch.eye(dim)[0] * x_out[:, :1].sign()
    tail = stats.chi2.sf(centred.square().sum(1).double().numpy(), dim) / share
    assert tail.max() < 2 and stats.kstest(tail, "uniform").statistic < 0.2  # the covariance is a little off
    assert stats.kstest(np.arctan2(*centred[:, :2].T.numpy()) / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-3


def test_class_gaussians_share_their_covariance_and_know_their_own_labels():
    x = torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 0.1], [9.0, -0.1]])
    x_out = samplers.class_gaussians(x, torch.tensor([3, 3, 7, 7]))(400, generator=seeded())
    right = x_out[:, 0] > 4.5
    assert set(x_out[:, 0].tolist()) == {0.0, 9.0}  # no variance along the first axis
    deviation = 0.505**0.5  # of both classes together
    for side in (right, ~right):
        assert x_out[side, 1].abs().min() >= 2.5 * deviation


def test_on_curves_a_gaussian_misses_the_boundary():
    assert samplers.share_covered(found(samplers.class_gaussians, WORLDS[0]), WORLDS[0]) > 0.95
    assert samplers.share_covered(found(samplers.class_gaussians, WORLDS[2]), WORLDS[2]) == 0


@pytest.mark.parametrize("world", WORLDS[1:])
def test_local_planes_find_the_curve(world):
    x, y = training_set(world, 1000)
    feet, frames = samplers.local_planes(x[y == 0].numpy(), 1, 60)
    assert world.mahalanobis(torch.from_numpy(feet)).mean() < 0.5 < 0.7 < world.mahalanobis(x).mean()
    np.testing.assert_allclose(np.linalg.norm(frames, axis=2), 1, rtol=1e-5)


def test_local_planes_of_a_flat_sheet_are_the_sheet():
    """Points of a plane in space stay where they are, and the axes lie in the plane."""
    x = torch.randn(200, 2, generator=seeded(), dtype=torch.float64) @ torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]]).double()
    feet, frames = samplers.local_planes(x.numpy(), 2, 20)
    np.testing.assert_allclose(feet, x.numpy(), atol=1e-9)
    across = np.cross([1.0, 2.0, 0.5], [0.0, 1.0, -1.0])
    np.testing.assert_allclose(frames @ across, 0, atol=1e-9)


def test_normals_lie_on_both_sides_of_a_line_and_around_its_ends():
    """A straight line of length 40 with noise 1: the samples surround it, nearly 3 deviations away."""
    x = torch.randn(800, 2, generator=seeded())
    x[:, 0] += 40 * torch.rand(800, generator=seeded(1)) - 20
    x_out = samplers.normals(x, torch.zeros(800, dtype=torch.int64))(1000, generator=seeded(2))
    away = torch.stack([(x_out[:, 0].abs() - 20).clamp(min=0), x_out[:, 1]], 1).norm(dim=1)
    assert away.min() > 1.8 and away.quantile(0.1) > 2.3 and away.max() < 5
    beyond = x_out[:, 0].abs() > 20
    assert 0.05 < beyond.double().mean() < 0.5
    for side, least in [(x_out[:, 1] > 0, 0.3), (x_out[:, 1] < 0, 0.3), (x_out[:, 0] > 21, 0.01), (x_out[:, 0] < -21, 0.01)]:
        assert side.double().mean() > least


def test_normals_of_a_sheet_in_many_dimensions_stay_clear_of_it():
    """A noisy 3-dimensional sheet in 20 dimensions: the samples are farther from it than the points."""
    x = 0.1 * torch.randn(1000, 20, generator=seeded())
    x[:, :3] = 10 * torch.rand(1000, 3, generator=seeded(1))
    y = torch.zeros(1000, dtype=torch.int64)
    x_out = samplers.normals(x, y, manifold_dim=3)(300, generator=seeded(2))
    inside, outside = x[:, 3:].norm(dim=1), x_out[:, 3:].norm(dim=1)
    edge = ((x_out[:, :3] < 0) | (x_out[:, :3] > 10)).any(1)
    assert outside[~edge].median() > inside.quantile(0.97)


def test_a_manifold_of_no_dimension_is_a_point():
    x_out = found(samplers.normals, WORLDS[0], manifold_dim=0, neighbours=250)
    distance = WORLDS[0].mahalanobis(x_out)
    assert distance.min() > 2.5 and distance.max() < 5


def test_without_room_beside_the_manifold_the_search_ends(monkeypatch):
    monkeypatch.setattr(samplers.NearestNeighbors, "kneighbors", lambda self, x=None: (np.zeros((len(x), 1)), None))
    monkeypatch.setattr(samplers, "local_planes", lambda points, m, k: (0.9 * points, np.zeros((len(points), m, 2), np.float32)))
    with pytest.raises(ValueError, match="no room beside the manifold"):
        found(samplers.normals, WORLDS[0], n=1)


@pytest.mark.parametrize(
    ("sampler", "says"), [(samplers.class_gaussians, "must vary within"), (samplers.normals, "must have noise across")]
)
def test_points_without_noise_are_named(sampler, says):
    with pytest.raises(ValueError, match=says):
        sampler(torch.ones(100, 2), torch.zeros(100, dtype=torch.int64))


# ---- measures ----


@pytest.mark.parametrize("world", WORLDS)
def test_coverage_of_known_sets(world):
    ring = world.boundary(3000, generator=seeded(3))
    assert samplers.share_covered(ring, world) > 0.99 and samplers.share_near(ring, world) == 1
    half = samplers.share_covered(ring[ring[:, 1] > 0], world)
    assert 0.4 < half < 0.65
    inside = training_set(world)[0]
    inside = inside[world.mahalanobis(inside) < 2.5]
    assert samplers.share_covered(inside, world) == 0 and samplers.share_near(inside, world) == 0
    assert samplers.share_inside(inside, world) == 1 and samplers.share_inside(ring, world) < 0.01
    assert samplers.share_covered(ring[:0], world) == 0


def test_one_point_covers_its_part_of_a_circle():
    """A disc of radius 1 around a point of a circle of radius 3 holds an arc of 4 asin(1/6) of it."""
    world = data.TwoGaussians()
    share = samplers.share_covered(torch.tensor([[10.0, 3.0005]]), world)
    assert share == pytest.approx(4 * np.arcsin(1 / 6) / (4 * np.pi), abs=0.015)


def test_coverage_agrees_with_sectors_about_a_whole_boundary_and_about_none():
    world = data.TwoGaussians()
    ring = world.boundary(2000, generator=seeded())
    assert samplers.share_covered(ring, world) == gan.coverage(ring, world) == 1
    assert samplers.share_covered(10 * ring, world) == gan.coverage(10 * ring, world) == 0


def test_coverage_is_in_standard_deviations():
    small, large = worlds.TwoMoons(std=0.1, radius=1.6), worlds.TwoMoons()
    ring = large.boundary(150, generator=seeded())
    assert samplers.share_covered(ring / 10, small) == pytest.approx(samplers.share_covered(ring, large), abs=0.01)


@pytest.mark.parametrize("sampler", LEARNED)
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (torch.zeros(5), torch.zeros(5, dtype=torch.int64), "x must be a float tensor"),
        (torch.full((5, 2), torch.nan), torch.zeros(5, dtype=torch.int64), "x must hold finite numbers; 5 of its rows"),
        (torch.zeros(5, 2), torch.zeros(5), "y must be int64 with one class per point"),
        (torch.zeros(5, 2), None, "y must be int64"),
        (torch.zeros(5, 2), torch.zeros(4, dtype=torch.int64), "y must be int64 with one class per point, .5."),
        (torch.zeros(5, 2), torch.tensor([0, 0, 0, 0, 1]), "at least .* points of each class; the smallest has 1"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "at least .* points of each class; the smallest has 0"),
    ],
    ids=str,
)
def test_bad_training_sets_are_named(sampler, x, y, says):
    with pytest.raises(ValueError, match=says):
        sampler(x, y)


@pytest.mark.parametrize(
    ("sampler", "bad", "says"),
    [
        (samplers.knn_noise, {"noise": 0.0}, "noise must be a positive number; got 0.0"),
        (samplers.knn_noise, {"boundary_share": 1.5}, "boundary_share must be a number between 0 and 1; got 1.5"),
        (samplers.knn_noise, {"neighbours": 0}, "neighbours must be a whole number of at least 1; got 0"),
        (samplers.knn_noise, {"candidates": 2.5}, "candidates must be a whole number of at least 1; got 2.5"),
        (samplers.class_gaussians, {"share": 0}, "share must be a number between 0 and 1; got 0"),
        (samplers.normals, {"manifold_dim": 2}, "manifold_dim must be less than the dimension of x, 2; got 2"),
        (samplers.normals, {"manifold_dim": -1}, "manifold_dim must be a whole number of at least 0; got -1"),
        (samplers.normals, {"neighbours": 0}, "neighbours must be a whole number of at least 1; got 0"),
        (samplers.normals, {"neighbours": 5000}, "at least 5001 points of each class"),
        (samplers.normals, {"share": 2}, "share must be a number between 0 and 1; got 2"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_arguments_are_named(sampler, bad, says):
    with pytest.raises(ValueError, match=says):
        sampler(*training_set(WORLDS[0]), **bad)


def test_measures_of_nothing_and_bad_draws_are_named():
    with pytest.raises(ValueError, match="x must hold at least one point"):
        samplers.share_near(torch.zeros(0, 2), WORLDS[0])
    for sampler in LEARNED:
        with pytest.raises(ValueError, match="generator must be a torch"):
            sampler(*training_set(WORLDS[0]))(5, generator=None)
