"""Networks that are no chains: the same exact answers from their steps, against evaluation in float64 and against chains."""

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph, answers
from small_networks import build, coarse_networks
from torch import nn

from ood_helpers.polytopes import directions, infinity, line, measures, plane, ray, read
from ood_helpers.polytopes.graph import Graph, traced

seeds = st.integers(0, 2**32 - 1)


def steps_of(model, dim):
    """A chain as a graph, which `read` would make matrices of."""
    return traced(model.eval(), (dim,))


def spread(pieces, n=1000, far=50.0):
    """Parameters within every piece, and many between 0 and the end."""
    end = min(pieces.end, far)
    stops = np.append(pieces.t[1:], max(end, pieces.t[-1] + 1) if pieces.end > far else end)
    return np.concatenate([(pieces.t + stops) / 2, np.linspace(0, end, n)])


def assert_right(pieces, model, start, way, atol=1e-9):
    t = spread(pieces)
    wanted = answers(model, start + t[:, None] * way)
    np.testing.assert_allclose(pieces.logits(t), wanted, rtol=1e-9, atol=atol * max(1, np.abs(wanted).max()))


@given(seeds, st.booleans(), st.sampled_from([(2, 5, 5), (4,), (1, 6, 4)]))
@settings(max_examples=150, deadline=None)
def test_a_line_through_a_random_graph_is_what_the_model_computes(seed, coarse, shape):
    model, rng = RandomGraph(seed, shape, coarse=coarse), np.random.default_rng(seed)
    start, end = (rng.integers(-2, 3, shape).astype(float) if coarse else rng.normal(size=shape) for _ in range(2))
    end += start.ravel()[0] == end.ravel()[0]
    assert_right(line(model, start, end), model, start.ravel(), (end - start).ravel())


@given(seeds, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_ray_through_a_random_graph_is_what_the_model_computes(seed, coarse):
    model, rng = RandomGraph(seed, coarse=coarse), np.random.default_rng(seed)
    start, way = (rng.integers(-2, 3, 50).astype(float) if coarse else rng.normal(size=50) for _ in range(2))
    way[0] += 0.5
    far = ray(read(model, (2, 5, 5)), start, way)
    assert_right(far, model, start, way)
    slopes = far.slopes[-1]
    best = slopes >= slopes.max() - 1e-9 * max(1, np.abs(slopes).max())
    assert (far.leaders == best).all()
    assert directions(model, way.reshape(1, 2, 5, 5))[0][0] == far.winner


@given(coarse_networks(3), seeds)
@settings(max_examples=150, deadline=None)
def test_a_chain_has_the_same_pieces_as_steps(network, seed):
    weights, biases, leak = network
    model, rng = build(weights, biases, float(leak)), np.random.default_rng(seed)
    start, way = rng.integers(-3, 4, 3).astype(float), rng.integers(-3, 4, 3).astype(float)
    way[0] += not way.any()
    graph = steps_of(model, 3)
    assert isinstance(graph, Graph)
    for ask, other in ((line, start + way), (ray, way)):
        one, two = ask(graph, start, other), ask(model, start, other)
        np.testing.assert_allclose(one.t, two.t, rtol=1e-12)
        np.testing.assert_allclose(one.slopes, two.slopes, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(one.offsets, two.offsets, rtol=1e-12, atol=1e-12)
    assert (ray(graph, start, way).leaders == ray(model, start, way).leaders).all()


@given(coarse_networks(2))
@settings(max_examples=150, deadline=None)
def test_a_chain_has_the_same_infinity_as_steps(network):
    weights, biases, leak = network
    model = build(weights, biases, float(leak))
    one, two = infinity(steps_of(model, 2)), infinity(model)
    np.testing.assert_allclose(one.shares(), two.shares(), atol=1e-12)
    assert one.tie_share == pytest.approx(two.tie_share, abs=1e-12)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_infinity_of_a_random_graph_agrees_with_its_rays(seed):
    model, rng = RandomGraph(seed), np.random.default_rng(seed)
    axes = rng.normal(size=(2, 2, 5, 5))
    far = infinity(model, axes)
    assert far.width.sum() == pytest.approx(2 * np.pi)
    angle = far.start + far.width / 2
    u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    wide = far.width > 1e-6
    winner, tie = directions(model, np.einsum("na,achw->nchw", u, axes))
    assert (winner == far.winner)[wide].all() and (tie == far.tie)[wide].all()
    x = 1e9 * u @ axes.reshape(2, -1)
    growth = np.einsum("skj,sj->sk", far.slopes, u)
    np.testing.assert_allclose((answers(model, x) / 1e9)[wide], growth[wide], atol=1e-6 * max(1, np.abs(growth).max()))


@given(seeds, st.booleans(), st.sampled_from([(2, 4, 4), (3,)]))
@settings(max_examples=60, deadline=None)
def test_a_slice_of_a_random_graph_is_what_the_model_computes(seed, coarse, shape):
    model, rng = RandomGraph(seed, shape, steps=5, coarse=coarse), np.random.default_rng(seed)
    dim = int(np.prod(shape))
    origin, axes = rng.normal(size=dim), rng.normal(size=(2, dim))
    try:
        cells = plane(read(model, shape), [-1, -0.5], [1, 2], origin=origin, axes=axes)
    except ArithmeticError:  # of a hundred slices one, where kinks are nearly parallel
        reject()
    assert cells.areas.min() > 0 and cells.areas.sum() == pytest.approx(5)
    x = np.concatenate([rng.uniform([-1, -0.5], [1, 2], (500, 2)), cells.centroids])
    at = cells.locate(x)
    assert (at[500:] == np.arange(len(cells))).mean() > 0.999  # smaller than rounding, a centroid may lie beside its polytope
    wanted = answers(model, origin + x @ axes)
    got = np.einsum("nkj,nj->nk", cells.slopes[at], x) + cells.offsets[at]
    np.testing.assert_allclose(got, wanted, atol=1e-9 * max(1, np.abs(wanted).max()))


@given(coarse_networks(2))
@settings(max_examples=60, deadline=None)
def test_a_chain_has_the_same_polytopes_as_steps(network):
    weights, biases, leak = network
    model = build(weights, biases, float(leak))
    one, two = plane(steps_of(model, 2), -2, 3), plane(model, -2, 3)
    assert len(one) == len(two)
    np.testing.assert_allclose(np.sort(one.areas), np.sort(two.areas), atol=1e-12)


POOLS = ["affine", "pool", "greater", "kink", "skip", "pool"]


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_line_leaves_a_polytope_where_a_piece_ends_and_nowhere_else(seed, coarse):
    """No edge where one number of a pool overtakes another and both are beaten: nothing changes there."""
    model, rng = RandomGraph(seed, (2, 4, 4), steps=4, coarse=coarse, kinds=POOLS), np.random.default_rng(seed)
    network, origin, axes = read(model, (2, 4, 4)), rng.normal(size=32), rng.normal(size=(2, 32))
    cells = plane(network, -1, 1, origin=origin, axes=axes)
    one, other = rng.uniform(-1, 1, (2, 2))
    pieces = line(network, origin + one @ axes, origin + other @ axes)
    stops = np.append(pieces.t, 1.0)
    wide = np.diff(stops) > 1e-6
    t = (stops[:-1, None] + np.diff(stops)[:, None] * [0.05, 0.4, 0.95])[wide]
    at = cells.locate(one + t.reshape(-1, 1) * (other - one)).reshape(t.shape)
    assert (at == at[:, :1]).all()
    assert isinstance(network, Graph) <= (at[1:, 0] != at[:-1, 0]).all()  # chains cut where nothing changes, too: at dead neurons


@pytest.mark.parametrize("rows, count", [
    ([[1, 0], [-1, 0], [0, 1], [0, -1]], 4),
    ([[1, 0], [0, 1], [-1, -1]], 3),
    ([[1, 0], [1, 0], [0, 1], [0, 1]], 2),  # equal numbers are no rivals
    ([[1, 0], [0.5, 0.1], [0, 1], [0, 0], [0.2, 0.2]], 3),
])  # fmt: skip
def test_a_pool_makes_as_many_polytopes_as_it_has_winners(rows, count):
    model = nn.Sequential(
        nn.Linear(2, len(rows)), nn.Unflatten(1, (1, len(rows))), nn.MaxPool1d(len(rows)), nn.Flatten(), nn.Linear(1, 2)
    ).double()
    model[0].weight.data, model[0].bias.data = torch.tensor(rows, dtype=torch.float64), torch.zeros(len(rows)).double()
    cells = plane(model, -1, 2)
    assert len(cells) == count and cells.areas.sum() == pytest.approx(9)
    assert len(np.unique(cells.slopes.round(9), axis=0)) == count
    assert (cells.locate(cells.centroids) == np.arange(count)).all()


def test_measures_take_the_slices_of_graphs():
    model = RandomGraph(6, (3,), kinds=["affine", "kink", "skip"])
    cells = plane(read(model, (3,)), -2, 2, axes=[[1, 0, 0], [0, 1, 1]])
    x = np.random.default_rng(0).uniform(-2, 2, (20000, 2))
    logits = answers(model, x @ np.array([[1, 0, 0], [0, 1, 1.0]]))
    share = (torch.from_numpy(logits).softmax(-1).amax(-1) > 0.6).double().mean().item()
    area = measures.confident_area(cells, tau=0.6)
    assert area.low / 16 - 0.02 < share < area.high / 16 + 0.02


def test_a_max_pool_selects_and_does_not_add():
    """relu(a − b) + b would lose a to rounding beside a large b, and −∞ pads: no 0 from outside wins over negative numbers."""
    model = nn.Sequential(nn.MaxPool1d(2, 2, 1), nn.Flatten(), nn.Linear(2, 2, bias=False, dtype=torch.float64))
    model[2].weight.data = torch.eye(2, dtype=torch.float64)
    pieces = line(model, [[-3.0, 1e-20]], [[-1.0, -1e20]])
    np.testing.assert_array_equal(pieces.logits(0.0), [-3.0, 1e-20])
    np.testing.assert_array_equal(pieces.logits(1.0), [-1.0, -1e20])


def test_kinks_where_nothing_is_greater_make_no_pieces():
    """max(x, −x, 0 x + ½) has two kinks; that x and −x meet below ½ is none."""
    model = nn.Sequential(nn.Linear(1, 3), nn.Unflatten(1, (1, 3)), nn.MaxPool1d(3), nn.Flatten(), nn.Linear(1, 1)).double()
    model[0].weight.data = torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64)
    model[0].bias.data = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    np.testing.assert_allclose(line(model, [-1.0], [1.0]).t, [0, 0.25, 0.75])


def test_groups_of_segments_change_nothing(monkeypatch):
    model = RandomGraph(7, steps=8)
    start, way = np.random.default_rng(0).normal(size=(2, 50))
    graph = read(model, (2, 5, 5))
    whole = ray(graph, start, way)
    monkeypatch.setattr("ood_helpers.polytopes.along._BATCH", 1)
    parts = ray(graph, start, way)
    np.testing.assert_allclose(parts.t, whole.t, rtol=1e-12)
    np.testing.assert_allclose(parts.slopes, whole.slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_groups_of_vertices_neurons_and_faces_change_nothing_in_a_slice(monkeypatch, seed):
    torch.manual_seed(seed)
    pool = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Unflatten(1, (2, 6)), nn.MaxPool1d(3), nn.Flatten(), nn.Linear(4, 2))
    coarse = build([[[1, 1], [1, -1], [2, 0], [0, 1]], [[1, -1, 0, 1], [1, 1, -1, 0]], [[1, 2], [0, 1]]], [None, None, [0, 1]])
    slices = (
        lambda: plane(pool, -3, 3),
        lambda: plane(coarse, -3, 3),
    )
    for slice_of in slices:
        whole = slice_of()
        whole.slopes  # noqa: B018
        with monkeypatch.context() as patched:
            patched.setattr("ood_helpers.polytopes.careful._HELD", 50)
            parts = slice_of()
            np.testing.assert_array_equal(parts.starts, whole.starts)
            np.testing.assert_allclose(parts.areas, whole.areas, atol=1e-12)
            np.testing.assert_allclose(parts.slopes, whole.slopes, rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(parts.locate(parts.centroids), np.arange(len(parts)))
