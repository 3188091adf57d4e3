import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
