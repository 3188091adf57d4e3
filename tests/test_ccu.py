"""CCU: the density mixture against scipy and by hand, and its guarantee at random points."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from scipy.stats import multivariate_normal

from ood_helpers import ccu, data

WORLD = data.TwoGaussians()
seeds = st.integers(0, 2**31)


def random_mixture(generator, m, dim, wide=1.0):
    weights = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    means = 5 * torch.randn(m, dim, generator=generator, dtype=torch.float64)
    stds = wide * (0.3 + torch.rand(m, generator=generator, dtype=torch.float64))
    return ccu.Mixture((weights / weights.sum()).log(), means, stds)


def random_densities(seed, dim=2):
    generator = torch.Generator().manual_seed(seed)
    return ccu.Densities(random_mixture(generator, 3, dim), random_mixture(generator, 2, dim, wide=5.0)), generator


@given(seeds, st.integers(1, 4))
def test_the_density_is_that_of_scipy(seed, dim):
    densities, generator = random_densities(seed, dim)
    x = 5 * torch.randn(6, dim, generator=generator, dtype=torch.float64)
    for mixture in (densities.inside, densities.outside):
        parts = zip(mixture.log_weights.exp(), mixture.means, mixture.stds, strict=True)
        expected = sum(w * torch.tensor(multivariate_normal.pdf(x, m, s**2 * torch.eye(dim))).reshape(-1) for w, m, s in parts)
        torch.testing.assert_close(mixture.log_density(x).exp(), expected)


@given(seeds, st.integers(2, 5))
def test_the_probabilities_are_those_of_the_formula(seed, k):
    densities, generator = random_densities(seed)
    x = 5 * torch.randn(20, 2, generator=generator, dtype=torch.float64)
    z = 3 * torch.randn(20, k, generator=generator)
    inside, outside = (mixture.log_density(x).exp()[:, None] for mixture in (densities.inside, densities.outside))
    expected = (inside * z.double().softmax(-1) + outside / k) / (inside + outside)
    found = densities.log_probabilities(x, z)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(20, dtype=torch.float64))


@given(seeds, st.floats(0, 30), st.integers(2, 5))
def test_no_point_of_the_ball_exceeds_the_bound(seed, radius, k):
    """Whatever the network says: here it says the worst, certainty. In the ball's middle, on its edge and in between."""
    densities, generator = random_densities(seed)
    centre = 20 * torch.randn(5, 1, 2, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * torch.rand(5, 60, generator=generator, dtype=torch.float64)
    part = torch.rand(5, 60, 1, generator=generator, dtype=torch.float64).round(decimals=1)
    x = centre + radius * part * torch.stack([angle.cos(), angle.sin()], -1)
    certain = torch.eye(k)[torch.randint(k, (300,), generator=generator)] * 1e4
    confidence = densities.log_probabilities(x.reshape(-1, 2), certain).exp().amax(-1).reshape(5, 60)
    bound = densities.bound(centre[:, 0], radius, k)
    assert (confidence <= bound[:, None] * (1 + 1e-9)).all()
    assert (bound <= 1).all() and (bound >= 1 / k).all()


@given(seeds)
def test_a_ball_of_radius_0_is_a_point_and_a_larger_one_allows_more(seed):
    densities, generator = random_densities(seed)
    x = 10 * torch.randn(8, 2, generator=generator, dtype=torch.float64)
    certain = torch.tensor([[1e4, 0.0]]).expand(8, 2)
    torch.testing.assert_close(densities.bound(x, 0.0, 2), densities.log_probabilities(x, certain).exp()[:, 0])
    bounds = torch.stack([densities.bound(x, radius, 2) for radius in (0.0, 0.5, 2.0, 10.0)])
    assert (bounds.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("ood", [WORLD.boundary, WORLD.box], ids=["boundary", "general"])
def test_fitted_to_the_paper_s_world_it_doubts_far_away(ood):
    random = torch.Generator().manual_seed(0)
    x, _ = WORLD.sample(2000, generator=random)
    densities = ccu.fit(x, ood(2000, generator=random), generator=random)
    torch.testing.assert_close(densities.inside.stds, torch.ones(2, dtype=torch.float64), atol=0.06, rtol=0)
    torch.testing.assert_close(densities.inside.means.sort(0).values, WORLD.means.sort(0).values.double(), atol=0.15, rtol=0)
    assert densities.log_ratio(WORLD.means).min() > 0 > densities.log_ratio(WORLD.box(500, generator=random)).max()
    angle = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)
    far = 1e8 * torch.stack([angle.cos(), angle.sin()], 1)
    sure = torch.tensor([[1e9, 0.0]]).expand(100, 2)
    assert densities.log_probabilities(far, sure).exp().max().item() == pytest.approx(0.5, abs=1e-15)
    assert densities.bound(torch.tensor([[1e8, 0.0]]), 1e7, 2).item() == pytest.approx(0.5, abs=1e-15)


def test_many_narrow_gaussians_outside_are_refused():
    random = torch.Generator().manual_seed(0)
    x, _ = WORLD.sample(500, generator=random)
    with pytest.raises(ValueError, match=r"components must be so few .* is wider than the widest inside .*; got 30"):
        ccu.fit(100 * x, WORLD.boundary(500, generator=random), 30, generator=random)


DENSITIES, _ = random_densities(0)
X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: DENSITIES.bound(X, -1.0, 2), "radius must be a number of at least 0; got -1.0"),
        (lambda: DENSITIES.bound(X, 1.0, 1), "n_classes must be a whole number of at least 2; got 1"),
        (lambda: DENSITIES.log_ratio(torch.zeros(3, 5)), r"x must be a float tensor of shape \[n, 2\]"),
        (lambda: ccu.fit(X, X, 0, generator=torch.Generator()), "components must be a whole number of at least 1; got 0"),
        (lambda: ccu.fit(X, X, generator=None), "generator must be a torch.Generator"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
