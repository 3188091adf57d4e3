import decimal
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import build, coarse_networks, without_biases
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


def escape(weights, x, bias=None, leak=0.0):
    """`polytopes.escape` of a network with these weights, biases 0 but in the first layer."""
    biases = [[0] * len(weight) for weight in weights]
    return polytopes.escape(build(weights, [bias or biases[0], *biases[1:]], leak), x)


def conditions(weights, biases, leak, x, u):
    """s_j a_j of every neuron in the polytope that x is left into along u, in fractions."""
    x, u = ([Fraction(number) for number in values] for values in (x, u))
    h = [
        (a, b, [Fraction(i == j) for j in range(len(x))]) for i, (a, b) in enumerate(zip(x, u, strict=True))
    ]  # value, rate, slopes
    rows = []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        new = []
        for row, c in zip(weight, bias, strict=True):
            terms = [(Fraction(w), *entry) for w, entry in zip(row, h, strict=True)]
            z, rate = Fraction(c) + sum(w * a for w, a, _, _ in terms), sum(w * b for w, _, b, _ in terms)
            slope = [sum(w * s[i] for w, _, _, s in terms) for i in range(len(x))]
            sign = -1 if (z, rate) < (0, 0) else 1
            rows.append([sign * entry for entry in slope])
            scale = 1 if sign > 0 else Fraction(leak)
            new.append((scale * z, scale * rate, [scale * entry for entry in slope]))
        h = new
    return [row for row in rows if any(row)] if leak != 1 else []  # a slope of 1 below 0: no kinks


@given(coarse_networks(2), st.tuples(st.integers(-1, 1), st.integers(-1, 1)))
def test_on_kinks_one_polytope_around_x_that_never_ends_is_enough(parts, x):
    """In the plane a cone has an edge (-b, a) of one of its conditions; many directions enter all polytopes around a coarse x."""
    weights, biases, leak = parts
    never = not conditions(weights, biases, leak, x, (1, 0))
    for u in {(round(999 * np.cos(angle)), round(1000 * np.sin(angle))) for angle in np.arange(0.1, 6.3, 0.2)}:
        rows = conditions(weights, biases, leak, x, u)
        edges = [edge for a, b in rows for edge in ((-b, a), (b, -a))]
        never = never or any(all(r[0] * e[0] + r[1] * e[1] >= 0 for r in rows) for e in edges)
    assert (polytopes.escape(build(weights, biases, float(leak)), x) is not None) == never


@given(SEEDS, st.integers(1, 8), st.integers(1, 3), st.sampled_from(["relu", "leaky_relu"]))
def test_without_biases_every_polytope_at_the_origin_is_a_cone(seed, dim, depth, activation):
    net = without_biases(network(seed, dim, 8, depth=depth, activation=activation))
    v = polytopes.escape(net, np.zeros(dim))
    assert np.linalg.norm(v) == pytest.approx(1) and len(polytopes.ray(net, np.zeros(dim), v).t) == 1


def test_a_kink_at_x_does_not_end_both_polytopes():
    assert abs(escape([[[1], [-1]], [[1, 1]]], [0])) == [1]
    # x = 0 on the kink of the first neuron: to the left 2 x + 3 = 0 ends it, to the right nothing does
    assert escape([[[1], [2]], [[1, 1]]], [0], [0, 3]) == [1]
    assert escape([[[1], [2], [-2]], [[1, 1, 1]]], [0], [0, 3, 3]) is None  # on both sides it ends
    # only where both neurons are on, x1, x2 > 0, the last ends nothing: one polytope of four never ends
    hedge = [[1, 0], [0, 1], [1, 1], [-1, 2], [2, -1]]
    assert escape([hedge, [[1] * 5]], [0, 0], [0, 0, 1, 1, 1]).min() > 0


@pytest.mark.parametrize("thin", [1e-5, 1e-8, 1e-12, 1e-30, 1e-200])
def test_thin_wedges_never_end(thin):
    """x2 >= 0 and thin x1 >= x2."""
    v = escape([[[0, 1], [thin, -1]], [[1, 1]]], [1, thin / 2])
    assert v[0] == pytest.approx(1) and 0 <= Fraction(v[1]) <= Fraction(thin) * Fraction(v[0])


@pytest.mark.parametrize("thin", [1e-5, 1e-7, 1e-12, 1e-30, 1e-200])
def test_needles_end(thin):
    """x1, x2 >= 0 and thin x1 + x2 <= 1: the end is at 1 / thin."""
    assert escape([[[0, 1], [-thin, -1], [1, 0]], [[1, 1, 1]]], [0.5, 0.5], [0, 1, 0]) is None
    assert escape([[[0, 1, 0], [-thin, -1, 0], [1, 0, 0]], [[1, 1, 1]]], [0.5, 0.5, 7], [0, 1, 0]) == pytest.approx([0, 0, 1])


@given(SEEDS, st.integers(1, 6), st.floats(0, 12))
def test_a_way_out_and_a_dead_end_hold_in_fractions(seed, dim, digits):
    """Cones with a known inner direction, up to 1e-12 wide, and the same cones with one condition that shuts them."""
    rng = np.random.default_rng(seed)
    inner = rng.normal(size=dim)
    rows = rng.normal(size=(dim + 2, dim))
    rows -= np.outer(rows @ inner / (inner @ inner), inner)
    rows += 10**-digits * rng.uniform(0.5, 1, (dim + 2, 1)) * inner  # products with `inner` are small and positive
    exact = [[Fraction(a) for a in row] for row in rows]
    v = escape([rows, [[1] * len(rows)]], 0 * inner, [1] * len(rows))
    if all(sum(a * Fraction(b) for a, b in zip(row, inner, strict=True)) > 0 for row in exact):
        assert v is not None and all(sum(a * Fraction(b) for a, b in zip(row, v, strict=True)) >= 0 for row in exact)
    shut = np.vstack([rows, -rows.sum(axis=0) * rng.uniform(0.5, 2)])
    if dim > 1 and v is not None and np.linalg.matrix_rank(rows) == dim:
        assert escape([shut, [[1] * len(shut)]], 0 * inner, [1] * len(shut)) is None or (shut @ v >= 0).all()


def test_flat_cones():
    """A second layer of two neurons shuts what the first one leaves, but for a line on which no neuron changes."""
    first = np.array([[3.0, 1, 0], [1, 7, 0], [0.1, 0.2, -1]])
    shut = build([first, [[-1, -2, 0], [1, 0, 0]], [[1, 1]]], [[0, 0, 0], [30, 0], [0]])
    assert polytopes.escape(shut, [1, 1, 5]) == pytest.approx([0, 0, 1])
    # many inputs and few neurons: a polytope is never bounded, though later layers shut what the first one leaves
    assert all(polytopes.escape(network(seed, 40, 12, depth=3), point(seed, 40)) is not None for seed in range(40))


def test_what_is_too_large_to_be_decided_is_not_guessed():
    pairs = np.random.default_rng(0).normal(size=(40, 64))  # 40 strips at once: rounding would decide
    with pytest.raises(ArithmeticError, match=r"undecided: .* too many to be solved exactly"):
        escape([np.vstack([pairs, -pairs]), [[1] * 80]], np.zeros(64), [1] * 80)
    kinks = np.random.default_rng(0).integers(-9, 10, (14, 5)).astype(float)
    box = np.vstack([kinks, np.eye(5), -np.eye(5)])
    with pytest.raises(ArithmeticError, match="undecided: x lies on too many kinks"):
        escape([box, [[1] * 24]], np.zeros(5), [0] * 14 + [1] * 10)


def test_a_sum_that_rounding_turns_round():
    """y >= 0, x >= 0 and t x >= y, with a t = Σ w_i a_i that is below 0 though floats may say above: the polytope ends."""
    rng, ended = np.random.default_rng(0), 0
    while ended < 20:
        a, w = rng.uniform(1, 2, 3) * 1e10, rng.normal(size=3)
        w[2] = -(a[:2] @ w[:2]) / a[2]
        t = sum(Fraction(p) * Fraction(q) for p, q in zip(a, w, strict=True))
        first, last = [[0, 1], *([number, 0] for number in a)], [[-1, *w]]
        v = polytopes.escape(build([first, last, [[1]]], [[0] * 4, [1e9], [0]]), [1, 1])
        assert (v is None) == (t < 0)
        ended += t < 0


def test_a_neuron_without_a_kink_ends_nothing():
    box = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    assert escape([box, [[1] * 4]], [0, 0], [1] * 4, leak=0.5) is None
    assert escape([box, [[1] * 4]], [0, 0], [1] * 4, leak=1.0) is not None


def test_escape_refuses():
    with pytest.raises(ValueError, match="x must have shape"):
        polytopes.escape(network(0), [1.0])
    with pytest.raises(ValueError, match="layer 1"):
        polytopes.escape(network(0, activation="tanh"), [0.0, 0.0])


# ---- the bound on the confidence ----


def exact_confidence(weights, biases, leak, x, classes=None):
    """The largest softmax probability at x, to 60 digits: logits in fractions, exp in decimals."""
    h = [Fraction(number) for number in x]
    for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if depth:
            h = [z if z > 0 else Fraction(leak) * z for z in h]
        h = [Fraction(c) + sum(Fraction(w) * a for w, a in zip(row, h, strict=True)) for row, c in zip(weight, bias, strict=True)]
    with decimal.localcontext(prec=60, Emin=-(10**9), Emax=10**9):
        gaps = [[decimal.Decimal((a - b).numerator) / (a - b).denominator for a in h] for b in h[:classes]]
        return max(1 / sum(min(gap, decimal.Decimal(10**6)).exp() for gap in row) for row in gaps)


@given(
    SEEDS,
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    st.sampled_from([-160, -12, -3, 0, 3, 8]),
    st.sampled_from([0.0, 1e-9, 0.1, 1.0]),
)
def test_the_bound_is_certain_to_the_last_bit(seed, sizes, k, leak, digits, half):
    """Biases are chosen so that large terms cancel at the first point."""
    rng = np.random.default_rng(seed)
    sizes = [*sizes, k]
    weights = [rng.normal(size=(n, m)) * 10.0 ** rng.integers(-1, 2) for m, n in itertools.pairwise(sizes)]
    weights[0], x = weights[0] * 10.0**-digits, rng.normal(size=(6, sizes[0])) * 10.0**digits
    biases, h = [], x[0]
    for weight in weights:
        biases.append(rng.normal(size=len(weight)) - (weight @ h if rng.random() < 0.7 else 0))
        h = weight @ h + biases[-1]
        h = np.where(h > 0, h, leak * h)
    low, high = (x + sign * half * np.abs(x) for sign in (-1, 1))
    for classes in (None, 1):
        bound = polytopes.confidence_bound(build(weights, biases, leak), low, high, classes)
        for i, chosen in itertools.product(range(len(x)), range(3)):
            inside = (low[i], high[i], np.where(rng.random(sizes[0]) < 0.5, low[i], high[i]))[chosen]
            assert Fraction(exact_confidence(weights, biases, leak, inside, classes)) <= Fraction(bound[i])


def test_large_terms_that_cancel():
    weights, biases, x = [[[-84457603.2051528], [0]]], [[84457640114536.98, 0]], [1000000.4370167115]
    truth = exact_confidence(weights, biases, 0, x)
    assert float(truth) == pytest.approx(0.54479, abs=1e-5)
    assert truth <= polytopes.confidence_bound(build(weights, biases), x, x)[0] < 0.65


@pytest.mark.parametrize("size", [1e200, 1e300])
@pytest.mark.parametrize("sign", [-1, 1])
def test_where_numbers_overflow_the_bound_is_1(size, sign):
    net = build([[[size], [-size]], [[sign * size, -size], [size, sign * size], [0, 0]]], [[0, 0], [0, 0, 0]])
    assert (polytopes.confidence_bound(net, [[-1e10], [1e10], [-1e10]], [[1e10], [1e10], [-1e10]]) == 1).all()
    assert 0 < polytopes.confidence_bound(build([[[0], [0]]], [[-1e4, 0]]), [0], [0], classes=1) < 1e-300


def test_the_lines_are_those_of_crown():
    """A chord above a crossing ReLU, x or 0 below it: bounds worked out by hand, f against 0.

    Where the interval of each neuron by itself says more than the lines, it is taken.
    """

    def bound(weights, low, high, leak=0.0, first=((1,), (-1,))):
        return polytopes.confidence_bound(build([first, [weights, [0, 0]]], [[0, 0], [0, 0]], leak), [low], [high], 1)

    def near(logit):
        return pytest.approx([1 / (1 + np.exp(-logit))], rel=1e-12)

    assert bound([1, 0], -1, 1) == near(1) and bound([1, 0], -1, 3) == near(3)  # a chord meets the ReLU at both ends
    assert bound([1, 1], -1, 1) == near(1)  # chords (x + 1) / 2 + (1 − x) / 2
    assert bound([1, 1], -1, 1, leak=0.5) == near(0.5 + 0.25 + 0.25 - 0.5)  # chords ¾ x + ¼ and ¼ − ¾ x
    assert bound([-1, 0], -1, 2) == near(0) and bound([-1, 0], -2, 1) == near(0)  # the interval; a line x below would say 1
    twice = ((1,), (1,))  # the difference of two equal neurons: a chord less the line below it, x or 0
    assert bound([1, -1], -1, 2, first=twice) == near(1) and bound([1, -1], -2, 1, first=twice) == near(1)
    assert bound([1, -1], -1, 2, leak=0.5, first=twice) == near(0.5)
    assert bound([-1, 0], -2, 1, leak=0.5) == near(1)
    assert bound([1, 0], 1, 2) == near(2) and bound([1, 0], -2, -1) == near(0) and bound([-1, 0], -2, -1, leak=0.5) == near(1)


def test_boxes_of_any_kind():
    x = torch.tensor([0.5, -0.25], requires_grad=True)
    want = polytopes.confidence_bound(network(0), [0.5, -0.25], [0.5, -0.25])
    assert polytopes.confidence_bound(network(0), x, x.bfloat16(), np.int64(3)) == want
