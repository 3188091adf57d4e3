"""The bound on the confidence in a box: no exact confidence is above it, however numbers round, and it is as tight as it was."""

import itertools
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import build
from torch import nn

from ood_helpers import models, polytopes

SEEDS = st.integers(0, 10_000)


def network(seed, dim=2, width=6, classes=3, depth=2, activation="relu"):
    return models.mlp(dim, width, classes, depth, activation, generator=torch.Generator().manual_seed(seed))


def point(seed, dim=2, size=1.0):
    return size * np.random.default_rng(seed).normal(size=dim)


def exact_confidences(model, x):
    """p [K] of the network at one point, exact but for the 60 digits that exp is computed with."""
    net = polytopes.read(model)
    h = [Fraction(v) for v in x]
    for weight, bias, leak in zip(net.weights, net.biases, [*net.leaks, 1.0], strict=True):
        h = [sum(Fraction(w) * v for w, v in zip(row, h, strict=True)) + Fraction(b) for row, b in zip(weight, bias, strict=True)]
        h = [v if v > 0 else Fraction(leak) * v for v in h]
    with localcontext(prec=60, Emin=-(10**17), Emax=10**17):
        below = [max(h) - v for v in h]
        powers = [(-Decimal(v.numerator) / Decimal(v.denominator)).exp() for v in below if v < 10**12]
        return [((-Decimal(v.numerator) / Decimal(v.denominator)).exp() if v < 10**12 else 0) / sum(powers) for v in below]


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.01, 0.5, 1.0]), st.integers(1, 3), st.sampled_from([0, 0, 1e-12, 1e-3, 1]))
def test_no_exact_confidence_is_above_the_bound(seed, leak, hidden, half):
    """Ten boxes of a network whose layers are huge or tiny, but cancel: the logits are moderate and rounding is not."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-9, 9, hidden)
    sizes = [2, *rng.integers(1, 4, hidden), int(rng.integers(2, 4))]
    weights = [rng.normal(size=(n, m)) for m, n in itertools.pairwise(sizes)]
    for i, scale in enumerate(scales):
        weights[i], weights[i + 1] = weights[i] * scale, weights[i + 1] / scale
    shift = rng.choice([0.0, 1e3, 1e6])
    biases = [rng.normal(size=len(w)) * np.prod(scales[: i + 1]) for i, w in enumerate(weights)]
    biases[0] = biases[0] - shift * weights[0].sum(1)
    model = build(weights, biases, leak)
    middle = shift + rng.normal(size=(10, 2))
    low, high = middle - half, middle + half
    bound = polytopes.confidence_bound(model, low, high)
    for i in range(10):
        corner = np.where(rng.random(2) < 0.5, low[i], high[i])
        assert max(exact_confidences(model, corner)) <= Decimal(float(bound[i]))


@pytest.mark.parametrize("x", [1000000.4370167115])
def test_logits_that_cancel_are_rounded_outwards(x):
    model = build([[[-84457603.2051528], [0]]], [[84457640114536.98, 0]])
    exact = max(exact_confidences(model, [x]))
    assert exact == pytest.approx(Decimal(".54479"), abs=Decimal("1e-5"))
    assert polytopes.confidence_bound(model, [x], [x]) >= float(exact)


@pytest.mark.parametrize("half", [0, 1e-17])
def test_neurons_that_cancel_are_rounded_outwards(half):
    """w relu(a x) − w relu(b x): the terms are 1e16 times their difference, which alone is left when the rows are multiplied."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, w, x = rng.uniform(1, 2, 3)
        b, x, w = a * (1 + rng.integers(-9, 9) * 2.0**-52), x * 1e8, w * 1e8
        model = build([[[a], [b]], [[w, -w], [0, 0]]], [None, None])
        bound = polytopes.confidence_bound(model, [x - half], [x + half])[0]
        assert max(exact_confidences(model, [x])) <= Decimal(float(bound))


@pytest.mark.parametrize(
    ("weights", "box"),
    [
        ([[[1e200], [-1e200]], [[1e200, 1], [0, 0]]], (-1, 1e5)),
        ([[[1e200], [1e200]], [[1e200, -1e200], [0, 0]]], (1, 1)),
        ([[[1e308, 1e308]], [[-1.0], [0]]], (1.7e308, 1.7e308)),
        ([[[1e300]], [[1e300]], [[1e-300], [0]]], (1, 1)),
    ],
)
def test_where_numbers_overflow_nothing_is_promised(weights, box):
    low, high = (np.full(len(weights[0][0]), v) for v in box)
    assert polytopes.confidence_bound(build(weights, [None] * len(weights)), low, high) == 1


def test_confidences_too_small_for_floats_are_not_zero():
    model = build([[[-1.0], [0]]], [None])
    for x in (700.0, 720.0, 745.0, 800.0, 1e6):
        assert 0 < polytopes.confidence_bound(model, [x], [x], classes=1) < 1e-280
        assert exact_confidences(model, [x])[0] <= Decimal(float(polytopes.confidence_bound(model, [x], [x], classes=1)[0]))


def test_the_bound_is_reached_where_the_chord_is():
    """relu(x) from −1 to 1 lies below the chord (x + 1) / 2, which is reached at both ends; 1 at x = 1 is the most."""
    model = build([[[1.0]], [[1.0], [0]]], [None, None])
    assert polytopes.confidence_bound(model, [-1], [1]) == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-14)
    leaky = build([[[1.0]], [[-1.0], [0]]], [None, None], leak=0.5)
    assert polytopes.confidence_bound(leaky, [-4], [1], classes=1) == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-14)


@pytest.mark.parametrize(("dim", "width", "classes", "depth"), [(2, 100, 2, 2), (64, 128, 10, 2), (5, 50, 3, 4)])
def test_rounding_outwards_costs_nothing_that_is_seen(dim, width, classes, depth):
    net = network(0, dim, width, classes, depth).double()
    x = np.random.default_rng(0).normal(size=(3, dim))
    confidence = net(torch.tensor(x)).softmax(-1)
    got = polytopes.confidence_bound(net, x, x, classes=1)
    rivals = (confidence[:, :1] / (confidence[:, :1] + confidence[:, 1:])).amin(1)
    logits = net(torch.tensor(x))
    mean = torch.sigmoid(logits[:, 0] - logits[:, 1:].mean(1) - np.log(classes - 1))
    assert got == pytest.approx(torch.minimum(rivals, mean).detach().numpy(), abs=1e-9)


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
    assert polytopes.confidence_bound(net, x, x) == pytest.approx(confidence, rel=1e-12)


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


@pytest.mark.parametrize("classes", [-1, 0, 4, 5, True, 2.0, "2", np.int64(4)])
def test_classes_are_some_of_the_outputs(classes):
    with pytest.raises(ValueError, match="classes must be"):
        polytopes.confidence_bound(network(0), [0, 0], [1, 1], classes)


def test_any_numbers_will_do():
    net, x = network(0), np.zeros(2)
    expected = polytopes.confidence_bound(net, x, x + 1, 2)
    for low, high, classes in [
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(1, 2, requires_grad=True), np.int32(2)),
        ([0, 0], torch.ones(2).to_sparse(), torch.tensor(2)),
    ]:
        assert polytopes.confidence_bound(net, low, high, classes) == expected
