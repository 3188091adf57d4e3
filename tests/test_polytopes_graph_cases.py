"""Graphs in small fixed cases, each of which a single wrong line of the code would fail."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from random_graphs import answers
from scipy.special import expit
from test_polytopes_layers import Forward, shaken
from torch import nn

from ood_helpers.polytopes import confidence_bound, directions, flat, infinity, line, plane, ray
from ood_helpers.polytopes.graph import traced
from ood_helpers.polytopes.graph_bound import _Box, highest


def floats(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def affine(weight, bias=None):
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    layer.weight.data, layer.bias.data = floats(*weight), floats(*(bias or [0.0] * len(weight)))
    return layer


def of_numbers(forward, dim, **layers):
    """A graph of a function of one row of numbers."""
    return traced(Forward(forward, **layers).double().eval(), (dim,))


def every_kind(m, x):
    """Groups, a skip, bends with several places and a slope for each channel, pools with padding, the least of two."""
    h = m.bend(m.conv(x))
    h = m.clip(m.back(h) + x - 0.3)
    h = m.pool(m.norm(h) - 2.0)
    return m.last(torch.minimum(h, h.flip(2) + 0.1).flatten(1))


def mixed(seed=0):
    model = Forward(
        every_kind,
        conv=nn.Conv2d(2, 4, 3, padding=1, groups=2),
        bend=nn.PReLU(4),
        back=nn.ConvTranspose2d(4, 2, 3, padding=1, groups=2),
        clip=nn.Hardtanh(-0.4, 0.7),
        norm=nn.BatchNorm2d(2),
        pool=nn.MaxPool2d(2, 1, padding=1),
        last=nn.Linear(2 * 25, 3),
    )
    return shaken(model, seed).double()


@pytest.fixture(params=range(3))
def model(request):
    mixed_model = mixed(request.param)
    mixed_model.shape = (2, 4, 4)
    return mixed_model


@pytest.mark.parametrize("groups", [False, True])
def test_a_line_and_a_ray(model, groups, monkeypatch):
    if groups:
        monkeypatch.setattr("ood_helpers.polytopes.along._BATCH", 1)
    graph, rng = traced(model, (2, 4, 4)), np.random.default_rng(0)
    start, way = rng.normal(size=(2, 32))
    for pieces, end in ((line(graph, start, start + way), 1.0), (ray(graph, start, way), 30.0)):
        t = np.unique(np.concatenate([np.linspace(0, end, 200), pieces.t[pieces.t < end]]))
        assert (np.diff(pieces.t) > 0).all() and len(pieces) > 10
        np.testing.assert_allclose(pieces.logits(t), answers(model, start + t[:, None] * way), atol=1e-10)


def test_a_slice(model):
    graph, rng = traced(model, (2, 4, 4)), np.random.default_rng(1)
    origin, axes, x = rng.normal(size=32), rng.normal(size=(2, 32)), rng.uniform(-1, 1, (300, 2))
    cells = plane(graph, -1, 1, origin=origin, axes=axes)
    at = cells.locate(x)
    got = np.einsum("nkj,nj->nk", cells.slopes[at], x) + cells.offsets[at]
    np.testing.assert_allclose(got, answers(model, origin + x @ axes), atol=1e-10)


@pytest.mark.parametrize("half", [0.01, 0.3, 2.0])
def test_bounds_of_every_value(model, half):
    graph, rng = traced(model, (2, 4, 4)), np.random.default_rng(2)
    low = rng.normal(size=32) - half
    box = _Box(graph, graph.tensor(low), graph.tensor(low + 2 * half))
    x = low + 2 * half * np.where(rng.random((400, 1)) < 0.5, rng.random((400, 32)), rng.integers(0, 2, (400, 32)))
    values = {0: graph.tensor(x)}
    for i, step in enumerate(graph.steps[1:], 1):
        values[i] = step(*(values[source] for source in step.sources))
        assert (values[i] >= box.least[i] - 1e-12).all() and (values[i] <= box.most[i] + 1e-12).all()
        rows = torch.from_numpy(rng.normal(size=(5, *step.shape)))
        reached = (values[i].flatten(1) @ rows.flatten(1).T).amax(0)
        assert (reached <= box.backwards(i, rows) + 1e-12).all() and (reached <= box.directly(i, rows) + 1e-12).all()


# The greatest ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(1e-20, -1e20), (-1e20, 1e-20), (-3.0, -1.0)])
def test_the_greatest_is_selected_to_the_last_bit(pair):
    graph = of_numbers(lambda m, x: m.pool(x), 2, pool=nn.MaxPool1d(2))
    np.testing.assert_array_equal(graph(pair), [max(pair)])
    np.testing.assert_array_equal(line(graph, pair, [pair[0], 2 * pair[1]]).logits(0.0), [max(pair)])


@pytest.mark.parametrize("size, pad", [(3, 1), (2, 1), (3, 0)])
def test_negative_numbers_win_over_padding_and_over_missing_rivals(size, pad):
    model = Forward(lambda m, x: m.pool(x[:, None])[:, 0], pool=nn.MaxPool1d(size, 1, pad))
    graph, start, way = traced(model, (3,)), -np.array([3.0, 5.0, 4.0]), np.array([-1.0, 4.0, 0.5])
    t = np.linspace(0, 1, 50)
    x = start + t[:, None] * way
    wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(graph(x), wanted)
    np.testing.assert_allclose(line(graph, start, start + way).logits(t), wanted, atol=1e-14)
    cells = plane(graph, [0, 0], [1, 1], origin=start, axes=[way, -way[::-1]])
    s = np.random.default_rng(0).random((100, 2))
    at = cells.locate(s)
    got = np.einsum("nkj,nj->nk", cells.slopes[at], s) + cells.offsets[at]
    np.testing.assert_allclose(got, model(torch.from_numpy(start + s @ [way, -way[::-1]])).numpy(), atol=1e-12)


def test_of_parallel_numbers_the_constant_says_which_is_the_greatest():
    graph = of_numbers(lambda m, x: m.b(m.pool(m.a(x))), 2, pool=nn.MaxPool1d(2), b=affine([[1], [0]]),
                       a=affine([[1, 2], [1, 2]], [-1, 1.5]))  # fmt: skip
    np.testing.assert_array_equal(infinity(graph).offsets[:, 0], 1.5)


# Sums of nothing but rounding ------------------------------------------------------------------------------------------------


def test_a_sum_that_is_nothing_but_rounding_is_zero():
    """.1 + .2 − .3 is not 0 in floats: as a number of its own it would have a kink, and win at infinity."""
    graph = of_numbers(lambda m, x: m.c(m.b(m.a(x).relu()).relu()), 1,
                       a=affine([[1], [1], [1]]), b=affine([[0.1, 0.2, -0.3]]), c=affine([[1], [0]]))  # fmt: skip
    assert not line(graph, [1.0], [2.0]).slopes.any() and not line(graph, [1.0], [2.0]).offsets.any()
    assert ray(graph, [1.0], [1.0]).tie and directions(graph, [[1.0]])[1].all()


def test_a_neuron_that_no_direction_moves_is_on_by_its_constant():
    graph = of_numbers(lambda m, x: m.b(m.a(x).relu()), 2, a=affine([[0, 0], [0, 0], [1, 0]], [2, -3, 0]), b=affine([[1, 1, 1]]))
    np.testing.assert_array_equal(infinity(graph).offsets[:, 0], 2)


def test_a_neuron_that_a_line_leaves_alone_is_on_by_its_constant():
    graph = of_numbers(lambda m, x: m.b(m.a(x).relu()), 2, a=affine([[0, 1], [0, -1], [1, 0]]), b=affine([[1, 10, 100]]))
    np.testing.assert_allclose(line(graph, [-1, 2], [1, 2]).logits([0, 1.0]), [[2], [102]])


def test_rounding_beside_a_kink_counts_as_on_its_steeper_side():
    graph = of_numbers(lambda m, x: m.a(x).relu(), 2, a=affine([[0.7, -0.7]]))
    *_, (z, rounding, _) = flat.survey(graph, np.array([[1.0, 1 + 2**-52], [0.0, 1.0]]))
    assert not z.any() and rounding[0] > 1e-16 and not rounding[1]


def test_misplaced_points_make_the_greatest_uncertain():
    graph = of_numbers(lambda m, x: m.pool(m.a(x)), 2, a=affine([[1, 0], [-1, 0]]), pool=nn.MaxPool1d(2))
    (_, _, unsure), _ = flat.survey(graph, np.array([[0.5, 0.0]]), np.array([1e-3]))
    assert unsure == pytest.approx(2e-3)


# Far out, and chains ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("u, winner", [([1.0], 0), ([-1.0], 1)])
def test_a_leak_counts_far_out(u, winner):
    graph = of_numbers(lambda m, x: m.b(m.a(x)), 1, a=nn.LeakyReLU(0.1), b=affine([[1], [-1]]))
    assert directions(graph, [u])[0] == winner and ray(graph, [0.0], u).winner == winner and not directions(graph, [u])[1]


def test_what_is_clipped_does_not_count_far_out():
    graph = of_numbers(lambda m, x: torch.cat([x.clamp(-5, 5), 0.1 * x], 1), 1)
    assert directions(graph, [[1.0]])[0] == 1 and ray(graph, [0.0], [1.0]).winner == 1


def test_a_slope_for_each_channel_stays_one_as_matrices():
    bend = nn.PReLU(2)
    bend.weight.data = floats(0.25, 0.5)
    graph = of_numbers(lambda m, x: m.b(m.a(m.c(x))), 2, c=affine([[1, 0], [0, 1]]), a=bend, b=affine([[1, 10]]))
    weights, biases, leaks = graph.matrices()
    h = weights[0] @ [-1.0, -1.0] + biases[0]
    assert weights[1] @ np.where(h > 0, h, leaks[0] * h) + biases[1] == pytest.approx(-5.25)


def test_a_skip_is_no_chain():
    graph = of_numbers(lambda m, x: (m.a(x).relu() + x).relu(), 2, a=affine([[1, 2], [3, -1]]))
    assert graph.matrices() is None and graph([1.0, 0.5]) == pytest.approx([3.0, 3.0])


# Bounds ----------------------------------------------------------------------------------------------------------------------


def top(forward, low, high, **layers):
    """The bound on what one number is at most."""
    return highest(of_numbers(forward, len(low), **layers), np.ones((1, 1)), np.array(low, float), np.array(high, float))[0]


def test_a_bound_is_as_tight_as_the_lines_allow():
    pool = nn.MaxPool1d(2)
    for forward, low, high, wanted in (
        (lambda m, x: m.pool(x), [0, 0.95], [1, 0.97], 1),  # either may win
        (lambda m, x: m.pool(x) - x[:, 1:], [0, 2], [1, 3], 0),  # the second wins
        (lambda m, x: torch.minimum(x[:, :1], x[:, 1:]), [-1, -1], [1, 1], 1),
        (lambda m, x: -torch.minimum(x[:, :1], x[:, 1:]), [-1, -1], [1, 1], 1),
        (lambda m, x: torch.minimum(x[:, :1], x[:, 1:]) - x[:, :1], [0, 5], [1, 6], 0),
        (lambda m, x: x / 3 - x.clamp(max=1), [0], [3], 0),  # concave: the chord lies below
        (lambda m, x: x.relu() - x / 3, [-2], [1], 2 / 3),  # convex: it lies above
        (lambda m, x: x.relu() - x, [-1], [3], 1),
        (lambda m, x: x + x.relu(), [0.5], [1], 2),  # a value that counts twice
        (lambda m, x: x - x + 4, [-5], [5], 4),
    ):
        found = top(forward, low, high, pool=pool)
        assert wanted <= found <= wanted + 1e-9, (forward, found)


def test_what_cancels_is_found_backwards_before_a_least_and_a_greatest():
    """(x + y) − (y + x) is 0, which intervals do not see; nor would the least, if its numbers were not asked about again."""
    for forward in (lambda m, x: torch.minimum(m.b(m.a(x)), 0.1 * x), lambda m, x: torch.maximum(m.b(m.a(x)), 0.1 * x)):
        graph = of_numbers(forward, 1, a=affine([[1], [1]]), b=affine([[1, -1]]))
        box = _Box(graph, graph.tensor([-1.0]), graph.tensor([1.0]))
        source = graph.steps[-1].sources[0]
        assert box.least[source].amax() > -1e-9 and box.most[source].amin() < 1e-9


def test_the_confidence_of_the_greatest():
    graph = of_numbers(lambda m, x: torch.cat([m.pool(x), 0 * x[:, :1]], 1), 2, pool=nn.MaxPool1d(2))
    bound = confidence_bound(graph, [[0, 0.95]], [[1, 0.97]])
    assert expit(1) <= bound <= expit(1) * (1 + 1e-9)


@pytest.mark.parametrize("kinked", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_rounding_is_added_to_a_bound(seed, kinked):
    """Constants that cancel: what is left is all rounding, and the bounds must enclose its exact value."""
    rng = np.random.default_rng(seed)
    a, c, b, x = rng.normal(size=9) * 1e-9, rng.uniform(1, 2, 9), rng.normal(size=9), rng.normal(size=1)
    d = -float(b @ c)
    first, second = affine(a[:, None].tolist(), c.tolist()), affine([b.tolist()], [d])
    graph = of_numbers(lambda m, x: m.b(m.a(x).relu() if kinked else m.a(x)), 1, a=first, b=second)
    a, c, b = ([Fraction(float(number)) for number in numbers] for numbers in (a, c, b))
    exact = sum(w * (v * Fraction(float(x[0])) + s) for w, v, s in zip(b, a, c, strict=True)) + Fraction(d)
    box, end, one = _Box(graph, graph.tensor(x), graph.tensor(x)), len(graph.steps) - 1, floats([[1]])
    for bound in (highest(graph, np.ones((1, 1)), x, x)[0], box.most[-1], box.backwards(end, one), box.directly(end, one)):
        assert exact <= Fraction(float(bound)) <= exact + Fraction(1e-12)
    for bound in (box.least[-1], -box.backwards(end, -one)):
        assert Fraction(float(bound)) <= exact


def tiny(scale):
    """Kinks at about 1 / scale, the second one of the pool's too."""
    model = shaken(
        nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3))
    )
    model = model.double()
    model[1].weight.data *= scale
    return model


@pytest.mark.parametrize("scale", [1e-3, 1e-12, 1e-17, 1e-20, 1e-40])
def test_kinks_far_away_keep_their_order(scale):
    chain = shaken(nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3))).double()
    chain[0].weight.data *= scale
    rng = np.random.default_rng(5)
    for model in (chain, tiny(scale)):
        start, direction = rng.normal(size=(2, 16))
        far = ray(model, start, direction)
        assert len(far) > 2 and (np.diff(far.t) > 0).all()
        t = np.concatenate([far.t, (far.t[1:] + far.t[:-1]) / 2, far.t[-1:] * [2, 1e3]])
        wanted = model(torch.from_numpy(start + t[:, None] * direction)).detach().numpy()
        np.testing.assert_allclose(far.logits(t), wanted, atol=1e-9 * np.abs(wanted).max())


def test_a_slice_that_overflows_is_refused():
    with pytest.raises(ValueError, match="exceed the range of float64"):
        plane(tiny(1e200), -1, 1, axes=np.eye(16)[:2])
    assert len(plane(tiny(1e100), 0.1, 1, origin=np.ones(16) / 7, axes=np.random.default_rng(0).normal(size=(2, 16)))) > 2


def test_slices_of_pools_do_not_depend_on_how_errors_are_asked_for(monkeypatch):
    """Where every value is taken for doubtful, all are asked for with their errors."""
    for seed in range(4):
        first, second = ((nn.Conv2d(n, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(size)) for n, size in ((1, 2), (3, 3)))
        model = shaken(nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3, 3)), seed)
        axes = np.random.default_rng(seed).normal(size=(2, 1, 6, 6))
        cells = [plane(model, -1, 1, axes=axes)]
        with monkeypatch.context() as patch:
            patch.setattr("ood_helpers.polytopes.careful._NEAR", 1e9)
            cells.append(plane(model, -1, 1, axes=axes))
        assert len(cells[0]) == len(cells[1]) > 50
        np.testing.assert_allclose(np.sort(cells[0].areas), np.sort(cells[1].areas), atol=1e-12)
