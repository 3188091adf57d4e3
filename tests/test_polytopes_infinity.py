"""Infinity polytopes against evaluation far away, the network without biases, and exact rational arithmetic."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import build, coarse_networks, disguise, exact_affine, random_network, without_biases
from torch import nn

from ood_helpers.polytopes import directions, infinity, ray, read

TWO_PI = 2 * np.pi


def circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def sector_of(result, angle):
    """Index of the sector that holds each angle."""
    return (np.searchsorted(result.start, angle, side="right") - 1) % len(result)


def distance_to_edges(result, angle):
    return np.abs((angle[:, None] - result.start + np.pi) % TWO_PI - np.pi).min(axis=1)


def limit_offsets(network, u):
    """c in f(αu) = α·(v·u) + c, [n, K]: the constants through the gates that the leading parts decide."""
    m, c = u, np.zeros_like(u)
    for weight, bias, leak in zip(network.weights, network.biases, [*network.leaks, 1.0], strict=True):
        m, c = m @ weight.T, c @ weight.T + bias
        gate = np.where((m > 0) | ((m == 0) & (c > 0)), 1.0, leak)
        m, c = m * gate, c * gate
    return c


def largest_sum(network):
    """What the logits of f0 would reach on the unit circle if nothing cancelled; the scale of rounding errors."""
    h = np.ones(2)
    for weight in network.weights:
        h = np.abs(weight) @ h
    return h.max()


def assert_consistent(result, model):
    """What must hold for every network: the circle is covered, slopes are f0, the leaders have the greatest slope."""
    assert result.width.sum() == pytest.approx(TWO_PI, abs=1e-12)
    assert (result.width > 0).all() and (result.start >= 0).all() and (result.start < TWO_PI).all()
    np.testing.assert_allclose(np.diff(result.start), result.width[:-1], atol=1e-12)
    assert result.shares().sum() + result.tie_share == pytest.approx(1, abs=1e-12)
    assert result.leaders.any(axis=1).all()

    u = circle(result.start + result.width * np.linspace(0.1, 0.9, 5)[:, None])
    f0 = np.einsum("skd,psd->psk", result.slopes, u)
    expected = read(without_biases(model))(u)
    rounding = 1e-12 * np.abs(expected).max() + 1e-15 * largest_sum(read(model))
    np.testing.assert_allclose(f0, expected, rtol=0, atol=rounding)
    led = np.where(result.leaders, expected, -np.inf).max(axis=2)
    assert (expected.max(axis=2) - led <= rounding).all()


# Against evaluation and the network without biases ------------------------------------------------------------------------


@pytest.mark.parametrize("sizes, leak", [((2, 60, 60, 3), 0.0), ((2, 30, 2), 0.0), ((2, 20, 20, 20, 5), 0.1), ((2, 3), 0.0)])
def test_the_limit_agrees_with_evaluation_at_radius_1e7(sizes, leak):
    rng = np.random.default_rng(1)
    model = random_network(rng, sizes, leak)
    result = infinity(model)
    angle = rng.uniform(0, TWO_PI, 20_000)
    angle = angle[distance_to_edges(result, angle) > 1e-5]  # nearer to an edge a radius of 1e7 is not yet far
    assert len(angle) > 19_000
    logits, s = read(model)(1e7 * circle(angle)), sector_of(result, angle)
    exact = 1e7 * np.einsum("nkd,nd->nk", result.slopes[s], circle(angle)) + result.offsets[s]
    np.testing.assert_allclose(logits, exact, rtol=1e-13, atol=1e-13 * np.abs(logits).max())
    assert not result.tie.any()
    assert (logits.argmax(axis=1) == result.winner[s]).all()


def test_a_large_network_agrees_with_its_version_without_biases():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 3))
    result = infinity(model)
    assert len(result) > 1000
    assert_consistent(result, model)
    angle = np.random.default_rng(0).uniform(0, TWO_PI, 20_000)
    angle = angle[distance_to_edges(result, angle) > 1e-12]
    assert (read(without_biases(model))(circle(angle)).argmax(axis=1) == result.winner[sector_of(result, angle)]).all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    n_classes=st.integers(1, 6),
    leak=st.sampled_from([0.0, 0.2, -0.5, 2.0, 1.0, -1.0]),
    bias=st.booleans(),
)
def test_random_networks(seed, hidden, n_classes, leak, bias):
    model = random_network(np.random.default_rng(seed), (2, *hidden, n_classes), leak, bias)
    result = infinity(model)
    assert_consistent(result, model)
    wide = result.width > 1e-9
    u = circle(result.start + result.width / 2)[wide]
    offsets = limit_offsets(read(model), u)
    np.testing.assert_allclose(result.offsets[wide], offsets, atol=1e-11 * (1 + np.abs(offsets).max()))
    winner, tie = directions(model, u)
    assert (winner == result.winner[wide]).all() and (tie == result.tie[wide]).all()


def test_sectors_are_as_many_as_activation_patterns_round_the_circle():
    rng = np.random.default_rng(3)
    for sizes in [(2, 5, 1), (2, 8, 8, 1), (2, 4, 4, 4, 1)]:
        model = random_network(rng, sizes)
        network = read(without_biases(model))
        result = infinity(model)
        assert result.width.min() > 1e-4  # so that the sampling below misses no sector
        h, on = circle(np.linspace(0, TWO_PI, 200_000, endpoint=False)), []
        for weight in network.weights[:-1]:
            h = np.maximum(h @ weight.T, 0)
            on.append(h > 0)
        on = np.concatenate(on, axis=1)
        assert len(result) == (on != np.roll(on, 1, axis=0)).any(axis=1).sum()


def test_a_ray_from_the_origin_ends_in_its_sector():
    rng = np.random.default_rng(5)
    model = random_network(rng, (2, 25, 25, 4))
    result = infinity(model)
    for angle in rng.uniform(0, TWO_PI, 50):
        s = sector_of(result, angle)
        along = ray(model, [0, 0], circle(angle))
        np.testing.assert_allclose(along.slopes[-1], result.slopes[s] @ circle(angle), atol=1e-12)
        np.testing.assert_allclose(along.offsets[-1], result.offsets[s], atol=1e-12)
        assert along.winner == result.winner[s]


# Against exact rational arithmetic ----------------------------------------------------------------------------------------


def cross(u, v):
    return u[0] * v[1] - u[1] * v[0]


def cut_exactly(sector, maps):
    """Cut the sector (edge, edge) at the roots of the given m: a list of sectors in order. All numbers are fractions."""
    start, end = sector
    candidates = [root for m in maps for root in ((-m[1], m[0]), (m[1], -m[0]))]
    roots = [root for root in candidates if cross(start, root) > 0 and cross(root, end) > 0]
    roots.sort(key=lambda root: cross(start, root) / (cross(start, root) + cross(root, end)))
    edges = [start]
    for root in [*roots, end]:
        if cross(edges[-1], root) != 0:
            edges.append(root)
    return list(pairwise(edges))


def value_inside(m, sector):
    return m[0] * (sector[0][0] + sector[1][0]) + m[1] * (sector[0][1] + sector[1][1])


def exact_infinity(weights, biases, leak):
    """By the definition, one sector and one neuron at a time: rows (edge, pattern, leaders, slopes, offsets)."""
    corners = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 0)]
    one, zero = Fraction(1), Fraction(0)
    pieces = [(quadrant, (), [(one, zero, zero), (zero, one, zero)]) for quadrant in pairwise(corners)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        finer = []
        for sector, pattern, h in pieces:
            z = exact_affine(h, weight, bias)
            for part in cut_exactly(sector, z):
                on = tuple(value_inside(m, part) > 0 or (m[:2] == (0, 0) and m[2] > 0) for m in z)
                finer.append((part, pattern + on, [tuple((1 if o else leak) * x for x in m) for o, m in zip(on, z, strict=True)]))
        pieces = finer
    rows = []
    for sector, pattern, h in pieces:
        f = exact_affine(h, weights[-1], biases[-1])
        for part in cut_exactly(sector, [(a[0] - b[0], a[1] - b[1]) for a, b in combinations(f, 2)]):
            values = [value_inside(m, part) for m in f]
            rows.append((part[0], pattern, [v == max(values) for v in values], [m[:2] for m in f], [m[2] for m in f]))
    kept = [row for i, row in enumerate(rows) if row[1:3] != rows[i - 1][1:3]] or rows[:1]
    edges, _, leaders, slopes, offsets = zip(*kept, strict=True)
    return np.array(edges, float), np.array(leaders), np.array(slopes, float), np.array(offsets, float)


@settings(max_examples=200)
@given(coarse_networks(in_dim=2))
def test_degenerate_networks_agree_with_exact_arithmetic(network):
    weights, biases, leak = network
    edges, leaders, slopes, offsets = exact_infinity(weights, biases, leak)
    model = build(weights, biases, float(leak))
    result = infinity(model)
    assert len(result) == len(edges)
    np.testing.assert_allclose(result.start, np.arctan2(edges[:, 1], edges[:, 0]) % TWO_PI, atol=1e-12)
    assert (result.leaders == leaders).all()
    np.testing.assert_allclose(result.slopes, slopes, atol=1e-12)
    np.testing.assert_allclose(result.offsets, offsets, atol=1e-12)
    assert_consistent(result, model)


@settings(max_examples=200)
@given(coarse_networks(in_dim=2), st.floats(0.01, 1.5), st.integers(0, 2**32 - 1))
def test_rounding_does_not_break_degenerate_networks(network, turn, seed):
    weights, biases, leak = network
    edges, leaders, _, _ = exact_infinity(weights, biases, leak)
    x, y = circle(turn)
    disguised = disguise(weights, biases, np.array([[x, y], [-y, x]]), np.random.default_rng(seed))
    result = infinity(build(*disguised, float(leak)))
    assert len(result) == len(edges)
    angle = (np.arctan2(edges[:, 1], edges[:, 0]) + turn) % TWO_PI if len(edges) > 1 else np.zeros(1)
    gap = np.abs((angle[:, None] - result.start + np.pi) % TWO_PI - np.pi)
    assert gap.min(axis=1).max() < 1e-12
    assert (result.leaders[gap.argmin(axis=1)] == leaders).all()


# Degenerate by construction -----------------------------------------------------------------------------------------------


def test_a_silent_last_hidden_layer_ties_in_every_direction():
    """All second-layer weights negative: whatever the first layer says, far away the second layer is off."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(50, 2)), -rng.uniform(0.1, 1, size=(40, 50)), rng.normal(size=(3, 40))]
    model = build(weights, [rng.normal(size=50), rng.normal(size=40) + 5, [0.0, np.log(2), np.log(3)]])
    result = infinity(model)
    assert (result.slopes == 0).all() and result.tie.all() and result.tie_share == 1 and (result.shares() == 0).all()
    assert (result.winner == 0).all()
    np.testing.assert_allclose(result.limit_confidence(), 0.5, rtol=1e-15)
    far = read(model)(1e7 * circle(np.linspace(0, 6, 100)))
    np.testing.assert_allclose(far, np.broadcast_to([0, np.log(2), np.log(3)], far.shape), atol=1e-12)


def test_one_hidden_layer_is_never_silent_in_more_than_half_of_the_directions():
    for n in (1, 2, 3, 10, 100):
        result = infinity(random_network(np.random.default_rng(n), (2, n, 3)))
        silent = result.width[(result.slopes == 0).all(axis=(1, 2))].sum() / TWO_PI
        assert silent == pytest.approx(result.tie_share, abs=1e-12) and silent <= 0.5 + 1e-12
        if n == 1:
            assert silent == pytest.approx(0.5, abs=1e-12)


def test_where_silence_ends_only_the_tied_classes_share_the_limit():
    """relu(x) decides to the right; to the left the slopes of all classes are 0 and the offsets speak."""
    result = infinity(build([[[1, 0]], [[1], [1], [-1]]], [[0], [2, 2, 5]]))
    assert result.start.tolist() == [np.pi / 2, 1.5 * np.pi]
    assert result.leaders.tolist() == [[True, True, True], [True, True, False]]
    np.testing.assert_allclose(result.limit_confidence(), [1 / (1 + 2 * np.exp(-3)), 0.5], rtol=1e-15)
    assert result.tie_share == 1 and result.winner.tolist() == [0, 0]


def test_a_unique_winner_has_limit_confidence_one_and_a_share():
    result = infinity(build([[[1, 0], [-1, 0]]], [[7, -3]]))  # no hidden layer: one polytope, two half-planes
    assert result.start.tolist() == [np.pi / 2, 1.5 * np.pi] and result.winner.tolist() == [1, 0]
    np.testing.assert_allclose(result.shares(), [0.5, 0.5], atol=1e-15)
    assert repr(result) == "Infinity(2 sectors; shares of directions won: 0.500, 0.500; tied: 0.000)"
    assert (result.limit_confidence() == 1).all() and result.tie_share == 0 and not result.tie.any()


def test_cancelling_twins_leave_exactly_nothing():
    """Every neuron twice, with opposite outgoing weights: running sums alone would leave 1e-16 and a made-up winner."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(150, 2)), rng.normal(size=(60, 150))
    shift = rng.normal(size=150)
    weights = [np.concatenate([first, first]), np.concatenate([second, -second], axis=1), rng.normal(size=(3, 60))]
    result = infinity(build(weights, [np.concatenate([shift, shift]), rng.normal(size=60), rng.normal(size=3)]))
    assert len(result) == 300  # two directions per pair of twins, not four
    assert (result.slopes == 0).all() and result.tie.all()
    np.testing.assert_allclose(result.offsets, np.broadcast_to(result.offsets[0], (300, 3)), atol=1e-11)


def test_opposite_neurons_add_up_to_a_linear_function():
    """relu(z) - relu(-z) = z: the second layer sees a linear map, its kinks are straight lines through the origin."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(80, 2)), rng.normal(size=(7, 80))
    weights = [np.concatenate([first, -first]), np.concatenate([second, -second], axis=1), rng.normal(size=(2, 7))]
    model = build(weights, [np.zeros(160), np.zeros(7), np.zeros(2)])
    result = infinity(model)
    one_layer = infinity(build([second @ first, weights[2]], [np.zeros(7), np.zeros(2)]))
    np.testing.assert_allclose(result.shares(), one_layer.shares(), atol=1e-12)
    assert result.tie_share == pytest.approx(one_layer.tie_share, abs=1e-12)
    changes = (result.winner != np.roll(result.winner, 1)).sum()
    assert len(result) <= 160 + 14 + changes and (result.offsets == 0).all()
    assert_consistent(result, model)


def test_equal_output_rows_tie_and_the_lowest_index_is_named():
    rng = np.random.default_rng(4)
    last = rng.normal(size=(4, 30))
    last[3] = last[1]
    model = build([rng.normal(size=(30, 2)), rng.normal(size=(30, 30)), last], [rng.normal(size=30)] * 2 + [[0.0, 1.0, 0.0, 1.0]])
    result = infinity(model)
    ones = result.leaders[:, 1]
    assert 0 < ones.sum() < len(result)
    assert (result.leaders[:, 1] == result.leaders[:, 3]).all() and (result.winner != 3).all()
    assert (result.tie == ones).all() and result.shares()[[1, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(result.limit_confidence(), np.where(ones, 0.5, 1.0), atol=1e-10)


def test_a_very_thin_sector_is_kept():
    """Two neurons whose kinks are 1e-9 apart enclose two sectors of that width."""
    result = infinity(build([[[1, 0], [1, 1e-9]], [[1, -1]]], [[0, 0], [0]]))
    assert len(result) == 4
    np.testing.assert_allclose(np.sort(result.width)[:2], 1e-9, rtol=1e-6)


@pytest.mark.parametrize("tilt, start", [(1e-20, 0), (1e-12, TWO_PI - 1e-12)])
def test_an_edge_just_below_a_full_turn(tilt, start):
    """Its angle is below 2π, or it counts as angle 0: never 2π itself."""
    result = infinity(build([[[tilt, 1]], [[1]]], [[0], [0]]))
    np.testing.assert_allclose(result.start, sorted([np.pi - tilt, start]), rtol=1e-15)
    assert result.start.max() < TWO_PI and result.width.sum() == pytest.approx(TWO_PI)


def test_a_neuron_without_a_slope_is_on_or_off_by_its_constant():
    """Zero rows: pre-activations 3 and -3 everywhere, so only the first one's output weight reaches the offset."""
    result = infinity(build([[[0, 0], [0, 0]], [[5, 7]]], [[3, -3], [1]]))
    assert len(result) == 1 and result.start[0] == 0 and result.width[0] == pytest.approx(TWO_PI)
    assert result.offsets.tolist() == [[16.0]] and (result.slopes == 0).all() and result.shares().tolist() == [1.0]


# Planes and single directions in higher dimension -------------------------------------------------------------------------


def test_axes_turn_a_plane_of_directions_out_of_more_dimensions():
    rng = np.random.default_rng(6)
    model, axes = random_network(rng, (7, 20, 20, 3)), rng.normal(size=(2, 7))
    result = infinity(model, axes)
    angle = rng.uniform(0, TWO_PI, 500)
    s, u = sector_of(result, angle), circle(angle) @ axes
    winner, tie = directions(model, u)
    assert (winner == result.winner[s]).all() and not tie.any()
    f0 = np.einsum("nkd,nd->nk", result.slopes[s], circle(angle))
    np.testing.assert_allclose(f0, read(without_biases(model))(u), atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 50])
def test_directions_agree_with_evaluation_far_away(d):
    rng = np.random.default_rng(d)
    model = random_network(rng, (d, 30, 30, 4))
    u = rng.normal(size=(1000, d))
    winner, tie = directions(model, u)
    assert not tie.any()
    assert (winner == read(model)(1e9 * u).argmax(axis=1)).all()


def test_directions_see_silence_and_cancellation():
    rng = np.random.default_rng(8)
    silent = build(
        [rng.normal(size=(50, 5)), -rng.uniform(0.1, 1, (20, 50)), rng.normal(size=(3, 20))],
        [rng.normal(size=50), rng.normal(size=20), rng.normal(size=3)],
    )
    winner, tie = directions(silent, rng.normal(size=(100, 5)))
    assert tie.all() and (winner == 0).all()
    twins = build(
        [np.tile(rng.normal(size=(30, 5)), (2, 1)), rng.normal(size=(3, 30)) @ np.hstack([np.eye(30), -np.eye(30)])],
        [np.zeros(60), np.zeros(3)],
    )
    winner, tie = directions(twins, rng.normal(size=(100, 5)))
    assert tie.all() and (winner == 0).all()


# Bad input ----------------------------------------------------------------------------------------------------------------


def test_bad_axes_and_dimensions_are_named():
    flat, deep = random_network(np.random.default_rng(0), (2, 3, 2)), random_network(np.random.default_rng(0), (3, 3, 2))
    with pytest.raises(ValueError, match=r"axes must be given for a model with 3 inputs"):
        infinity(deep)
    with pytest.raises(ValueError, match=r"axes must have shape \(2, 3\), not \(2, 2\)"):
        infinity(deep, np.eye(2))
    for axes in ([[1, 0, 0], [2, 0, 0]], [[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [0, np.nan, 0]]):
        with pytest.raises(ValueError, match="axes must be two finite vectors that span a plane"):
            infinity(deep, axes)
    with pytest.raises(ValueError, match=r"u must have shape \(n, 2\).*not \(2,\)"):
        directions(flat, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"u must have shape \(n, 2\)"):
        directions(flat, np.ones((4, 3)))
    for bad in ([[1, 1], [0, 0]], [[1, np.inf]], [[np.nan, 1]]):
        with pytest.raises(ValueError, match="finite numbers and no zero rows"):
            directions(flat, bad)
    with pytest.raises(ValueError, match=r"layer 1 \(Sigmoid\)"):
        infinity(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"layer 1 \(Tanh\)"):
        directions(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), [[1, 0]])
