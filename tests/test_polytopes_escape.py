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


# ---- escape ----


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


# ---- the bound on the confidence ----


@given(SEEDS, st.integers(0, 3), st.sampled_from(["relu", "leaky_relu"]), st.floats(0, 2), st.sampled_from([None, 2]))
def test_no_point_of_the_box_is_surer_than_the_bound(seed, depth, activation, half, classes):
    net = network(seed, 3, depth=depth, activation=activation)
    for p in net.parameters():
        p.data *= 2  # surer networks
    x = np.stack([point(seed + i, 3, 2) for i in range(4)])
    bound = polytopes.confidence_bound(net, x - half, x + half, classes)
    inside = x[:, None] + half * np.random.default_rng(seed).uniform(-1, 1, (4, 500, 3)).round(1)  # corners among them
    with torch.no_grad():
        confidence = net.double()(torch.tensor(inside)).softmax(-1)[..., :classes].amax((1, 2)).numpy()
    assert (confidence <= bound + 1e-9).all() and (bound <= 1).all()


@given(SEEDS)
def test_with_two_outputs_the_bound_of_a_point_is_its_confidence(seed):
    net, x = network(seed, classes=2), point(seed)
    with torch.no_grad():
        confidence = net.double()(torch.tensor(x)).softmax(-1).max().item()
    assert polytopes.confidence_bound(net, x, x) == pytest.approx(confidence)


def test_known_bounds():
    linear = nn.Sequential(nn.Linear(1, 3))
    with torch.no_grad():
        linear[0].weight.copy_(torch.tensor([[1.0], [0], [0]]))
        linear[0].bias.copy_(torch.tensor([0.0, 0, -100]))
    assert polytopes.confidence_bound(linear, [-1], [2]) == pytest.approx(1 / (1 + np.exp(-2)))  # a rival decides
    with torch.no_grad():
        linear[0].bias.zero_()
    assert polytopes.confidence_bound(linear, [2], [2]) == pytest.approx(1 / (1 + 2 * np.exp(-2)))  # all rivals alike
    assert polytopes.confidence_bound(linear, [-2], [-2]) == pytest.approx(1 / (1 + np.exp(0)))  # two share the lead
    with torch.no_grad():
        linear[0].bias.copy_(torch.tensor([0.0, 0, 100]))
    assert polytopes.confidence_bound(linear, [0], [0], classes=2) < 1e-20 < 1 == polytopes.confidence_bound(linear, [0], [0])


def test_a_smaller_box_has_a_smaller_bound():
    net, x = network(1, 8, 30), np.zeros((1, 8))
    bounds = [polytopes.confidence_bound(net, x - half, x + half)[0] for half in (0.01, 0.1, 1.0)]
    assert bounds == sorted(bounds) and bounds[0] < bounds[2] < 1


@pytest.mark.parametrize(
    ("low", "high", "match"),
    [
        ([0.0], [1.0], "shape"),
        ([0.0, 0], [[1.0, 1], [1, 1]], "shape"),
        ([0.0, 2], [1.0, 1], "low <= high"),
        ([0.0, np.nan], [1.0, 1], "finite"),
    ],
)
def test_bad_boxes(low, high, match):
    with pytest.raises(ValueError, match=match):
        polytopes.confidence_bound(network(0), low, high)


def test_bad_networks():
    with pytest.raises(ValueError, match="at least 2 outputs"):
        polytopes.confidence_bound(network(0, classes=1), [0, 0], [1, 1])
    odd = nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(1.5), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="negative_slope"):
        polytopes.confidence_bound(odd, [0, 0], [1, 1])
