"""Closed networks: the construction, its plain copy, training in a stack, and what is refused."""

import copy
import functools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ood_helpers import closed, data, horizon, polytopes, worlds
from ood_helpers.cache import cached_train
from ood_helpers.gan import discriminator, generator, train_gan
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import Stack, closed_mlp, mlp
from ood_helpers.training import train

WORLD = data.TwoGaussians()
LOSS = functools.partial(confidence_loss, beta=1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(d=2, n=200, seed=0):
    return 3 + 2 * torch.randn(n, d, generator=seeded(seed))


def small(seed=0, d=2, width=6, n_classes=2, depth=2, **how):
    return closed_mlp(d, width, n_classes, depth, points=points(d, seed=seed), generator=seeded(seed), **how)


def of_world(seed=0, width=6, depth=2, **how):
    x, _ = WORLD.sample(200, generator=seeded(seed))
    return closed_mlp(2, width, how.pop("n_classes", 2), depth, points=x, generator=seeded(seed), **how)


def by_hand(model, x):
    """The formula at the head of `closed`, neuron by neuron, in float64; behind the second hidden layer ordinary ones."""
    (a, b), (w, beta), *others = [(layer.weight.double(), layer.bias.double()) for layer in model.layers[::2]]
    q = (1 + model.raw.double().exp()).log().T + 1e-3 + (1 + 2**-10) * w.relu() @ a.abs()
    away = (x.double() - model.centre.double()).abs() - model.usual.double()
    z = beta + (x.double() @ a.T + b).relu() @ w.T - away @ q.T
    for weight, bias in others:
        z = z.relu() @ weight.T + bias
    return z


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 12), st.integers(1, 5), st.integers(2, 5), st.sampled_from([0.05, 1.0, 20.0]), st.booleans()
)
def test_it_computes_its_formula_and_so_does_the_plain_copy(d, width, n_classes, depth, steepness, centred):
    model, x = small(1, d, width, n_classes, depth, steepness=steepness, centred=centred), points(d, 50, seed=2)
    expected = by_hand(model, x)
    size = 1 + expected.abs().max().item()
    torch.testing.assert_close(model.double()(x.double()), expected, rtol=1e-9, atol=1e-9 * size)
    for plain, dtype, digits in [(model.plain(), torch.float64, 1e-9), (model.float().plain(), torch.float32, 1e-4)]:
        assert [type(layer) for layer in plain] == [nn.Linear, nn.ReLU] * depth + [nn.Linear]
        assert [len(layer.weight) for layer in plain[::2]] == [width + 2 * d, *[width] * (depth - 1), n_classes]
        assert plain[0].weight.dtype == dtype
        torch.testing.assert_close(plain(x.to(dtype)).double(), expected, rtol=digits, atol=digits * size)


def test_the_plain_copy_is_a_copy_that_can_be_trained_by_itself():
    model = small()
    before, plain = model(points()), model.plain()
    assert all(parameter.requires_grad for parameter in plain.parameters())
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.fill_(1)
    torch.testing.assert_close(model(points()), before, rtol=0, atol=0)


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10])
def test_confident_is_uniform_far_away_exactly(n_classes, depth):
    model = small(n_classes=n_classes, d=5, depth=depth)
    x = 1e4 * torch.randn(100, 5, generator=seeded())
    assert (model(x) == 0).all() and (model.plain()(x) == 0).all()
    assert (model(points(5)) != 0).any()


@pytest.mark.parametrize("far", [1e-6, 0.3, 0.5, 0.9, 0.99, 1 - 1e-9])
@pytest.mark.parametrize("outputs, depth", [(2, 2), (3, 4), (11, 3)])
def test_reject_has_the_probability_asked_for_far_away(far, outputs, depth):
    model = small(n_classes=outputs, far=far, depth=depth)
    for network in (model, model.plain()):
        p = network(torch.full((1, 2), -1e5)).double().softmax(-1)[0, -1].item()
        assert far <= p <= far + 1e-4 * min(far, 1 - far)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_biases_behind_the_silent_layer_are_not_trained(depth):
    for model, loss in [(of_world(depth=depth), LOSS), (of_world(n_classes=3, far=0.9, depth=depth), reject_loss)]:
        before = [layer.bias.clone() for layer in model.layers[::2]]
        train(model, WORLD, loss, steps=5)
        same = [torch.equal(layer.bias, bias) for layer, bias in zip(model.layers[::2], before, strict=True)]
        assert same == [False, False] + [True] * (depth - 1)
        assert not any(bias.any() for bias in before[2:-1])


def test_the_centre_is_the_mean_of_the_points():
    torch.testing.assert_close(small(d=3).centre, points(3).mean(0))
    assert [name for name, _ in small().named_buffers()] == ["centre", "usual"]


def test_about_half_of_the_neurons_see_a_point_at_the_start_whatever_the_scale():
    for scale in (1e-2, 1.0, 1e3):
        for depth in (2, 4):
            x = scale * points(10)
            model = closed_mlp(10, 50, 2, depth, points=x, generator=seeded(), steepness=0.5 / scale)
            z = model.layers[:3](x) - (x - model.centre).abs() @ model.pull()
            assert 0.2 < (z > 0).double().mean() < 0.8


def active(model, x):
    """Which neurons of the second hidden layer [n, width] are on at x."""
    return model.layers[:3](x) - (x - model.centre).abs() @ model.pull() > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.floats(1, 30), st.integers(0, 99))
def test_no_class_is_silent_at_the_start_however_far_out_it_lies(n_classes, d, ratio, seed):
    """Classes on spheres, the outermost up to 25 times as far out as the first: a few of its points see no neuron."""
    y = torch.arange(400) % n_classes
    distance = 3 * (1 + y * ratio / n_classes)
    x = horizon.unit_directions(400, d, generator=seeded(seed)) * distance[:, None]
    model = closed_mlp(d, 60, n_classes, points=x, spread=True, generator=seeded(seed))
    on = active(model, x)
    assert min(on[y == k].any(1).double().mean() for k in range(n_classes)) > 0.4


def test_a_start_from_the_mean_leaves_the_outer_ring_mostly_silent():
    for seed in range(5):
        x, y = worlds.Rings().sample(1000, generator=seeded(seed))
        models = [closed_mlp(2, 100, 2, points=x, spread=spread, generator=seeded(seed)) for spread in (False, True)]
        shares = [active(model, x)[y == 1].any(1).double().mean() for model in models]
        assert shares[0] < 0.4 and shares[1] > 0.9 and torch.equal(models[0].centre, models[1].centre)


def test_spread_gives_each_neuron_another_quantile_of_what_it_subtracts():
    x = points(3, n=8)
    bare, spread = (closed_mlp(3, 4, 2, points=x[:n], spread=True, generator=seeded()) for n in (1, 8))  # one point: nothing
    given = spread.layers[2].bias - bare.layers[2].bias
    subtracted = ((x - spread.centre).abs() @ spread.pull()).sort(0).values
    torch.testing.assert_close(given, subtracted[[1, 3, 5, 7], [0, 1, 2, 3]])


@pytest.mark.parametrize("spread", [False, True])
def test_centred_is_the_same_network_and_weights_that_grow_take_nothing_from_the_average_point(spread):
    x = points(5, n=40)
    models = [closed_mlp(5, 6, 3, points=x, spread=spread, centred=centred, generator=seeded()) for centred in (False, True)]
    torch.testing.assert_close(models[1](x), models[0](x))
    torch.testing.assert_close(models[1].plain()(x), models[0](x))
    torch.testing.assert_close(horizon.radius_loss(models[1]), horizon.radius_loss(models[0]))
    taken = [((x - model.centre).abs() - model.usual) @ model.pull() for model in models]
    for model in models:
        model.raw.data += 0.5
    more = [((x - m.centre).abs() - m.usual) @ m.pull() - before for m, before in zip(models, taken, strict=True)]
    low = [change.mean(0).abs().max() for change in more]
    assert low[1] < 1e-4 < 0.5 < low[0]


def test_a_stack_of_centred_networks_trains_as_each_would_alone():
    (first, second), alone = ([of_world(s, centred=True) for s in range(2)] for _ in range(2))
    how = {"steps": 20, "lr": 1e-2}
    train([first, second], WORLD, LOSS, WORLD.boundary, seed=[0, 1], **how)
    train(alone[0], WORLD, LOSS, WORLD.boundary, seed=0, **how)
    torch.testing.assert_close(first(points(2)), alone[0](points(2)), rtol=1e-3, atol=1e-4)
    assert polytopes.horizon_radius(second.plain()).radius > 0


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"depth": 1}, "depth must be a whole number of at least 2; got 1"),
        ({"depth": 0}, "depth must be"),
        ({"width": 0}, "width must be a whole number of at least 1"),
        ({"in_dim": 0}, "in_dim must be"),
        ({"n_classes": 0}, "n_classes must be"),
        ({"points": [[0.0, math.nan]]}, r"points must hold finite numbers \[n, 2\].* 1 are NaN or infinite"),
        ({"points": [[0.0, math.inf]]}, "points must hold finite"),
        ({"points": [[0.0, 1e39]]}, "points must hold finite"),  # infinite in float32
        ({"points": torch.zeros(0, 2)}, r"points must .* got \[0, 2\]"),
        ({"points": torch.zeros(5, 3)}, r"points must .* got \[5, 3\]"),
        ({"points": torch.zeros(2)}, r"points must .* got \[2\]"),
        ({"points": "points"}, "points must hold real numbers|points must hold numbers"),
        ({"steepness": 0}, "steepness must be a positive number"),
        ({"steepness": -1.0}, "steepness must be a positive number"),
        ({"steepness": math.nan}, "steepness must be a positive number"),
        ({"steepness": math.inf}, "steepness must be a positive number"),
        ({"far": 0}, "far must be"),
        ({"far": 1.0}, "far must be"),
        ({"far": math.nan}, "far must be"),
        ({"far": 0.5, "n_classes": 1}, "far must be"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        closed_mlp(**{"in_dim": 2, "width": 4, "n_classes": 2, "points": points()} | arguments)


@pytest.mark.parametrize("steepness", [1e-30, 1e-3, 0.5, 30.0, 1e4])
def test_any_positive_steepness_can_be_had(steepness):
    model = small(steepness=steepness)
    torch.testing.assert_close(closed.slopes(model.raw), torch.full((2, 6), steepness + closed._FLOOR))


# ---- training ----


@pytest.mark.parametrize("depth, dtype", [(2, torch.float32), (3, torch.float32), (4, torch.float64)])
def test_a_stack_computes_what_its_networks_compute_and_so_do_the_gradients(depth, dtype):
    models = [small(s, 3, depth=depth).to(dtype) for s in range(3)]
    x = points(3).to(dtype)
    alone = torch.stack([model(x) for model in models])
    expected = torch.autograd.grad(alone.square().sum(), [model.raw for model in models])
    stack = Stack(models)
    torch.testing.assert_close(stack(x), alone)
    stack(x).square().sum().backward()
    torch.testing.assert_close(stack.closed[0].grad, torch.stack(expected), rtol=1e-3, atol=1e-3)


def test_together_they_get_what_they_get_alone_and_are_released():
    together = [of_world(s) for s in range(3)]
    alone = copy.deepcopy(together[1])
    history = train(together, WORLD, LOSS, steps=30, seed=[5, 6, 7])
    train(alone, WORLD, LOSS, steps=30, seed=6)
    assert history.loss.shape == (30, 3)
    for ours, theirs in zip(together[1].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert together[0].raw.data_ptr() != together[1].raw.data_ptr() and together[0].raw.is_contiguous()
    assert not torch.equal(alone.raw, of_world(1).raw)


def test_frozen_parameters_stay_network_by_network():
    models = [of_world(s) for s in range(2)]
    models[1].raw.requires_grad_(False)
    before = [model.raw.clone() for model in models]
    train(models, WORLD, LOSS, steps=5)
    assert not torch.equal(models[0].raw, before[0]) and torch.equal(models[1].raw, before[1])


def test_a_closed_network_learns_the_classes_and_to_be_unsure_elsewhere():
    model = of_world(width=50)
    train(model, WORLD, LOSS, steps=400, lr=3e-3, cosine=True)
    x, y = WORLD.sample(500, generator=seeded(1))
    assert (model(x).argmax(1) == y).double().mean() > 0.95
    p = model(WORLD.box(500, generator=seeded(2))).softmax(1).amax(1)
    assert (p > 0.9).double().mean() < 0.1


def test_deep_ones_learn_too():
    """With the silence in the last hidden layer, behind products of |W|, these died."""
    models = [of_world(s, width=50, depth=4) for s in range(4)]
    how = {"steps": 300, "lr": 2e-3, "cosine": True, "penalty": horizon.radius_loss, "penalty_weight": 0.1}
    train(models, WORLD, LOSS, **how)
    x, y = WORLD.sample(500, generator=seeded(1))
    assert all((model(x).argmax(1) == y).double().mean() > 0.95 for model in models)


def test_no_training_leads_out_of_the_inequality():
    """A thousand steps at a silly learning rate; numbers that are not finite end it earlier."""
    models = [of_world(s, depth=2 + s, width=10) for s in range(4)]
    for model in models:
        try:
            train(model, WORLD, lambda x, y, out: -LOSS(x, y, out), steps=1000, lr=3.0)
        except ValueError as error:
            assert "must be finite" in str(error)
        assert max(layer.weight.abs().max() for layer in model.layers[::2]) > 10
        found = polytopes.horizon_radius(model.plain())
        assert 0 < found.radius < math.inf and (found.logits == 0).all()


def other(change):
    model = small()
    change(model)
    return model


def tie(model):
    model.raw = nn.Parameter(model.layers[2].weight.data[:2, :6].view(2, 6))


UNFIT = {
    "another forward": (lambda m: setattr(m, "forward", lambda x: x), "expected Closed, as in torch.nn|forward of its own"),
    "a hook": (lambda m: m.register_forward_hook(lambda *_: None), "hook"),
    "a hook on raw": (lambda m: m.raw.register_hook(lambda g: g), "its raw has a gradient hook"),
    "another activation": (lambda m: m.layers.__setitem__(1, nn.LeakyReLU()), "must be a closed network .* LeakyReLU"),
    "one hidden layer": (lambda m: setattr(m, "layers", mlp(2, 6, 2, 1)), "two hidden layers"),
    "another parameter": (lambda m: setattr(m, "more", nn.Parameter(torch.zeros(1))), "it holds layers, raw, more, centre"),
    "another buffer": (lambda m: m.register_buffer("more", torch.zeros(1)), "it holds layers, raw, centre, usual, more"),
    "no layers": (lambda m: setattr(m, "layers", nn.Linear(2, 2)), "must be a closed network"),
    "half of it double": (lambda m: m.layers.double(), "its raw is torch.float32"),
    "a layer without bias": (lambda m: setattr(m.layers[2], "bias", None), r"layer 2 \(Linear\): must have a bias"),
    "raw of another shape": (lambda m: setattr(m, "raw", nn.Parameter(torch.zeros(3, 6))), "raw, centre and usual must have"),
    "a centre of another shape": (lambda m: setattr(m, "centre", torch.zeros(3)), "raw, centre and usual must have"),
    "numbers in common": (tie, "raw shares its numbers with|shares its numbers with .*raw"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_closed_network_is_refused_by_name(name):
    change, says = UNFIT[name]
    for models in ([other(change)], [small(1), other(change)]):
        with pytest.raises(ValueError, match=says):
            Stack(models)


def test_closed_and_others_do_not_mix():
    with pytest.raises(ValueError, match=r"same shape; network 0 is closed 2-6-6-2 .* but network 1 is 2-6-6-2"):
        Stack([small(), mlp(2, 6)])
    with pytest.raises(ValueError, match="shares its numbers"):
        one, two = small(0), small(1)
        two.raw = one.raw
        Stack([one, two])


def test_a_network_that_was_changed_meanwhile_is_named():
    models = [small(s) for s in range(2)]
    stack = Stack(models)
    models[1].raw.data = models[1].raw.data + 1  # now it is no longer a view
    with pytest.raises(ValueError, match="network 1 was changed while it was trained"):
        stack.release()


def test_a_cached_run_knows_closed_networks_by_all_that_matters(tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))

    def cached(change=lambda model: None, **how):
        models = [of_world(s) for s in range(2)]
        change(models[1])
        cached_train(models, WORLD, LOSS, steps=3, **how)
        return models

    ours, theirs = cached(), cached()
    assert len(list(tmp_path.iterdir())) == 1
    assert all(torch.equal(a, b) for a, b in zip(ours[1].state_dict().values(), theirs[1].state_dict().values(), strict=True))
    cached(lambda model: model.centre.add_(1e-3))
    cached(lambda model: model.raw.data.add_(1e-3))
    cached(lambda model: model.layers[-1].bias.requires_grad_(True))
    cached(penalty=horizon.radius_loss, penalty_weight=0.1)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_closed_classifier_can_be_trained_together_with_a_gan():
    classifiers = [of_world(s) for s in range(2)]
    generators = [generator(3, 4, 1, 2, generator=seeded(s)) for s in range(2)]
    discriminators = [discriminator(2, 4, 1, generator=seeded(s)) for s in range(2)]
    before = classifiers[1].raw.clone()
    train_gan(generators, discriminators, classifiers, WORLD, steps=3)
    assert not torch.equal(classifiers[1].raw, before)
    with pytest.raises(ValueError, match="classifiers must have 2 inputs"):
        train_gan(generators, discriminators, [small(d=3), small(d=3)], WORLD, steps=3)


# ---- the price ----


def test_the_price_is_what_the_proof_gives():
    models = [small(s, 3, depth=3) for s in range(2)]
    alone = torch.stack([horizon.radius_loss(model) for model in models])
    torch.testing.assert_close(horizon.radius_loss(Stack(models), torch.zeros(1, 3)), alone)
    model = models[0].double()
    (a, b), (w, beta) = [(layer.weight, layer.bias) for layer in model.layers[:3:2]]
    high = w.relu() @ (a @ model.centre + b).relu() + beta
    radius = high.relu() / (torch.nn.functional.softplus(model.raw) + 1e-3).amin(0)
    torch.testing.assert_close(horizon.radius_loss(model), (1 + radius).log().mean())
    assert polytopes.horizon_radius(model.plain()).radius <= radius.max()


def test_a_price_makes_the_ball_smaller():
    radii = []
    for weight in (1e-9, 1.0):
        models = [of_world(s, width=30) for s in range(2)]
        train(models, WORLD, LOSS, steps=200, lr=3e-3, penalty=horizon.radius_loss, penalty_weight=weight)
        radii.append([polytopes.horizon_radius(model.plain()).radius for model in models])
    assert all(cheap > 1.2 * dear for cheap, dear in zip(*radii, strict=True))


@pytest.mark.parametrize("network", [mlp(2, 4), Stack([mlp(2, 4)]), nn.Linear(2, 2)])
def test_only_a_closed_network_has_the_price(network):
    with pytest.raises(ValueError, match="network must be closed"):
        horizon.radius_loss(network)


def test_losses_at_infinity_are_not_for_closed_networks():
    with pytest.raises(ValueError, match="network is closed"):
        train([small()], WORLD, LOSS, steps=1, penalty=horizon.silent_horizon_loss)
