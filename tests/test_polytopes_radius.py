"""The proven ball: against exact fractions, the circle at infinity, rays and a search; and when nothing is proved."""

import copy
import functools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import build, coarse_networks, random_network
from torch import nn

from ood_helpers import data, horizon, polytopes
from ood_helpers.losses import confidence_loss
from ood_helpers.models import closed_mlp, mlp
from ood_helpers.polytopes import horizon_radius, infinity, line
from ood_helpers.training import train


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def closed(seed=0, d=2, width=6, n_classes=3, depth=2, scale=1.0, dtype=torch.float32, **how):
    x = 3 + 2 * torch.randn(100, d, generator=seeded(seed))
    model = closed_mlp(d, width, n_classes, depth, points=x, generator=seeded(seed), **how)
    with torch.no_grad():
        for layer in model.layers[::2]:
            layer.weight *= scale
        model.raw += torch.randn(model.raw.shape, generator=seeded(seed))
    return model.to(dtype).plain()


def fractions(values):
    return [[Fraction(float(v)) for v in row] for row in values]


def least_slope(model, d):
    """The inequality of the closed network, from the plain weights alone, in exact fractions: the least of q_jk − Σ relu(w)|a|.

    The first layer's neurons with one weight ±1 are pairs, the second layer's weights on them −q; the rest are free.
    """
    first, second = (fractions(layer.weight.detach()) for layer in (model[0], model[2]))
    free = len(first) - 2 * d
    assert [first[free + k] for k in range(d)] == [[int(k == i) for i in range(d)] for k in range(d)]
    assert [first[free + d + k] for k in range(d)] == [[-int(k == i) for i in range(d)] for k in range(d)]
    found = []
    for row in second:
        for k in range(d):
            pull = -max(row[free + k], row[free + d + k])
            found.append(pull - sum(max(w, 0) * abs(a[k]) for w, a in zip(row[:free], first[:free], strict=True)))
    return min(found)


@pytest.mark.parametrize("seed", range(20))
def test_the_inequality_holds_exactly_in_the_plain_weights_and_agrees_with_the_verdict(seed):
    """Twenty networks, one after another wider, deeper, steeper; then each with one number changed, so that it fails."""
    d, depth, dtype = 1 + seed % 5, 2 + seed % 3, (torch.float32, torch.float64)[seed % 2]
    model = closed(seed, d, 4 + seed, depth=depth, scale=10.0 ** (seed % 4 - 1), dtype=dtype)
    slope = least_slope(model, d)
    found = horizon_radius(model)
    assert slope > 0 and 0 <= found.radius < math.inf
    with torch.no_grad():
        model[2].weight[0, -1] = 1e9  # now neuron 0 rises along the last axis
    assert least_slope(model, d) < 0
    with pytest.raises(ArithmeticError, match="undecided"):
        horizon_radius(model)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_inequality_holds_exactly_after_training(depth):
    world = data.TwoGaussians()
    x, _ = world.sample(200, generator=seeded())
    models = [closed_mlp(2, 12, 2, depth, points=x, generator=seeded(s)) for s in range(4)]
    train(models, world, functools.partial(confidence_loss, beta=1.0), steps=300, lr=1e-2, seed=[0, 1, 2, 3])
    for model in models:
        assert not torch.equal(model.raw, model.raw[0, 0].expand(2, 12))
        assert least_slope(model.plain(), 2) > 0 and horizon_radius(model.plain()).radius < 1000


def test_an_equation_is_no_inequality():
    """z = relu(x) − |x| is 0 for every x > 0, so that the network is not constant far away where something else depends on x."""
    pairs = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 0]]
    for push, proved in [(1.0, False), (1.0 - 2**-40, True), (1.0 + 2**-40, False)]:
        model = build([pairs, [[-1, -1, -1, -1, push]], [[1], [2]]], [[0, 0, 0, 0, 0], [1], [0, 0]])
        if proved:
            assert 2**40 <= horizon_radius(model).radius < 1.02 * 2**40
        else:
            with pytest.raises(ArithmeticError):
                horizon_radius(model)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 4), st.sampled_from([0.1, 1.0, 5.0]))
def test_beyond_the_radius_the_answer_is_the_one_it_names(seed, d, depth, scale):
    model = closed(seed, d, depth=depth, scale=scale, dtype=torch.float64)
    centre, radius, logits = horizon_radius(model)
    assert (logits == model[-1].bias.detach().numpy()).all()
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(500, d)) * rng.integers(0, 2, size=(500, d))
    u[:d], u[d : 2 * d] = np.eye(d), -np.eye(d)
    u = u[u.any(axis=1)]
    u /= np.abs(u).sum(axis=1, keepdims=True)
    for far in (1 + 1e-9, 1.5, 100.0):
        x = torch.from_numpy(centre + far * max(radius, 1e-300) * u)
        torch.testing.assert_close(model(x), torch.from_numpy(logits).expand(len(x), -1), rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(6))
def test_a_search_from_the_ball_s_surface_finds_nothing_beyond_and_something_within(seed):
    """Gradient ascent on the spread of the logits, projected out of the ball; the ball is not too large either."""
    model = closed(seed, 3, 20, depth=2 + seed % 2, dtype=torch.float64)
    centre, radius, logits = horizon_radius(model)
    centre = torch.from_numpy(centre)

    def climb(low, high):
        t = torch.randn(200, 3, generator=seeded(seed), dtype=torch.float64)
        best = 0.0
        for _ in range(50):
            length = t.abs().sum(1, keepdim=True)
            t = (t / length * length.clamp(low, high)).detach().requires_grad_()
            away = (model(centre + t) - torch.from_numpy(logits)).abs().sum(1)
            best = max(best, away.max().item())
            (slope,) = torch.autograd.grad(away.sum(), t)
            t = t.detach() + 0.1 * radius * torch.nn.functional.normalize(slope, dim=1)
        return best

    assert climb(radius * (1 + 1e-12), 3 * radius) == 0
    assert climb(0, radius) > 0


@pytest.mark.parametrize("seed", range(5))
def test_in_the_plane_infinity_agrees_exactly_and_so_do_lines(seed):
    model = closed(seed, 2, 30, depth=2 + seed % 2)
    centre, radius, logits = horizon_radius(model)
    circle = infinity(model)
    assert circle.tie.all() and not circle.slopes.any()
    assert np.abs(circle.offsets - logits).max() == 0
    corners = centre + radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]) * (1 + 1e-9)
    for i in range(4):  # around the ball, along its surface
        along = line(model, corners[i], corners[(i + 1) % 4])
        assert not along.slopes.any() and np.abs(along.offsets - logits).max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 3))
def test_order_and_scale_of_the_neurons_do_not_matter(seed, d, depth):
    """Neurons in another order, some twice with half the weight, each scaled: the same function, the same ball."""
    model = closed(seed, d, depth=depth, dtype=torch.float64)
    expected, rng = horizon_radius(model), np.random.default_rng(seed)
    weights = [layer.weight.detach().numpy() for layer in model[::2]]
    biases = [layer.bias.detach().numpy() for layer in model[::2]]
    for layer in range(len(weights) - 1):
        order = rng.permutation(np.concatenate([np.arange(len(biases[layer])), rng.integers(0, len(biases[layer]), 3)]))
        times, size = np.bincount(order), 2.0 ** rng.integers(-3, 4, size=len(order))
        weights[layer], biases[layer] = weights[layer][order] * size[:, None], biases[layer][order] * size
        weights[layer + 1] = weights[layer + 1][:, order] / times[order] / size
    found = horizon_radius(build(weights, biases))
    np.testing.assert_allclose(found.centre, expected.centre, rtol=1e-12)
    assert found.radius == pytest.approx(expected.radius, rel=1e-9)
    np.testing.assert_array_equal(found.logits, expected.logits)


def test_units_of_the_inputs_that_were_folded_into_the_first_layer():
    """x ↦ model((x − shift) / scale): the pairs are no longer ±1, and every axis has its own slope."""
    model = closed(1, 3, dtype=torch.float64)
    scale, shift = torch.tensor([0.5, 8.0, 3.0], dtype=torch.float64), torch.tensor([1.0, -7.0, 0.1], dtype=torch.float64)
    inner = horizon_radius(model)
    with torch.no_grad():
        model[0].weight /= scale
        model[0].bias -= model[0].weight @ shift
    found = horizon_radius(model)
    np.testing.assert_allclose(found.centre, inner.centre * scale.numpy() + shift.numpy(), rtol=1e-9)
    assert 0.5 * inner.radius < found.radius <= 8.0 * inner.radius * (1 + 1e-9)


def test_a_ball_by_hand():
    """z = 3 + relu(x + y) − 2|x − 1| − 4|y|: 3 + 1 at the centre (1, 0), and slopes of 2 − 1 at least."""
    axes = [[1, 1], [1, 0], [-1, 0], [0, 1], [0, -1]]
    model = build([axes, [[1, -2, -2, -4, -4]], [[5], [-5]]], [[0, -1, 1, 0, 0], [3], [0.5, 0.25]])
    centre, radius, logits = horizon_radius(model)
    assert centre.tolist() == [1, 0] and logits.tolist() == [0.5, 0.25]
    assert 4 <= radius < 4 + 1e-12
    x = torch.tensor([[5.0 + 1e-9, 0.0], [5.0 - 1e-6, 0.0]], dtype=torch.float64)
    assert (model(x) == torch.tensor([0.5, 0.25])).all(1).tolist() == [True, False]  # here the ball is as small as it can be


@pytest.mark.parametrize("shift", [0.0, 3.0, -7.0])
def test_a_ball_by_hand_that_is_not_along_the_axes(shift):
    """z = 1 − |x + y − shift| − |x − y|: the certificate's ball has the corner ((1 + shift)/2, (1 + shift)/2) on it."""
    axes = [[1, 1], [-1, -1], [1, -1], [-1, 1]]
    model = build([axes, [[-1, -1, -1, -1]], [[1], [2]]], [[-shift, shift, 0, 0], [1], [3, 4]])
    centre, radius, logits = horizon_radius(model)
    assert centre.tolist() == [0, 0] and logits.tolist() == [3, 4]
    assert 1 + abs(shift) <= radius < (1 + abs(shift)) * (1 + 1e-6)


@pytest.mark.parametrize("rise, proved", [(-0.5, True), (0.0, True), (0.5, False)])
def test_a_neuron_that_is_off_at_the_centre_and_wakes_up_later(rise, proved):
    axes = [[1], [-1]]
    model = build([axes, [[-1, -1], [rise, -1]], [[1, 1]]], [[0, 0], [1, -1], [0]])
    if proved:
        assert horizon_radius(model).radius == pytest.approx(1)
    else:
        with pytest.raises(ArithmeticError):
            horizon_radius(model)


def test_a_lower_bound_does_not_survive_what_is_subtracted():
    """Hidden layer 2: relu(|x| − 2 relu(x)), which is 0 for x > 0, and relu(x) / 2; layer 3: 1 − the first + the second."""
    model = build([[[1], [-1]], [[-1, 1], [0.5, 0]], [[-1, 1]], [[1]]], [[0, 0], [0, 0], [1], [0]])
    with pytest.raises(ArithmeticError):
        horizon_radius(model)


@pytest.mark.parametrize("seed", range(10))
def test_rounding_is_never_in_favour_of_the_proof(seed):
    """Slopes of 0.1 of a step between floats, up and down: as sums of floats they cannot be told apart."""
    rng = np.random.default_rng(seed)
    a, w = rng.random((50, 1)), rng.random((1, 50))
    exact = sum(Fraction(x) * Fraction(y) for x, y in zip(a[:, 0].tolist(), w[0].tolist(), strict=True))
    below = float(exact)
    below = below if Fraction(below) < exact else np.nextafter(below, -1)
    model = build([np.vstack([a, [[1], [-1]]]), np.hstack([w, [[-below, -below]]]), [[1]]], [np.zeros(52), [1], [0]])
    with pytest.raises(ArithmeticError):
        horizon_radius(model)


def test_an_earlier_layer_may_fall_silent_and_constant_or_unused_neurons_do_not_matter():
    """Hidden layer 2 of 3 is off far away, but for a neuron without weights and one that nobody looks at."""
    axes = [[1], [-1], [0.25]]
    second = [[-1, -1, 1], [0, 0, 0], [1, 2, 3]]
    third = [[1, 1, 0], [-1, 0.5, 0]]
    model = build([axes, second, third, [[1, 0], [0, 1]]], [[0, 0, 0], [3, 2, 0], [0.5, 1], [0, 10]])
    centre, radius, logits = horizon_radius(model)
    assert logits.tolist() == [2.5, 12] and centre.tolist() == [0] and radius == pytest.approx(4)
    assert model(torch.tensor([[4.0], [-4.0], [1e5]], dtype=torch.float64)).tolist() == [[2.5, 12]] * 3


def test_a_constant_network_has_a_ball_of_nothing():
    model = build([[[1, 0], [-1, 0], [0, 1], [0, -1]], [[-1, -1, -1, -1]], [[1], [1]]], [[0] * 4, [-1], [3, 4]])
    assert horizon_radius(model)[1:][0] == 0 and horizon_radius(model).logits.tolist() == [3, 4]


def test_trained_silence_has_a_ball_too():
    """A network of the trained silent horizon has no pairs; in the plane its certificate gives a ball around 0."""
    model = mlp(2, 32, 2, generator=seeded())
    how = {"penalty": horizon.silent_horizon_loss, "penalty_weight": 0.3, "lr": 3e-3, "cosine": True}
    train(model, data.TwoGaussians(), functools.partial(confidence_loss, beta=1.0), steps=600, **how)
    if not polytopes.silent_certificate(model).strict:
        with torch.no_grad():  # a certain one: what pulls all neurons down further
            model[2].weight -= 1
    found = horizon_radius(model)
    assert found.centre.tolist() == [0, 0] and found.radius > 10
    np.testing.assert_array_equal(found.logits, model[4].bias.detach().double().numpy())
    u = torch.nn.functional.normalize(torch.randn(2000, 2, generator=seeded(), dtype=torch.float64), p=1, dim=1)
    far = copy.deepcopy(model).double()((1 + 1e-9) * found.radius * u)
    assert (far == torch.from_numpy(found.logits)).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3).flatmap(coarse_networks), st.integers(0, 10**6))
def test_on_networks_with_coincidences_a_ball_is_right_or_refused(network, seed):
    weights, biases, _ = network
    model = build(weights, biases)
    try:
        centre, radius, logits = horizon_radius(model)
    except ArithmeticError:
        return
    except ValueError as error:
        assert len(weights) < 3 and "two hidden layers" in str(error)
        return
    rng, d = np.random.default_rng(seed), len(weights[0][0])
    u = np.vstack([np.eye(d), -np.eye(d), rng.normal(size=(100, d)), rng.integers(-1, 2, size=(50, d))])
    u = u[u.any(axis=1)]
    u /= np.abs(u).sum(axis=1, keepdims=True)
    for far in (1 + 1e-9, 2.0, 50.0):
        got = model(torch.from_numpy(centre + far * max(radius, 1e-9) * u)).detach().numpy()
        np.testing.assert_allclose(got, np.broadcast_to(logits, got.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "model, says",
    [
        (mlp(2, 5, 2, 1), "two hidden layers or more: with one, a neuron"),
        (mlp(2, 5, 2, 0), "two hidden layers"),
        (mlp(2, 5, 2, 2, "leaky_relu"), r"a LeakyReLU is never silent; got the slopes \[0.01, 0.01\]"),
        (mlp(2, 5, 2, 2, "tanh"), "layer 1"),
        (nn.Linear(2, 2), "two hidden layers"),
    ],
)
def test_what_cannot_be_silent_is_refused(model, says):
    with pytest.raises(ValueError, match=says):
        horizon_radius(model)


def test_plain_networks_prove_nothing():
    for d, width in [(2, 16), (10, 50), (784, 100)]:
        with pytest.raises(ArithmeticError, match="undecided: it could not be proved that the model is constant far away"):
            horizon_radius(mlp(d, width, 2, generator=seeded()))


@pytest.mark.parametrize("size", [1e-200, 1e-160, 1e150, 1e300])
def test_numbers_at_the_end_of_the_floats_are_proved_rightly_or_not_at_all(size):
    axes = np.array([[1.0], [-1.0], [0.5]])
    model = build([axes * size, [[-1, -1, 1]], [[1]]], [[0, 0, 0], [1], [0]])
    try:
        radius = horizon_radius(model).radius
    except ArithmeticError:
        return
    assert radius >= 2 / size * (1 - 1e-12) or math.isinf(2 / size)


def test_an_input_that_no_pair_watches_is_not_proved():
    """The network does not look at y at all: from the data it stays the same along y for ever."""
    model = build([[[1, 0], [-1, 0], [1, 0]], [[-1, -1, 0.5]], [[1], [2]]], [[0, 0, 0], [1], [0, 0]])
    with pytest.raises(ArithmeticError):
        horizon_radius(model)


def test_random_networks_never_get_a_wrong_ball():
    rng = np.random.default_rng(0)
    for _ in range(30):
        model = random_network(rng, [2, 5, 4, 2])
        strict = polytopes.silent_certificate(model).strict
        if strict:
            assert horizon_radius(model).radius < math.inf
        else:
            with pytest.raises(ArithmeticError):
                horizon_radius(model)
