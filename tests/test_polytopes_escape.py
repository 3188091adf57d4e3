import itertools
import operator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import build, random_network
from torch import nn

from ood_helpers import models, polytopes

SEEDS = st.integers(0, 10_000)


def network(seed, dim=2, width=6, classes=3, depth=2, activation="relu"):
    return models.mlp(dim, width, classes, depth, activation, generator=torch.Generator().manual_seed(seed))


def point(seed, dim=2, size=1.0):
    return size * np.random.default_rng(seed).normal(size=dim)


@given(SEEDS, st.integers(1, 3), st.sampled_from(["relu", "leaky_relu"]), st.sampled_from([0.3, 3.0]))
def test_a_polytope_that_never_ends_reaches_the_edge_of_any_box(seed, depth, activation, size):
    net, x = network(seed, depth=depth, activation=activation), point(seed, size=size)
    cells = polytopes.plane(net, -1e5, 1e5)
    corners = cells.polygon(int(cells.locate(x[None])[0]))
    assert (polytopes.escape(net, x) is not None) == bool(np.isclose(np.abs(corners), 1e5).any())


@given(SEEDS, st.sampled_from([2, 5, 20]))
def test_there_are_no_kinks_on_the_way_out(seed, dim):
    net, x = network(seed, dim), point(seed, dim)
    v = polytopes.escape(net, x)
    if v is not None:
        assert np.linalg.norm(v) == pytest.approx(1)
        ray = polytopes.ray(net, x, v)
        assert (ray.t <= 1e-6).all() or ray.t[-1] > 1e6  # along an edge of the cone rounding may meet a kink very far out


def test_both_answers_occur_and_dimension_decides():
    found = {dim: [polytopes.escape(network(s, dim, 32), point(s, dim)) is not None for s in range(20)] for dim in (2, 64)}
    assert not all(found[2]) and all(found[64])


def test_known_polytopes():
    strip = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        strip[0].weight.copy_(torch.tensor([[1.0, 0], [-1, 0]]))
        strip[0].bias.fill_(1)  # between the kinks at x1 = -1 and x1 = 1
    assert np.abs(polytopes.escape(strip, [0, 0])) == pytest.approx([0, 1])
    assert polytopes.escape(nn.Sequential(nn.Linear(2, 2)), [0, 0]) is not None
    corner = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        corner[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
        corner[0].bias.copy_(torch.tensor([0.0, 0, 1]))  # a triangle
    assert polytopes.escape(corner, [0.2, 0.2]) is None
    v = polytopes.escape(corner, [2, 2])
    assert v.min() > -1e-9
    with torch.no_grad():
        corner[2].weight.zero_()
        corner[0].weight.zero_()
    assert polytopes.escape(corner, [0.2, 0.2]) is not None  # no kinks at all


def test_escape_refuses():
    with pytest.raises(ValueError, match="x must have shape"):
        polytopes.escape(network(0), [1.0])
    with pytest.raises(ValueError, match="layer 1"):
        polytopes.escape(network(0, activation="tanh"), [0.0, 0.0])


def never_ends(model, x, v):
    """Whether the ray from x along v keeps all signs that are not 0 at x, in fractions; v need not have length 1."""
    net = polytopes.read(model)
    h, slope = [Fraction(float(a)) for a in x], [Fraction(float(a)) for a in v]
    for weight, bias, leak in zip(net.weights, net.biases, net.leaks, strict=False):
        weight = [[Fraction(float(a)) for a in row] for row in weight]
        z = [sum(map(operator.mul, row, h)) + Fraction(float(b)) for row, b in zip(weight, bias, strict=True)]
        change = [sum(map(operator.mul, row, slope)) for row in weight]
        if any(a * b < 0 for a, b in zip(z, change, strict=True)):
            return False
        scale = [1 if a > 0 or (a == 0 and b > 0) else Fraction(leak) for a, b in zip(z, change, strict=True)]
        h, slope = ([a * s for a, s in zip(values, scale, strict=True)] for values in (z, change))
    return True


def ways_out(model, x):
    """Whether any ray of the plane never ends: where the set of such rays is not empty, some edge of its cones is one of them."""
    net, rays = polytopes.read(model), [np.array([1, 0]), np.array([0, 1])]
    for signs in itertools.product([1, 2] if net.leaks[0] else [0, 1], repeat=len(net.weights[0])):  # or 1/2 and 1, twice
        slopes = [[int(a) for a in row] for row in net.weights[0]]
        rays += [np.array([-row[1], row[0]]) for row in slopes]
        kept = np.array(slopes) * np.array(signs)[:, None]
        rays += [np.array([-row[1], row[0]]) for row in net.weights[1].astype(int) @ kept]
    return any(
        never_ends(model, x, s * ray) for ray in {tuple(map(int, r)) for r in rays if r.any()} for s in map(np.array, (1, -1))
    )


def test_at_the_origin_without_biases_every_polytope_is_a_cone():
    assert np.abs(polytopes.escape(build([[[1], [-1]], [[1, 1]]], [None, None]), [0])) == [1]
    for seed in range(50):
        model = random_network(np.random.default_rng(seed), (3, 8, 8, 2), bias=False)
        v = polytopes.escape(model, np.zeros(3))
        assert np.linalg.norm(v) == pytest.approx(1) and never_ends(model, np.zeros(3), v)


@pytest.mark.parametrize("thin", [1e-3, 1e-5, 1e-7])
def test_thin_wedges_never_end_and_needles_do(thin):
    wedge = build([[[0, 1], [thin, -1]], [[1, 1]]], [None, None])
    v = polytopes.escape(wedge, [1, thin / 2])
    assert v == pytest.approx([1, thin / 2], abs=thin) and never_ends(wedge, [1, thin / 2], v)
    needle = build([[[0, 1], [-thin, -1], [1, 0]], [[1, 1, 1]]], [[0, 1, 0], None])
    assert polytopes.escape(needle, [0.5, 0.5]) is None  # it ends at 1 / thin


@pytest.mark.parametrize("part", range(3))
def test_networks_of_whole_numbers_are_decided_as_brute_force_does(part):
    """Points on kinks, parallel and dead neurons, strips and cones without interior: all the time."""
    rng, counts = np.random.default_rng(part), {True: 0, False: 0}
    for _ in range(150):
        sizes = [2, *rng.integers(2, 6, 2), 1]
        weights = [rng.integers(-2, 3, (n, m)) for m, n in itertools.pairwise(sizes)]
        model = build(weights, [rng.integers(-2, 3, n) for n in sizes[1:]], rng.choice([0.0, 0.5]))
        x = rng.integers(-1, 2, 2)
        v, expected = polytopes.escape(model, x), ways_out(model, x)
        assert (v is not None) == expected
        counts[expected] += 1
    assert min(counts.values()) >= 5


def test_a_strip_whose_direction_is_no_float_never_ends():
    rng = np.random.default_rng(0)
    for dim in (2, 3, 6):
        rows = rng.normal(size=(dim - 1, dim))
        strip = build([np.vstack([rows, -rows]), np.ones((1, 2 * dim - 2))], [np.ones(2 * dim - 2), None])
        v = polytopes.escape(strip, np.zeros(dim))
        assert np.abs(rows @ v).max() < 1e-14 and np.linalg.norm(v) == pytest.approx(1)


def test_what_rounding_hides_is_undecided():
    """The needle ends at 1e12: no proof has that much room, and nothing that never ends is made up."""
    needle = build([[[0, 1], [-1e-12, -1], [1, 0]], [[1, 1, 1]]], [[0, 1, 0], None])
    with pytest.raises(ArithmeticError, match="undecided"):
        polytopes.escape(needle, [0.5, 0.5])
