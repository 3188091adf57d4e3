"""Lines and rays against evaluation, a walk from kink to kink, and exact rational arithmetic."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import build, coarse_networks, disguise, exact_affine, random_network
from torch import nn

from ood_helpers.polytopes import line, ray, read


def assert_agrees(pieces, model, start, direction, t):
    """The pieces give the network's logits at parameters t."""
    logits = read(model)(start + t[:, None] * direction)
    np.testing.assert_allclose(pieces.logits(t), logits, atol=1e-11 * (1 + np.abs(logits).max()))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    n_classes=st.integers(1, 6),
    d=st.integers(1, 5),
    leak=st.sampled_from([0.0, 0.2, -0.5, 2.0, 1.0, -1.0]),
    bias=st.booleans(),
)
def test_random_networks(seed, hidden, n_classes, d, leak, bias):
    rng = np.random.default_rng(seed)
    model = random_network(rng, (d, *hidden, n_classes), leak, bias)
    start, direction = rng.normal(size=(2, d))
    along = ray(model, start, direction)
    assert_agrees(along, model, start, direction, rng.exponential(2, size=100))
    assert_agrees(along, model, start, direction, np.array([1e7]))
    between = line(model, start, start + direction)
    assert_agrees(between, model, start, direction, rng.uniform(size=100))
    assert (np.diff(along.t) > 0).all() and (np.diff(between.t) > 0).all()


@pytest.mark.parametrize(
    "sizes, leak",
    [
        ((784, 100, 100, 10), 0.0),
        ((3, 40, 40, 40, 40, 2), 0.1),
        ((1, 300, 1), 0.0),
        ((5, 4), 0.0),
    ],
)
def test_ray_and_line_agree_with_evaluation(sizes, leak):
    rng = np.random.default_rng(0)
    model = random_network(rng, sizes, leak)
    start, direction = rng.normal(size=(2, sizes[0]))
    along, between = ray(model, start, direction), line(model, start, start + direction)
    assert along.t[0] == between.t[0] == 0 and (np.diff(along.t) > 0).all() and (np.diff(between.t) > 0).all()
    assert_agrees(along, model, start, direction, rng.exponential(3, size=2000))
    assert_agrees(between, model, start, direction, np.append(rng.uniform(0, 1, size=2000), [0, 1]))
    inside = along.t < 1
    assert len(between) == inside.sum()
    np.testing.assert_allclose(between.t, along.t[inside], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(between.slopes, along.slopes[inside], atol=1e-11)


def test_far_away_the_last_piece_holds():
    rng = np.random.default_rng(1)
    model = random_network(rng, (10, 80, 80, 3))
    start, direction = rng.normal(size=(2, 10))
    along = ray(model, start, direction)
    assert along.t[-1] < 1e6
    far = read(model)(start + 1e7 * direction)
    np.testing.assert_allclose(along.logits(1e7), far, rtol=1e-12)
    np.testing.assert_allclose(along.offsets[-1], far - 1e7 * along.slopes[-1], atol=1e-6)
    assert along.winner == far.argmax() and not along.tie and along.limit_confidence == 1


def test_pieces_meet_at_the_breakpoints():
    rng = np.random.default_rng(2)
    along = ray(random_network(rng, (4, 60, 60, 60, 5)), *rng.normal(size=(2, 4)))
    t = along.t[1:, None]
    left, right = along.offsets[:-1] + along.slopes[:-1] * t, along.offsets[1:] + along.slopes[1:] * t
    np.testing.assert_allclose(left, right, atol=1e-11)
    assert (np.abs(np.diff(along.slopes, axis=0)).max(axis=1) > 0).all()


def test_the_direction_is_not_normalised():
    rng = np.random.default_rng(3)
    model, (start, direction) = random_network(rng, (3, 20, 20, 2)), rng.normal(size=(2, 3))
    once, twice = ray(model, start, direction), ray(model, start, 2 * direction)
    np.testing.assert_allclose(once.t, 2 * twice.t, rtol=1e-10)
    np.testing.assert_allclose(2 * once.slopes, twice.slopes, atol=1e-12)
    np.testing.assert_allclose(once.offsets, twice.offsets, atol=1e-10)


# Counting breakpoints -----------------------------------------------------------------------------------------------------


def next_kink(network, start, direction, t):
    """The first root after t of any neuron, from the affine pieces that hold right after t; None if there is none."""
    slope, value, roots = direction, start + t * direction, []
    for weight, bias, leak in zip(network.weights[:-1], network.biases[:-1], network.leaks, strict=True):
        slope, value = weight @ slope, weight @ value + bias
        roots += [-v / s for s, v in zip(slope, value, strict=True) if s != 0 and -v / s > 0]
        gate = np.where(value > 0, 1, leak)
        slope, value = gate * slope, gate * value
    return t + min(roots) if roots else None


def walk(network, start, direction, end):
    """Breakpoints found one after the other; between two kinks nothing can be hidden."""
    t = [0.0]
    while (kink := next_kink(network, start, direction, t[-1] + 1e-11)) is not None and kink < end:
        t.append(kink)
    return np.array(t)


@pytest.mark.parametrize("hidden", [(1,), (40,), (10, 10), (25, 3, 40), (30, 30, 30, 30)])
@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_breakpoints_are_those_of_a_walk(hidden, leak):
    rng = np.random.default_rng(len(hidden))
    model = random_network(rng, (3, *hidden, 2), leak)
    start, direction = rng.normal(size=(2, 3))
    near = ray(model, start, direction).t
    near = near[near < 50]
    assert np.diff(near, append=51).min() > 1e-8  # closer kinks would be beyond a walk's small step
    steps = walk(read(model), start, direction, 50)
    assert len(steps) == len(near)
    np.testing.assert_allclose(near, steps, atol=1e-8)


# Against exact rational arithmetic ----------------------------------------------------------------------------------------


def exact_line(weights, biases, leak, start, direction, end):
    """By the definition, one piece and one neuron at a time: breakpoints, slopes, offsets. All numbers are fractions."""
    inputs = [(Fraction(d), Fraction(s)) for d, s in zip(direction, start, strict=True)]
    pieces = [((Fraction(0), end), (), inputs)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        finer = []
        for (low, high), pattern, h in pieces:
            z = exact_affine(h, weight, bias)
            cuts = sorted({-c / a for a, c in z if a != 0 and low < -c / a < high} | {low, high})
            for part in pairwise(cuts):
                on = tuple(a * sum(part) / 2 + c > 0 for a, c in z)
                finer.append((part, pattern + on, [tuple((1 if o else leak) * x for x in m) for o, m in zip(on, z, strict=True)]))
        pieces = finer
    kept = [piece for i, piece in enumerate(pieces) if i == 0 or piece[1] != pieces[i - 1][1]]
    maps = np.array([exact_affine(h, weights[-1], biases[-1]) for _, _, h in kept], dtype=float)
    return np.array([float(part[0]) for part, _, _ in kept]), maps[:, :, 0], maps[:, :, 1]


FAR = 2**40  # small whole numbers put every kink nearer than this: it can stand for the end of a ray
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)


@settings(max_examples=200)
@given(coarse_networks(in_dim=3), vectors, vectors.filter(any), st.integers(0, 2**32 - 1))
def test_degenerate_networks_agree_with_exact_arithmetic(network, start, direction, seed):
    """On the grid, then turned and scaled: starts on a kink, rays along a kink, several kinks in one point."""
    weights, biases, leak = network
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    disguised = build(*disguise(weights, biases, rotation, rng), float(leak))
    model = build(weights, biases, float(leak))
    start, direction = np.array(start), np.array(direction)
    t, slopes, offsets = exact_line(weights, biases, leak, start.tolist(), direction.tolist(), Fraction(FAR))
    along = ray(model, start, direction)
    assert len(along) == len(t)
    np.testing.assert_allclose(along.t, t, rtol=1e-12)
    np.testing.assert_allclose(along.slopes, slopes, atol=1e-10)
    np.testing.assert_allclose(along.offsets, offsets, atol=1e-10)
    assert along.leaders.tolist() == (slopes[-1] == slopes[-1].max()).tolist()
    turned = ray(disguised, rotation.T @ start, rotation.T @ direction)
    assert len(turned) == len(t)
    np.testing.assert_allclose(turned.t, t, rtol=1e-10, atol=1e-13)
    assert (turned.leaders == along.leaders).all()
    t, _, _ = exact_line(weights, biases, leak, start.tolist(), direction.tolist(), Fraction(1))
    assert len(line(model, start, start + direction)) == len(t)
    assert len(line(disguised, rotation.T @ start, rotation.T @ (start + direction))) == len(t)


# Degenerate by construction -----------------------------------------------------------------------------------------------


def test_a_start_on_a_kink_belongs_to_what_follows():
    model = build([[[1.0]], [[1.0]]], [[0.0], [0.0]])  # relu(x)
    assert ray(model, [0.0], [1.0]).slopes.tolist() == [[1.0]]
    assert ray(model, [0.0], [-1.0]).slopes.tolist() == [[0.0]]
    there = ray(model, [-1.0], [1.0])
    assert there.t.tolist() == [0.0, 1.0]
    assert there.slopes.tolist() == [[0.0], [1.0]] and there.offsets.tolist() == [[0.0], [-1.0]]
    assert len(line(model, [-1.0], [0.0])) == 1  # the kink is the end, no piece begins there


def test_duplicates_share_one_breakpoint_and_dead_layers_have_none():
    rng = np.random.default_rng(4)
    first = np.repeat(rng.normal(size=(40, 3)), 5, axis=0)
    shift = np.repeat(rng.normal(size=40), 5)
    start, direction = rng.normal(size=(2, 3))
    copies = build([first, rng.normal(size=(2, 200))], [shift, [0, 0]])
    single = build([first[::5], rng.normal(size=(2, 40))], [shift[::5], [0, 0]])
    assert len(ray(copies, start, direction)) == len(ray(single, start, direction)) > 10
    dead = build([first, -np.abs(rng.normal(size=(30, 200))), rng.normal(size=(2, 30))], [shift, -np.ones(30), [1.0, 2.0]])
    along = ray(dead, start, direction)
    assert (along.slopes == 0).all() and (along.offsets == [1, 2]).all()
    assert along.tie and along.winner == 0 and along.limit_confidence == pytest.approx(1 / (1 + np.exp(-1)))


def test_a_line_and_a_ray_introduce_themselves():
    model = build([[[1.0]], [[1.0], [2.0]]], [[0.0], [0.0, 0.0]])
    assert repr(line(model, [-1.0], [1.0])) == "Line(2 pieces for t from 0 to 1, 2 logits)"
    assert repr(ray(model, [-1.0], [1.0])) == "Ray(2 pieces for t from 0 to inf, 2 logits)"


def test_running_sums_do_not_drift():
    """3,000 kinks on one ray: after all of them a slope is still right to rounding."""
    rng = np.random.default_rng(5)
    model = random_network(rng, (1, 6000, 50, 2))
    along = ray(model, [-20.0], [1.0])
    assert len(along) > 3000
    t = along.t + np.append(np.diff(along.t), 1) / 2
    logits = read(model)(-20 + t[:, None])
    np.testing.assert_allclose(along.logits(t), logits, atol=1e-13 * np.abs(logits).max())


def test_cancelling_twins_do_not_invent_far_breakpoints():
    """Behind twins with opposite weights the slope is exactly 0; a slope of 1e-17 would cross 0 at some t near 1e17."""
    rng = np.random.default_rng(6)
    first, second, shift = rng.normal(size=(100, 4)), rng.normal(size=(50, 100)), rng.normal(size=100)
    weights = [np.concatenate([first, first]), np.concatenate([second, -second], axis=1), rng.normal(size=(3, 50))]
    along = ray(build(weights, [np.concatenate([shift, shift]), rng.normal(size=50), np.zeros(3)]), *rng.normal(size=(2, 4)))
    assert along.t[-1] < 1e6 and (along.slopes == 0).all() and along.tie


# Bad input ----------------------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    model = random_network(np.random.default_rng(0), (2, 3, 2))
    with pytest.raises(ValueError, match="direction must not be the zero vector"):
        ray(model, [1, 1], [0, 0])
    with pytest.raises(ValueError, match="end must differ from start"):
        line(model, [1, 1], [1, 1])
    with pytest.raises(ValueError, match=r"start must have shape \(2,\).*not \(3,\)"):
        ray(model, [1, 1, 1], [1, 0])
    with pytest.raises(ValueError, match=r"direction must have shape \(2,\).*not \(1, 2\)"):
        ray(model, [1, 1], [[1, 0]])
    with pytest.raises(ValueError, match=r"end must have shape \(2,\).*not \(\)"):
        line(model, [1, 1], 3)
    with pytest.raises(ValueError, match="start must hold finite numbers"):
        line(model, [np.nan, 1], [1, 1])
    with pytest.raises(ValueError, match="direction must hold finite numbers"):
        ray(model, [1, 1], [np.inf, 1])
    with pytest.raises(ValueError, match=r"layer 1 \(Sigmoid\)"):
        ray(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2)), [0, 0], [1, 0])
    for t in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"t must be finite and lie in \[0, 1\]"):
            line(model, [0, 0], [1, 1]).logits([0.5, t])
    with pytest.raises(ValueError, match=r"t must be finite and lie in \[0, inf\]"):
        ray(model, [0, 0], [1, 1]).logits(np.inf)
