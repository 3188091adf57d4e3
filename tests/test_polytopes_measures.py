"""Areas and worst cases against closed forms, against dense sampling, and against each other."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact_cells import exact_cells, exact_class_areas
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from small_networks import build, random_network
from torch import nn

from ood_helpers.polytopes import measures, polygons
from ood_helpers.polytopes.plane import plane

MEANS = np.array([[-2.0, 0.5], [2.5, -1.0]])


def linear(weight, bias, lo=-4.0, hi=4.0):
    """The polytope of a network without hidden layers."""
    return plane(build([weight], [bias]), lo, hi)


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def samples(polytopes, means, radius, n=200_000):
    """Probabilities [m, K] at those of n uniform points of the rectangle that lie outside the discs."""
    x = np.random.default_rng(0).uniform(polytopes.lo, polytopes.hi, (n, 2))
    for mean in means:
        x = x[np.linalg.norm(x - mean, axis=1) >= radius]
    return softmax(polytopes.network(x))


def assert_area(area, share_of_points, polytopes, n=200_000):
    """Within six standard deviations of what the sampled points say."""
    box = polytopes.areas.sum()
    share = share_of_points.sum() / n
    assert abs(area / box - share) < 6 * np.sqrt(max(share * (1 - share), 1 / n) / n)


# ---- discs ----


@pytest.mark.parametrize(
    ("mean", "radius", "area"),
    [
        ([0, 0], 1, np.pi),  # inside
        ([4, 0], 1, np.pi / 2),  # centre on an edge
        ([4, 4], 2, np.pi),  # on a corner
        ([-4, 4], 2, np.pi),
        ([0, 0], 6, 64),  # covers the square
        ([9, 0], 5, 0),  # touches
        ([20, 3], 5, 0),
        ([5, 0], 2, 4 * np.arccos(1 / 2) - np.sqrt(3)),  # a segment beyond the distance 1
        ([0, 0], 0, 0),
        ([0, 0], 4, 16 * np.pi),  # touches all four sides
        ([1, 2], 1e-6, 1e-12 * np.pi),
    ],
)
def test_discs_and_a_square(mean, radius, area):
    square = linear([[1, 0]], [0])
    assert measures.ood_area(square, [mean], radius) == pytest.approx(64 - area, abs=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3))
def test_disc_and_polygon(seed, radius):
    """A random convex polygon against the sum of vertical slices."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    corners = np.stack([np.cos(angle), 1.5 * np.sin(angle)], axis=1) + rng.normal(size=2) / 3
    mean = rng.normal(size=2)
    polygon = polygons.Polygons(corners, np.array([0, len(corners)]), np.array([0]))
    following = np.roll(corners, -1, axis=0)
    x = np.linspace(corners[:, 0].min(), corners[:, 0].max(), 20_001)
    x = (x[1:] + x[:-1]) / 2
    low, high = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    for p, q in zip(corners, following, strict=True):
        y = p[1] + (x - p[0]) / (q[0] - p[0]) * (q[1] - p[1])
        low, high = (np.maximum(low, y), high) if q[0] > p[0] else (low, np.minimum(high, y))
    reach = np.sqrt(np.maximum(radius**2 - (x - mean[0]) ** 2, 0))
    slices = np.minimum(high, mean[1] + reach) - np.maximum(low, mean[1] - reach)
    expected = np.maximum(slices, 0).sum() * (x[1] - x[0])
    assert polygons._area_in_disc(polygon, mean, radius)[0] == pytest.approx(expected, abs=1e-3 * (0.1 + radius))


def test_many_polytopes_share_a_disc():
    polytopes = plane(random_network(np.random.default_rng(0), [2, 20, 20, 2]), -4, 4)
    area = measures.class_areas(polytopes, MEANS, 1.5).sum()
    assert area == pytest.approx(64 - 2 * np.pi * 1.5**2, rel=1e-12)
    assert measures.ood_area(polytopes, MEANS, 1.5) == pytest.approx(area, rel=1e-12)


def test_discs_may_touch():
    """2 * 0.15 exceeds the distance between these centres by rounding only."""
    square = linear([[1, 0]], [0])
    assert measures.ood_area(square, [[0.9, 0], [1.2, 0]], 0.15) == pytest.approx(64 - 2 * np.pi * 0.15**2, rel=1e-12)


def test_discs_in_a_slice():
    """A slice of five dimensions passes the centre of a ball at a distance: the disc of the docstring is their intersection."""
    rng = np.random.default_rng(3)
    axes, origin, centre = np.linalg.qr(rng.normal(size=(5, 5)))[0][:2], rng.normal(size=5), rng.normal(size=5) / 2
    polytopes = plane(random_network(rng, [5, 10, 3]), [-4, -3], [5, 3.5], origin=origin, axes=axes)
    mean = axes @ (centre - origin)
    distance = np.linalg.norm(origin + mean @ axes - centre)
    radius = np.sqrt(3**2 - distance**2)
    s = rng.uniform(polytopes.lo, polytopes.hi, (200_000, 2))
    outside = np.linalg.norm(origin + s @ axes - centre, axis=1) >= 3
    assert 0 < distance < 3 and 0.1 < outside.mean() < 0.9
    winner = polytopes.network(s).argmax(axis=1)
    for k, area in enumerate(measures.class_areas(polytopes, [mean], radius)):
        assert_area(area, outside & (winner == k), polytopes)


# ---- closed forms ----


def test_linear_classifier():
    """f = (0, 2x + 1): class 1 wins for x > -1/2, with confidence above tau beyond log(tau / (1 - tau)) / 2."""
    polytopes = linear([[0, 0], [2, 0]], [0, 1])
    assert measures.class_areas(polytopes) == pytest.approx([3.5 * 8, 4.5 * 8])
    beyond = np.log(0.9 / 0.1) / 2
    area = measures.confident_area(polytopes, 0.9)
    assert area == pytest.approx([(8 - 2 * beyond) * 8] * 2)
    assert measures.confident_area(polytopes, 0.9, [1]) == pytest.approx([(4.5 - beyond) * 8] * 2)
    assert measures.confident_area(polytopes, 0.1, [0]) == pytest.approx([(3.5 + beyond) * 8] * 2)  # a class that loses
    assert measures.confident_area(polytopes, 0.3) == pytest.approx([64, 64])
    assert measures.confident_area(polytopes, 0) == pytest.approx([64, 64])
    peak = measures.most_confident(polytopes)
    assert peak.confidence == peak.bound == pytest.approx(1 / (1 + np.exp(-9)))
    assert (peak.point[0], peak.winner) == (4, 1)
    least = measures.least_probable(polytopes, 1)
    assert (least.confidence, least.point[0]) == (pytest.approx(1 / (1 + np.exp(7))), -4)


def test_linear_classifier_outside_a_disc():
    """A disc on the middle of the right edge: the best place is a corner, or, once the edge is hidden, beside a corner."""
    polytopes = linear([[0, 0], [1, 1e-3]], [0, 0])
    area = measures.confident_area(polytopes, 0.5, [1], [[0, 0]], 2)
    assert area == pytest.approx([32 - 2 * np.pi] * 2)
    half = linear([[0, 0], [1, 0]], [0, 0], -1.0, 1.0)
    peak = measures.most_confident(half, [1], [[1, 0]], 0.5)
    assert peak.confidence == pytest.approx(1 / (1 + np.exp(-1)))
    # the circle around (1, 0) crosses the upper and lower edge at x = 1 - 3/4; a slight slope in y decides which is best
    for tilt in (-1e-3, 1e-3):
        peak = measures.most_confident(linear([[0, 0], [1, tilt]], [0, 0], -1.0, 1.0), [1], [[1, 0]], 1.25)
        assert peak.confidence == pytest.approx(1 / (1 + np.exp(-0.251)))
        assert peak.point == pytest.approx([0.25, np.sign(tilt)])


def test_one_neuron():
    """f = (1, relu(x)): class 1 wins for x > 1 only."""
    polytopes = plane(build([[[1, 0]], [[0], [1]]], [[0], [1, 0]]), -4, 4)
    assert len(polytopes) == 2
    assert measures.class_areas(polytopes) == pytest.approx([40, 24])
    beyond = 1 + np.log(0.8 / 0.2)
    assert measures.confident_area(polytopes, 0.8, [1]) == pytest.approx([(4 - beyond) * 8] * 2)
    constant = np.exp(1) / (1 + np.exp(1))  # class 0 for all x < 0
    assert measures.confident_area(polytopes, constant - 1e-9, [0])[0] == pytest.approx(32, abs=1e-6)
    assert measures.confident_area(polytopes, constant + 1e-9, [0])[1] == 0
    assert measures.most_confident(polytopes, [0]).confidence == pytest.approx(constant)


def test_three_classes_with_a_straight_border():
    """f = (x, 0, 0): p_0 = 1 / (1 + 2 exp(-x)) exceeds tau beyond x = log(2 tau / (1 - tau))."""
    polytopes = linear([[1, 0], [0, 0], [0, 0]], [0, 0, 0])
    area = measures.confident_area(polytopes, 0.7, [0], rtol=1e-6)
    expected = (4 - np.log(2 * 0.7 / 0.3)) * 8
    assert area.low <= expected <= area.high
    assert area.high - area.low <= 1e-6 * 64
    assert measures.class_areas(polytopes) == pytest.approx([32, 32, 0])  # 1 and 2 tie: the lower index


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("tau", [0.2, 1 / 3, 0.5, 0.999999])
def test_three_classes_with_a_curved_border(scale, tau):
    """f = s (0, x, y): p_0 exceeds tau where exp(s x) + exp(s y) < (1 - tau) / tau: below a curve, whose area quad integrates."""
    level = np.log(1 / tau - 1)

    def height(x):
        """How far below the curve the square reaches at x; exp(s y) < exp(level) - exp(s x)."""
        room = level + np.log(-np.expm1(scale * x - level)) if scale * x < level else -np.inf
        return np.clip(room / scale, -4, 4) + 4

    area = measures.confident_area(linear([[0, 0], [scale, 0], [0, scale]], [0, 0, 0]), tau, [0])
    bends = np.clip(level / scale - np.array([0, 0.1, 1, 10]) / scale, -4, 4)
    expected = sum(quad(height, a, b, epsabs=1e-9)[0] for a, b in zip([-4, *bends[::-1]], [*bends[::-1], 4], strict=True))
    assert area.low - 1e-6 <= expected <= area.high + 1e-6
    assert area.high - area.low <= 1e-5 * 64


def cross(lo=-3.0, hi=3.0):
    """f = (0, x, -x, y, -y): p_0 = 1 / (1 + 2 cosh x + 2 cosh y) has its maximum 1/5 inside, at the origin."""
    return linear([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], [0] * 5, lo, hi)


def test_a_maximum_inside_a_polytope():
    peak = measures.most_confident(cross([-3, -2], [4, 3]), [0], tol=1e-9)
    assert peak.confidence == pytest.approx(0.2, rel=1e-9)
    assert peak.confidence <= 0.2 <= peak.bound <= 0.2 * (1 + 2e-9)
    np.testing.assert_allclose(peak.point, 0, atol=1e-3)


def test_a_maximum_on_an_arc():
    """Outside a disc around the origin p_0 is greatest at 45°, where the circle crosses no edge."""
    expected = 1 / (1 + 4 * np.cosh(1.5 / np.sqrt(2)))
    peak = measures.most_confident(cross(), [0], [[0, 0]], 1.5)
    assert peak.confidence <= expected <= peak.bound
    assert peak.bound / peak.confidence < 1 + 2e-6
    assert np.linalg.norm(peak.point) >= 1.5
    np.testing.assert_allclose(np.abs(peak.point), 1.5 / np.sqrt(2), atol=1e-2)


def test_a_maximum_along_a_line_ends_with_a_wider_bound(monkeypatch):
    monkeypatch.setattr(measures, "_MOST", 500)
    polytopes = linear([[0, 0], [1, 0.3], [-1, -0.3]], [0, 0, 0])
    peak = measures.most_confident(polytopes, [0], tol=1e-12)
    assert peak.confidence <= 1 / 3 <= peak.bound * (1 + 1e-12)
    assert 1e-6 < peak.bound / peak.confidence - 1 < 0.1


def silent(seed, n_classes, n=8):
    """A network whose last hidden layer rests in large parts of the plane. Its last biases are 0: there all classes tie."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, 2)), -np.abs(rng.normal(size=(n, n))), rng.normal(size=(n_classes, n))]
    return plane(build(weights, [rng.normal(size=n), np.abs(rng.normal(size=n)), np.zeros(n_classes)]), -4, 4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_ties_over_an_area(seed, n_classes):
    """The sums behind the maps leave slopes near 1e-16 where they should be 0; that must not choose the winner of the area."""
    polytopes = silent(seed, n_classes)
    x = np.random.default_rng(0).uniform(-4, 4, (200_000, 2))
    logits = polytopes.network(x)
    tied = (logits == 0).all(axis=1)
    assert tied.mean() > 0.1
    for k, area in enumerate(measures.class_areas(polytopes)):
        assert_area(area, logits.argmax(axis=1) == k, polytopes)
    p = softmax(logits)
    for tau, share in ((1 / n_classes, ~tied & (p.max(axis=1) > 1 / n_classes)), (0.99 / n_classes, np.ones(len(x)))):
        area = measures.confident_area(polytopes, tau)
        assert_area(area.low, share, polytopes)
        assert_area(area.high, share, polytopes)


def test_ties_have_one_winner():
    polytopes = linear([[1, 0], [1, 0]], [2, 2])
    assert measures.class_areas(polytopes) == pytest.approx([64, 0])
    assert measures.confident_area(polytopes, 0.5) == (0, 0)  # 1/2 does not exceed 1/2
    assert measures.confident_area(polytopes, 0.499) == pytest.approx([64, 64])
    assert measures.most_confident(polytopes).confidence == pytest.approx(0.5)
    three = linear([[1, 0], [1, 0], [1, 0]], [2, 2, 2])
    assert measures.confident_area(three, 0.3, [2, 0]) == measures.confident_area(three, 0.3, [0, 2]) == pytest.approx([64, 64])
    assert measures.most_confident(three, [2, 0]).winner == 0
    assert measures.confident_area(three, 0.3, 1) == measures.confident_area(three, 0.3, [1])


def test_one_class_is_always_certain():
    polytopes = plane(build([[[1, 0]], [[1]]], [[0], [0]]), -4, 4)
    assert measures.class_areas(polytopes) == pytest.approx([64])
    assert measures.confident_area(polytopes, 0.99) == pytest.approx([64, 64])
    assert measures.most_confident(polytopes).confidence == 1


# ---- any network, against plain loops and against sampling ----


def plain_clip(corners, slope, offset):
    """The part of one polygon, a list of points, where slope @ x + offset is positive: one side after another."""
    left = []
    for p, q in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        a, b = slope @ p + offset, slope @ q + offset
        left += [p] if a > 0 else []
        left += [p + a / (a - b) * (q - p)] if a * b < 0 else []
    return left


def plain_area(corners):
    following = [*corners[1:], *corners[:1]]
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(corners, following, strict=True)) / 2


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_against_plain_clipping(n_classes):
    polytopes = plane(random_network(np.random.default_rng(n_classes), [2, 12, 12, n_classes]), [-4, -1], [40, 3.5])
    won, leads = np.zeros(n_classes), np.zeros(n_classes)
    for i in range(len(polytopes)):
        v, c = polytopes.slopes[i], polytopes.offsets[i]
        for k in range(n_classes):
            part = leading = list(polytopes.polygon(i))
            for other in set(range(n_classes)) - {k}:
                part = plain_clip(part, v[k] - v[other], c[k] - c[other])
                leading = plain_clip(leading, v[k] - v[other], c[k] - c[other] - np.log(0.8 / 0.2))
            won[k], leads[k] = won[k] + plain_area(part), leads[k] + plain_area(leading)
    assert measures.class_areas(polytopes) == pytest.approx(won, rel=1e-9, abs=1e-9)
    # p > 0.8 needs a lead of log 4 over each rival; with one rival that is also enough
    area = measures.confident_area(polytopes, 0.8)
    assert area == pytest.approx([leads.sum()] * 2, rel=1e-9) if n_classes == 2 else area.high < leads.sum()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 12), max_size=3),
    n_classes=st.integers(1, 6),
    scale=st.sampled_from([0, 1, 3, 1e4]),
    leak=st.sampled_from([0.0, 0.2]),
    radius=st.sampled_from([0.0, 0.7, 2.0]),
    tau=st.sampled_from([1e-9, 0.5, 0.999999]) | st.floats(0.05, 0.99),
)
def test_against_sampling(seed, hidden, n_classes, scale, leak, radius, tau):
    rng = np.random.default_rng(seed)
    model = random_network(rng, [2, *hidden, n_classes], leak)
    model[-1].weight.data *= scale
    polytopes = plane(model, [-4, -3], [5, 3.5])
    p = samples(polytopes, MEANS, radius)

    areas = measures.class_areas(polytopes, MEANS, radius)
    assert areas.sum() == pytest.approx(measures.ood_area(polytopes, MEANS, radius), rel=1e-9)
    for k in range(n_classes):
        assert_area(areas[k], p.argmax(axis=1) == k, polytopes)

    for classes in (None, [n_classes - 1], list(range(max(1, n_classes - 1)))):
        best = p[:, classes or slice(None)].max(axis=1)
        area = measures.confident_area(polytopes, tau, classes, MEANS, radius)
        assert 0 <= area.low <= area.high + 1e-12
        assert area.high - area.low <= 1.001e-5 * polytopes.areas.sum()
        assert n_classes > 2 or area.low == area.high
        assert_area((area.low + area.high) / 2, best > tau, polytopes)

        peak = measures.most_confident(polytopes, classes, MEANS, radius)
        assert best.max() <= peak.bound * (1 + 1e-9)
        assert peak.confidence <= peak.bound
        assert_reached(polytopes, peak, peak.winner, radius)
        if classes:
            assert peak.winner in classes

    least = measures.least_probable(polytopes, 0, MEANS, radius)
    assert least.confidence <= p[:, 0].min() * (1 + 1e-9)
    assert_reached(polytopes, least, 0, radius)


def assert_reached(polytopes, peak, k, radius):
    """The network itself has this probability at this point, and the point is allowed."""
    assert softmax(polytopes.network(peak.point[None]))[0, k] == pytest.approx(peak.confidence, rel=1e-6)
    assert (np.linalg.norm(peak.point - MEANS, axis=1) >= radius - 1e-9).all()
    assert polytopes.locate(peak.point[None])[0] >= 0


def test_width_of_the_course():
    """Width 100, default initialisation: nearly 20,000 polytopes and logits of the usual size."""
    torch.manual_seed(0)
    polytopes = plane(nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 3)))
    means, radius = [[-10, 0], [10, 0]], 3.0
    p = samples(polytopes, means, radius)
    areas = measures.class_areas(polytopes, means, radius)
    assert areas.sum() == pytest.approx(1e4 - 18 * np.pi, rel=1e-12)
    for k in range(3):
        assert_area(areas[k], p.argmax(axis=1) == k, polytopes)
    area = measures.confident_area(polytopes, 0.6, [0, 1], means, radius)
    assert_area(area.low, p[:, :2].max(axis=1) > 0.6, polytopes)


@pytest.mark.parametrize(("rounds", "most"), [(0, 10**9), (1, 10**9), (2, 10**9), (4, 10**9), (40, 300)])
def test_bounds_hold_whenever_the_splitting_stops(monkeypatch, rounds, most):
    polytopes = plane(random_network(np.random.default_rng(4), [2, 10, 10, 4]), -5, 5)
    narrow = measures.confident_area(polytopes, 0.5, means=MEANS, radius=1, rtol=1e-7)
    monkeypatch.setattr(measures, "_ROUNDS", rounds)
    monkeypatch.setattr(measures, "_MOST", most)
    stopped = measures.confident_area(polytopes, 0.5, means=MEANS, radius=1, rtol=1e-7)
    assert stopped.low <= narrow.low <= narrow.high <= stopped.high
    assert stopped.high - stopped.low > 1e-7 * 100


def test_narrower_bounds_lie_inside_wider_ones():
    polytopes = plane(random_network(np.random.default_rng(4), [2, 10, 10, 4]), -5, 5)
    wide, narrow = (measures.confident_area(polytopes, 0.5, means=MEANS, radius=1, rtol=r) for r in (1e-2, 1e-6))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert narrow.high - narrow.low <= 1e-4
    assert wide.high - wide.low > 1e-4


def test_reject_probability_bounds_every_other_confidence():
    polytopes = plane(random_network(np.random.default_rng(5), [2, 12, 12, 3]), -5, 5)
    least = measures.least_probable(polytopes, 2, MEANS, 1)
    peak = measures.most_confident(polytopes, [0, 1], MEANS, 1)
    assert peak.confidence <= 1 - least.confidence


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_saturated_confidence(n_classes):
    """Logits of 1e4: probabilities of 0 and 1 in float64, no warning, and bounds as narrow as ever."""
    model = random_network(np.random.default_rng(0), [2, 8, 8, n_classes])
    model[-1].weight.data *= 1e4
    polytopes = plane(model, -5, 5)
    assert measures.least_probable(polytopes, 0).confidence == 0
    area = measures.confident_area(polytopes, 0.999999)
    assert area.high - area.low <= 1e-5 * 100
    assert_area(area.low, samples(polytopes, [], 0).max(axis=1) > 0.999999, polytopes)
    # many points have confidence 1 in float64, but only one has the greatest lead over the runner-up
    peak = measures.most_confident(polytopes)
    assert peak.confidence == peak.bound == 1
    x = np.concatenate([peak.point[None], np.random.default_rng(0).uniform(-5, 5, (100_000, 2)), polytopes.corners])
    ranked = np.sort(polytopes.network(x), axis=1)
    lead = ranked[:, -1] - ranked[:, -2]
    assert lead[0] >= lead.max() * (1 - 1e-6)


def test_a_corner_on_the_circle():
    """The best corner lies on the circle, but by rounding a little inside in one case of ten: it is an OOD point all the same."""
    polytopes = linear([[0, 0], [1, 0.5]], [0, 0])
    for mean in np.random.default_rng(0).uniform(-1, 1, (100, 2)):
        peak = measures.most_confident(polytopes, [1], [mean], np.hypot(*(4 - mean)))
        np.testing.assert_allclose(peak.point, [4, 4], rtol=1e-12)


# ---- bad input ----


@pytest.mark.parametrize("tau", [1, -0.1, 1.5, np.nan])
def test_bad_tau(tau):
    with pytest.raises(ValueError, match="tau must be"):
        measures.confident_area(cross(), tau)


@pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
def test_bad_tolerances(value):
    with pytest.raises(ValueError, match="rtol must be a finite number, 0 or more"):
        measures.confident_area(cross(), 0.5, rtol=value)
    with pytest.raises(ValueError, match="tol must be a finite number, 0 or more"):
        measures.most_confident(cross(), tol=value)


@pytest.mark.parametrize("classes", [[], [5], [-1], [1, 1], [0.5], 5, [[0, 1]]])
def test_bad_classes(classes):
    for measure in (lambda: measures.confident_area(cross(), 0.5, classes), lambda: measures.most_confident(cross(), classes)):
        with pytest.raises(ValueError, match="classes must be distinct numbers from 0 to 4"):
            measure()
    for k in (5, [0, 1]):
        with pytest.raises(ValueError, match="from 0 to 4"):
            measures.least_probable(cross(), k)


@pytest.mark.parametrize(
    ("means", "radius", "words"),
    [
        ([0, 0], 1, "means must be"),
        ([[0, 0, 0]], 1, "means must be"),
        ([[0, np.nan]], 1, "means must be"),
        ([[0, 0]], -1, "radius must be"),
        ([[0, 0]], np.inf, "radius must be"),
        ([[0, 0], [1, 0]], 0.6, "overlap"),
    ],
)
def test_bad_discs(means, radius, words):
    with pytest.raises(ValueError, match=words):
        measures.class_areas(cross(), means, radius)


def test_discs_that_leave_nothing():
    with pytest.raises(ValueError, match="no OOD point is left"):
        measures.most_confident(cross(), means=[[0, 0]], radius=5)
    assert measures.ood_area(cross(), [[0, 0]], 5) == 0
    assert measures.confident_area(cross(), 0.1, means=[[0, 0]], radius=5) == pytest.approx([0, 0], abs=1e-12)


# ---- numbers of very different sizes ----


@pytest.mark.parametrize(
    ("weight", "bias", "areas"),
    [
        ([[1, 0], [-1, 0], [0, 0]], [0, 0, -1e15], [2, 2, 0]),
        ([[1e-13, 0], [-1e-13, 0]], [0, 0], [2, 2]),
        ([[1, 0.3], [-1, 0.2], [0, 0]], [0, 0.1, -1e12], [1.9, 2.1, 0]),
        ([[1e-13, 0], [-1e-13, 0], [1e13, 0]], [0, 0, -1e14], [2, 2, 0]),
    ],
)
def test_a_large_number_elsewhere_decides_nothing(weight, bias, areas):
    assert measures.class_areas(linear(weight, bias, -1.0, 1.0)) == pytest.approx(areas)


def test_a_small_difference_is_a_difference():
    assert measures.confident_area(linear([[1e-13, 0], [-1e-13, 0]], [0, 0], -1.0, 1.0), 0.5) == pytest.approx((4, 4))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), hidden=st.sampled_from([[], [3], [4], [2, 3]]), classes=st.integers(2, 4))
def test_areas_against_exact_fractions_whatever_the_sizes(seed, hidden, classes):
    """Weights and biases of sizes from 1e-9 to 1e9, side by side."""
    rng, sizes = np.random.default_rng(seed), [2, *hidden, classes]
    weights = [rng.normal(size=(m, n)) * 10.0 ** rng.integers(-3, 4, (m, 1)) for n, m in pairwise(sizes)]
    biases = [rng.normal(size=len(w)) * 10.0 ** rng.integers(-9, 10, len(w)) for w in weights]
    found = measures.class_areas(plane(build(weights, biases), -1, 1))
    fractions = [[[Fraction(v) for v in row] for row in w.tolist()] for w in weights], [[Fraction(v) for v in b] for b in biases]
    expected = exact_class_areas(exact_cells(*fractions, Fraction(0), 1))
    assert found.sum() == pytest.approx(4)
    np.testing.assert_allclose(found, np.array(expected, dtype=float), atol=1e-5)


# ---- tolerances: neither smaller nor larger than they are ----


def test_a_small_lead_is_a_lead():
    """1e-9 of a logit decides, though it is little against the logit."""
    polytopes = linear([[1, 0], [1 + 1e-9, 0]], [0, -2e-9], 1.0, 3.0)
    assert measures.class_areas(polytopes) == pytest.approx([2, 2], rel=0.02)


def test_a_lead_of_few_digits_is_a_lead():
    """Three in 10¹¹ of a logit are more than its rounding."""
    assert measures.class_areas(linear([[0, 0], [0, 0]], [1, 1 + 3e-11], -1, 1)) == pytest.approx([0, 4])


def test_discs_that_overlap_a_little_are_refused():
    square = linear([[1, 0], [0, 1]], [0, 0])
    with pytest.raises(ValueError, match="overlap"):
        measures.ood_area(square, [[0, 0], [0.2985, 0]], 0.15)


def test_a_corner_just_inside_a_disc_is_not_outside():
    """The surest place is the corner (4, 4) of the square, which a disc hides by half a percent of its radius."""
    square = linear([[1, 1], [0, 0]], [0, 0])
    peak = measures.most_confident(square, [0], [[4 - 0.7, 4 - 0.7]], 0.7 * 2**0.5 * 1.005)
    assert np.linalg.norm(peak.point - [3.3, 3.3]) >= 0.7 * 2**0.5 * 1.005 * (1 - 1e-9)
